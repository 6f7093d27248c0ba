#include "core/replication/resync_source.hpp"

#include <algorithm>
#include <utility>

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/core.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {

ResyncSource::ResyncSource(Core& core) : core_(core) {
    chunks_.resize(core.config.resync_chunks);
}

void ResyncSource::enter(State next) {
    const bool legal = next == State::off || (state_ == State::off && next == State::preparing) ||
                       (state_ == State::preparing && next == State::waiting) ||
                       (state_ == State::waiting && next == State::running);
    INVARIANT(legal, "a resync moves along its chart");
    if (next == state_) return;
    state_ = next;
    if (next == State::off || next == State::running) {
        core_.notice(NoticeKind::sync_changed, next == State::off ? "off" : "sync source");
    }
    core_.again();
}

void ResyncSource::begin(bool full) {
    full_ = full;
    bits_prepared_ = bitmap_received_ = ready_received_ = false;
    cursor_ = 0;
    done_bytes_ = 0;
    window_ = static_cast<std::uint32_t>(std::max<std::size_t>(1, chunks_.size()));
    if (full) {
        core_.bitmap->set_all();
        core_.bitmap->want_all_stable();
    }
    enter(State::preparing);
}

// A full resync that is interrupted goes on as a bitmap resync: first every bit is stable, then the
// superblock says that the bitmap speaks of this target.
void ResyncSource::prepare() {
    if (!full_) {
        enter(State::waiting);
        return;
    }
    if (!bits_prepared_) {
        if (!core_.bitmap->all_stable()) {
            core_.bitmap->want_all_stable();
            return;
        }
        bits_prepared_ = true;
        const HandshakeState& target = *core_.session.peer_state();
        const bool known = target.metadata_readable && !target.generation.is_blank();
        core_.metadata.edit([&](formats::Superblock& s) {
            s.tracked_peer = target.replica;
            s.tracked_since = known ? target.generation.id : GenerationId{};
        });
    }
    if (core_.metadata.is_stable()) enter(State::waiting);
}

void ResyncSource::pump() {
    if (state_ == State::preparing) prepare();
    if (state_ == State::waiting && bitmap_received_ && ready_received_) {
        total_bytes_ = core_.bitmap->dirty_blocks() * kBlockBytes;
        pace_at_ = core_.now + kPaceInterval;
        enter(State::running);
    }
    if (state_ != State::running) return;
    if (core_.now >= pace_at_) adjust_pace();
    start_chunks();
}

void ResyncSource::bitmap_message(const BitmapMessage& message) {
    if (state_ != State::preparing && state_ != State::waiting) {
        core_.session.drop("a bitmap that was not asked for");
        return;
    }
    const bool fits = message.first_block % 64 == 0 && message.first_block / 64 + message.words.size() <=
                                                           core_.bitmap->pages() * formats::kWordsPerPage;
    if (!fits) {
        core_.session.drop("a bitmap of another size");
        return;
    }
    core_.bitmap->merge(message.first_block, message.words);
    if (message.last) bitmap_received_ = true;
    core_.again();
}

void ResyncSource::ready_message() {
    if (state_ != State::preparing && state_ != State::waiting) {
        core_.session.drop("ready for a resync that is not on");
        return;
    }
    ready_received_ = true;
    core_.again();
}

bool ResyncSource::in_flight(std::uint64_t offset) const {
    return std::ranges::any_of(chunks_, [&](const Chunk& c) {
        return c.state != ChunkState::free && offset >= c.offset && offset < c.offset + c.length;
    });
}

// The next run of dirty blocks inside one 128 KiB window that no chunk is busy with.
bool ResyncSource::next_range(std::uint64_t& offset, std::uint32_t& length) {
    std::uint64_t block = core_.bitmap->next_dirty(cursor_);
    bool wrapped = false;
    while (true) {
        if (block >= core_.layout.blocks) {
            if (wrapped) return false;
            wrapped = true;
            block = core_.bitmap->next_dirty(0);
            if (block >= core_.layout.blocks) return false;
        }
        if (!in_flight(block * kBlockBytes)) break;
        block = core_.bitmap->next_dirty(block + 1);
    }
    constexpr std::uint64_t kWindow = kResyncChunkBytes / kBlockBytes;
    const std::uint64_t window_end = std::min((block / kWindow + 1) * kWindow, core_.layout.blocks);
    std::uint64_t end = block + 1;
    while (end < window_end && core_.bitmap->test(end) && !in_flight(end * kBlockBytes)) ++end;
    offset = block * kBlockBytes;
    length = static_cast<std::uint32_t>((end - block) * kBlockBytes);
    cursor_ = end;
    return true;
}

void ResyncSource::start_chunks() {
    for (std::uint32_t i = 0; i < chunks_.size() && busy_ < window_; ++i) {
        Chunk& chunk = chunks_[i];
        if (chunk.state != ChunkState::free) continue;
        if (!next_range(chunk.offset, chunk.length)) return;
        ++busy_;
        chunk.state = ChunkState::locking;
        chunk.abandoned = false;
        chunk.serial = next_serial_++;
        if (mutant("interval_lock_skipped_in_resync")) {
            chunk.lock = IntervalLock::kNone;
            lock_granted(i);
            continue;
        }
        chunk.lock = core_.locks.acquire(chunk.offset, chunk.offset + chunk.length, true,
                                         lock_owner(LockOwner::chunk, i));
        if (core_.locks.granted(chunk.lock)) lock_granted(i);
    }
}

std::uint64_t ResyncSource::wire_number(const Chunk& chunk) const {
    return std::uint64_t{chunk.serial} << 32 | static_cast<std::uint64_t>(&chunk - chunks_.data());
}

void ResyncSource::let_go(Chunk& chunk) {
    if (chunk.lock != IntervalLock::kNone) core_.release_lock(chunk.lock);
    chunk.lock = IntervalLock::kNone;
    chunk.state = ChunkState::free;
    --busy_;
    core_.again();
}

void ResyncSource::lock_granted(std::uint32_t index) {
    Chunk& chunk = chunks_[index];
    if (chunk.abandoned) {
        let_go(chunk);
        return;
    }
    if (!shown_is_held()) {
        fetch(index);
        return;
    }
    chunk.state = ChunkState::hashing;
    core_.emit(DiskHash{make_tag(TagKind::chunk_hash, index), chunk.offset, chunk.length});
}

void ResyncSource::hash_done(std::uint32_t index, const HashDone& done) {
    Chunk& chunk = chunks_[index];
    if (chunk.abandoned) {
        let_go(chunk);
        return;
    }
    if (done.status != IoStatus::ok) {
        let_go(chunk);
        read_failed();
        return;
    }
    chunk.state = ChunkState::comparing;
    core_.emit(PeerSend{
        core_.session.id(),
        ResyncCompareMessage{wire_number(chunk), chunk.offset, chunk.length, done.hash_high, done.hash_low}});
}

void ResyncSource::read_done(std::uint32_t index, const FetchDone& done) {
    Chunk& chunk = chunks_[index];
    if (chunk.abandoned) {
        if (done.payload != kNoPayload) core_.emit(ReleasePayload{done.payload});
        let_go(chunk);
        return;
    }
    if (done.status != IoStatus::ok) {
        let_go(chunk);
        read_failed();
        return;
    }
    if (shown_is_held()) {
        send(chunk, done.payload);
        return;
    }
    chunk.state = ChunkState::restoring;
    chunk.payload = done.payload;
    core_.emit(DiskWrite{make_tag(TagKind::chunk_restore, index), chunk.offset, chunk.length, chunk.payload});
}

// A flush that failed in a former process of this boot may have forgotten what the disk still shows. Its bits
// must not be cleared for a copy that a power cut takes back: what is sent is written here again first, and
// the flush that every clearing waits for covers it.
bool ResyncSource::shown_is_held() const {
    return !core_.config.outlived_io_possible || mutant("outlived_copy_trusted");
}

void ResyncSource::restore_done(std::uint32_t index, IoStatus status) {
    Chunk& chunk = chunks_[index];
    const PayloadHandle payload = std::exchange(chunk.payload, kNoPayload);
    if (chunk.abandoned || status != IoStatus::ok) {
        core_.emit(ReleasePayload{payload});
        let_go(chunk);
        if (status != IoStatus::ok) core_.fail_local("write of a resync's source failed");
        return;
    }
    send(chunk, payload);
}

void ResyncSource::fetch(std::uint32_t index) {
    Chunk& chunk = chunks_[index];
    chunk.state = ChunkState::reading;
    core_.emit(DiskFetch{make_tag(TagKind::chunk_read, index), chunk.offset, chunk.length});
}

void ResyncSource::send(Chunk& chunk, PayloadHandle payload) {
    chunk.state = ChunkState::sending;
    core_.emit(PeerSend{core_.session.id(),
                        ResyncWriteMessage{wire_number(chunk), chunk.offset, chunk.length}, payload, true});
    if (mutant("bit_cleared_before_peer_stable")) core_.bitmap->clear(chunk.offset, chunk.length);
}

// The only current copy of a block cannot be read: the target must not become UpToDate without it.
void ResyncSource::read_failed() {
    core_.notice(NoticeKind::disk_error,
                 "a block of the only current replica cannot be read: resync stopped");
    core_.session.drop("the source cannot read a block");
}

void ResyncSource::chunk_ack(const ResyncAckMessage& ack) {
    const auto index = static_cast<std::size_t>(ack.chunk & 0xffffffffU);
    const bool known =
        index < chunks_.size() && wire_number(chunks_[index]) == ack.chunk && !chunks_[index].abandoned &&
        (chunks_[index].state == ChunkState::comparing || chunks_[index].state == ChunkState::sending);
    if (!known) {
        core_.session.drop("answer to a chunk nobody sent");
        return;
    }
    Chunk& chunk = chunks_[index];
    if (ack.status != AckStatus::ok) {
        core_.session.peer_refused(ack.status);
    } else if (chunk.state == ChunkState::comparing && !ack.same) {
        fetch(static_cast<std::uint32_t>(index));
    } else {
        cleared(chunk);
    }
}

void ResyncSource::cleared(Chunk& chunk) {
    core_.bitmap->clear(chunk.offset, chunk.length);
    done_bytes_ += chunk.length;
    let_go(chunk);
}

bool ResyncSource::all_sent() const {
    return state_ == State::running && busy_ == 0 && core_.bitmap->dirty_blocks() == 0;
}

// Guests first: when their writes get slow the resync takes one chunk less at a time, never none.
void ResyncSource::adjust_pace() {
    pace_at_ = core_.now + kPaceInterval;
    const bool guest_active = core_.now - core_.front.last_write() < kPaceInterval * 2;
    const auto most = static_cast<std::uint32_t>(std::max<std::size_t>(1, chunks_.size()));
    if (guest_active && core_.front.write_latency() > milliseconds(20)) {
        window_ = std::max<std::uint32_t>(1, window_ / 2);
    } else {
        window_ = std::min(most, window_ + 1);
    }
}

void ResyncSource::session_lost() {
    for (Chunk& chunk : chunks_) {
        const bool on_disk = chunk.state == ChunkState::hashing || chunk.state == ChunkState::reading ||
                             chunk.state == ChunkState::restoring || chunk.state == ChunkState::locking;
        if (on_disk) chunk.abandoned = true;
        if (chunk.state == ChunkState::comparing || chunk.state == ChunkState::sending) let_go(chunk);
    }
    enter(State::off);
}

void ResyncSource::finished() {
    INVARIANT(all_sent(), "a join follows a finished resync");
    core_.notice(NoticeKind::resync_finished, std::to_string(done_bytes_ >> 20) + " MiB compared or sent");
    enter(State::off);
}

Instant ResyncSource::next_deadline() const {
    return state_ == State::running && busy_ > 0 ? pace_at_ : Instant::never();
}

}  // namespace gemel::replication
