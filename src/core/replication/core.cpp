#include "core/replication/core.hpp"

#include <algorithm>
#include <type_traits>

#include "base/invariant.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {
namespace {

template <typename... Functions>
struct Overloaded : Functions... {
    using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

}  // namespace

Core::Core(EngineConfig engine_config)
    : config(std::move(engine_config)),
      random(config.random_seed),
      locks(2 * config.max_requests + PeerRequests::kRoomBesidesWrites + config.resync_chunks),
      attach(*this),
      authority(*this),
      lease(*this),
      session(*this),
      front(*this, config.max_requests),
      rounds(*this),
      peer_requests(*this, config.max_requests + PeerRequests::kRoomBesidesWrites),
      local_flush(*this, peer_requests.slots()),
      source(*this),
      target(*this),
      join(*this) {
    granted_.reserve(locks.capacity());
    granted_now_.reserve(locks.capacity());
}

void Core::step(Instant at, const Input& input, Outputs& outputs) {
    INVARIANT(at >= now, "time does not run backwards");
    now = at;
    out_ = &outputs;
    dispatch(input);
    settle();
    out_ = nullptr;
}

void Core::dispatch(const Input& input) {
    std::visit(Overloaded{
                   [&](const FrontRequest& r) { front.submit(r); },
                   [&](const DiskDone& d) { disk_done(d); },
                   [&](const MetadataRead& r) { attach.metadata_read(r); },
                   [&](const HashDone& d) {
                       if (tag_kind(d.tag) == TagKind::chunk_hash) {
                           source.hash_done(tag_index(d.tag), d);
                       } else {
                           peer_requests.hash_done(tag_index(d.tag), d);
                       }
                   },
                   [&](const FetchDone& d) {
                       if (tag_kind(d.tag) == TagKind::chunk_read) {
                           source.read_done(tag_index(d.tag), d);
                       } else {
                           peer_requests.fetch_done(tag_index(d.tag), d);
                       }
                   },
                   [&](const PeerUp& up) { session.peer_up(up); },
                   [&](const PeerDown& down) { session.peer_down(down); },
                   [&](const PeerMessageIn& in) { message_in(in); },
                   [&](const CommittedRecordIn& in) { authority.offer(in.committed); },
                   [&](const StoreRenewal& renewal) {
                       authority.offer(renewal.committed);
                       lease.pump();
                       lease.store_renewal(renewal);
                   },
                   [&](const ProposalDone& done) { authority.proposal_done(done); },
                   [&](const RefuseEpoch& refuse) { authority.refuse_epoch(refuse.epoch); },
                   [&](const PeerProvenDown& proven) { authority.peer_proven_down(proven.incarnation); },
                   [&](const Tick&) {},
               },
               input);
}

// Messages of a session that ended here already, or that do not fit the phase, are let go.
void Core::message_in(const PeerMessageIn& in) {
    const bool talking = session.up() && in.session == session.id();
    const bool handshake = std::holds_alternative<StateMessage>(in.message) ||
                           std::holds_alternative<VerdictMessage>(in.message) ||
                           std::holds_alternative<RecordHintMessage>(in.message);
    if (!talking || (!handshake && !session.connected())) {
        if (in.payload != kNoPayload) emit(ReleasePayload{in.payload});
        return;
    }
    std::visit(Overloaded{
                   [&](const StateMessage& m) { session.state_message(m); },
                   [&](const VerdictMessage& m) { session.verdict_message(m); },
                   [&](const RecordHintMessage& m) { session.record_hint(m); },
                   [&](const BitmapMessage& m) { source.bitmap_message(m); },
                   [&](const WriteMessage& m) { peer_requests.write(m, in.payload); },
                   [&](const ZeroMessage& m) { peer_requests.zero(m); },
                   [&](const FlushMessage& m) { peer_requests.flush(m); },
                   [&](const AckMessage& m) {
                       if ((m.request & FlushRounds::kRequestBit) != 0) {
                           rounds.peer_ack(m);
                       } else {
                           front.peer_ack(m);
                       }
                   },
                   [&](const HeartbeatMessage& m) { peer_requests.heartbeat(m); },
                   [&](const HeartbeatAckMessage& m) { lease.heartbeat_ack(m); },
                   [&](const ResyncReadyMessage&) { source.ready_message(); },
                   [&](const ResyncWriteMessage& m) { peer_requests.resync_write(m, in.payload); },
                   [&](const ResyncCompareMessage& m) { peer_requests.compare(m); },
                   [&](const ResyncAckMessage& m) { source.chunk_ack(m); },
                   [&](const JoinMessage& m) { target.join_message(m); },
                   [&](const JoinReadyMessage& m) { join.ready_message(m); },
                   [&](const ReadMessage& m) { peer_requests.read(m); },
                   [&](const ReadReplyMessage& m) { front.read_reply(m, in.payload); },
               },
               in.message);
}

void Core::disk_done(const DiskDone& done) {
    const std::uint32_t index = tag_index(done.tag);
    switch (tag_kind(done.tag)) {
        case TagKind::superblock_write:
        case TagKind::intent_write:
        case TagKind::bitmap_write: metadata_written(tag_kind(done.tag), index, done.status); return;
        case TagKind::flush: local_flush.done(done.status); return;
        case TagKind::front: front.disk_done(index, done.status); return;
        case TagKind::peer: peer_requests.disk_done(index, done.status); return;
        case TagKind::chunk_restore: source.restore_done(index, done.status); return;
        case TagKind::attach_superblock:
        case TagKind::attach_intent_log:
        case TagKind::attach_bitmap: {
            attach.metadata_read(
                {done.tag, done.status == IoStatus::ok ? IoStatus::io_error : done.status, {}});
            return;
        }
        case TagKind::peer_hash:
        case TagKind::peer_fetch:
        case TagKind::chunk_read:
        case TagKind::chunk_hash: break;
    }
    INVARIANT(false, "a hash is answered by HashDone, a fetch by FetchDone, and no other tags exist");
}

// What waits for a metadata write waits for ever when it failed: this replica takes no part any more (M2).
// Only the superblock, which says so, is written again.
void Core::metadata_written(TagKind kind, std::uint32_t index, IoStatus status) {
    if (status != IoStatus::ok) {
        if (kind == TagKind::superblock_write) {
            metadata.not_written();
            if (attached()) idle_at_ = std::min(idle_at_, now + seconds(1));
        }
        fail_local("metadata write failed");
        return;
    }
    if (kind == TagKind::superblock_write) {
        metadata.written();
    } else if (kind == TagKind::intent_write) {
        extents->written();
        front.intent_stable(extents->stable());
    } else {
        bitmap->written(index);
    }
    again();
}

void Core::fail_local(const std::string& what) {
    if (local_failed_) return;
    local_failed_ = true;
    notice(NoticeKind::disk_error, what + ": this replica is failed until it is replaced or restarted");
    metadata.edit([](formats::Superblock& s) { s.state = ReplicaState::failed; });
    again();
}

void Core::media_error(std::uint64_t offset, std::uint32_t length) {
    ++media_errors_;
    notice(NoticeKind::disk_error, "a block cannot be read (error " + std::to_string(media_errors_) + ")");
    if (!authority.other_in_ack_set()) return;  // a bad copy is better than none
    const bool again = std::ranges::any_of(repaired_, [&](const Repaired& r) {
        return offset < r.offset + r.length && r.offset < offset + length;
    });
    if (again) fail_local("a block failed again after it had been rewritten");
    if (media_errors_ > kMediaErrorsTolerated) fail_local("too many blocks cannot be read");
}

void Core::block_repaired(std::uint64_t offset, std::uint32_t length) {
    repaired_[repairs_++ % repaired_.size()] = {offset, length};
    notice(NoticeKind::block_repaired, "rewritten from the peer's copy");
}

std::uint64_t Core::write_generation() const {
    return authority.over_network() ? session.generation_counter() : metadata.wanted().generation.counter;
}

void Core::hand_out_locks() {
    while (!granted_.empty()) {
        std::swap(granted_, granted_now_);
        for (const std::uint64_t owner : granted_now_) {
            const auto index = static_cast<std::uint32_t>(owner & 0xffffffffU);
            switch (static_cast<LockOwner>(owner >> 32)) {
                case LockOwner::front: front.lock_granted(index); break;
                case LockOwner::peer: peer_requests.lock_granted(index); break;
                case LockOwner::chunk: source.lock_granted(index); break;
            }
        }
        granted_now_.clear();
    }
}

void Core::settle() {
    for (int turn = 0;; ++turn) {
        INVARIANT(turn < 1000, "the phases come to rest");
        again_ = false;
        attach.pump();
        if (attached()) {
            authority.pump();
            lease.pump();
            session.pump();
            peer_requests.pump();
            target.pump();
            source.pump();
            join.pump();
            hand_out_locks();
            front.pump();
            rounds.pump();
            local_flush.pump();
            if (now >= idle_at_) idle_work();
            if (!local_failed_) extents->pump(outputs());
        }
        if (!attached() && (attach.refused() || local_failed_)) authority.pump_unattached();
        if (bitmap != nullptr && !local_failed_) {
            if (bitmap->wants_flush()) {
                local_flush.for_bitmap();
                local_flush.pump();
            }
            bitmap->pump(outputs());
        }
        if (attach.spilling() && !local_failed_) extents->pump(outputs());
        // a failure before the attach is not written: the next process begins where this one began
        const bool writes = attach.spilling() ? !local_failed_ : attach.done() || attach.refused();
        if (writes) metadata.pump(outputs());
        if (!again_ && granted_.empty()) break;
    }
    if (attached() && idle_at_ == Instant::never() && extents->used() > 0) idle_at_ = now + seconds(2);
}

// Nothing was written for a while: settle what is open, empty the log, let the bitmap on disk catch up. So a
// volume at rest is clean on disk (D16), and a crash then costs no resync.
void Core::idle_work() {
    idle_at_ = Instant::never();
    // That this replica has failed must outlive the process: the next one would serve what the device forgot.
    if (local_failed_) metadata.try_again();
    if (local_failed_ || now - front.last_write() < seconds(1)) {
        idle_at_ = now + seconds(1);
        return;
    }
    if (!extents->all_settled(rounds.settled())) {
        rounds.want();
        again();
        idle_at_ = now + seconds(1);
        return;
    }
    bitmap->want_all_stable();
    if (extents->used() > 0) {
        extents->retire(rounds.settled());
        if (extents->used() > 0) idle_at_ = now + seconds(1);
    }
    again();
}

Instant Core::next_deadline() const {
    return std::min({lease.next_deadline(), authority.next_deadline(), session.next_deadline(),
                     source.next_deadline(), idle_at_});
}

ReplicaState Core::local_state() const {
    if (local_failed_) return ReplicaState::failed;
    if (!attached()) return ReplicaState::diskless;
    if (metadata.wanted().state != ReplicaState::up_to_date) return metadata.wanted().state;
    if (!authority.has_record() || authority.self() == nullptr) return ReplicaState::consistent;
    if (!authority.current()) return ReplicaState::outdated;
    // Earned anew after every restart (D9): by the peer, or by a record that names nobody else.
    const bool earned = authority.role() == Role::primary || session.mirrored() || !authority.peer_needed();
    return earned || session.connected() ? ReplicaState::up_to_date : ReplicaState::consistent;
}

View Core::view() const {
    View v;
    v.attached = attached();
    v.role = authority.role();
    v.local_state = local_state();
    v.connection = session.connection();
    v.sync = source.active()   ? SyncState::sync_source
             : target.active() ? SyncState::sync_target
                               : SyncState::off;
    v.frozen = authority.frozen();
    v.generation = metadata.wanted().generation;
    v.epoch = authority.served_epoch();
    v.epoch_floor = std::max(metadata.stable().refused_epoch, metadata.stable().granted_epoch);
    v.refused_epoch = metadata.stable().refused_epoch;
    v.incoming_epoch = authority.incoming_epoch();
    v.early_requests = front.early();
    v.record_revision = authority.revision();
    v.lease_until = lease.until();
    v.resync_done_bytes = source.done_bytes();
    v.resync_total_bytes = source.total_bytes();
    v.requests_in_flight = front.in_flight();
    v.media_errors = media_errors_;
    if (attached()) {
        v.dirty_bytes = bitmap->dirty_blocks() * kBlockBytes;
        v.active_extents = extents->used();
        if (authority.has_record() && authority.other() != nullptr) v.peer_state = authority.other()->state;
    }
    v.problem = !attach.problem().empty()      ? attach.problem()
                : !authority.problem().empty() ? authority.problem()
                                               : session.problem();
    return v;
}

}  // namespace gemel::replication
