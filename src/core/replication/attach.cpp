#include "core/replication/attach.hpp"

#include <algorithm>
#include <cstring>

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/formats/superblock.hpp"
#include "core/replication/core.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {

using formats::kPageBytes;

void Attach::pump() {
    if (state_ == State::idle) {
        enter(State::superblocks);
        core_.emit(ReadMetadata{make_tag(TagKind::attach_superblock, 0), formats::kSuperblockA, kPageBytes});
        core_.emit(ReadMetadata{make_tag(TagKind::attach_superblock, 1), formats::kSuperblockB, kPageBytes});
    }
    if (state_ == State::spill) spill();
}

// A former process of this boot may have died on a failed write of metadata: what the device shows then was
// forgotten by it and is gone after the next power cut. It is all written again before anything relies on it
// (F4, H38): the bits first, then the log that may let go of extents because of them.
void Attach::spill() {
    const bool trusted = !core_.config.outlived_io_possible || mutant("shown_metadata_trusted");
    if (trusted && log_.known) {
        finish();
        return;
    }
    if (!trusted && !written_again_) {
        written_again_ = true;
        core_.bitmap->distrust();
        core_.bitmap->want_all_stable();
    }
    if (!core_.bitmap->all_stable()) return;
    if (!trusted && !log_again_) {
        log_again_ = true;
        core_.metadata.distrust();
        core_.extents->distrust();
    }
    if (core_.metadata.is_stable() && !core_.extents->changed() && !core_.extents->writing()) finish();
}

void Attach::refuse(std::string why) {
    problem_ = std::move(why);
    enter(State::refused);
    core_.notice(NoticeKind::metadata_unknown, problem_);
}

void Attach::metadata_read(const MetadataRead& read) {
    const TagKind kind = tag_kind(read.tag);
    if (read.status != IoStatus::ok && kind != TagKind::attach_superblock) {
        // What cannot be read is unknown, never clean: zero bytes fail every checksum.
        static const std::array<std::byte, kPagesPerRead * kPageBytes> unreadable{};
        const std::span<const std::byte> zeroes(unreadable);
        const std::uint64_t pages = std::min(kPagesPerRead, core_.layout.bitmap_pages - next_page_);
        if (kind == TagKind::attach_intent_log)
            intent_log_read(zeroes.first(formats::kIntentLogSlots * kPageBytes));
        if (kind == TagKind::attach_bitmap) bitmap_read(zeroes.first(pages * kPageBytes));
        return;
    }
    if (kind == TagKind::attach_superblock) {
        if (read.status == IoStatus::ok) {
            INVARIANT(read.bytes.size() == kPageBytes, "the driver reads what was asked for");
            std::memcpy(slots_[tag_index(read.tag)].data(), read.bytes.data(), kPageBytes);
        }
        if (++slots_read_ == slots_.size()) superblocks_read();
    } else if (kind == TagKind::attach_intent_log) {
        intent_log_read(read.bytes);
    } else {
        bitmap_read(read.bytes);
    }
}

bool Attach::identity_is_right() {
    const formats::Superblock& found = core_.metadata.wanted();
    const EngineConfig& config = core_.config;
    if (found.cluster != config.cluster) {
        refuse("this backing belongs to cluster " + found.cluster.to_string() +
               ": give another, or erase it first");
    } else if (found.volume != config.volume) {
        refuse("this backing belongs to volume " + found.volume.to_string() + ": give the right one");
    } else if (!config.replica.is_nil() && found.replica != config.replica) {
        refuse("this backing is replica " + found.replica.to_string() + ", expected " +
               config.replica.to_string());
    }
    return state_ != State::refused;
}

void Attach::superblocks_read() {
    const auto chosen = formats::choose_superblock(slots_[0], slots_[1]);
    if (!chosen) {
        refuse(chosen.error().message);
        return;
    }
    core_.metadata.load(chosen->superblock);
    if (!identity_is_right()) return;
    const bool was_failed = chosen->superblock.state == ReplicaState::failed;
    if (!chosen->newest) {
        core_.notice(NoticeKind::metadata_unknown,
                     "the newest superblock is unreadable: this replica's freshness is unknown, it can only "
                     "be a target");
    }
    if (!chosen->newest || was_failed) {
        core_.metadata.edit([](formats::Superblock& s) { s.state = ReplicaState::inconsistent; });
    }
    core_.layout = formats::Layout::for_size(chosen->superblock.size_bytes);
    core_.bitmap = std::make_unique<DirtyBitmap>(core_.layout, chosen->superblock.replica);
    enter(State::intent_log);
    core_.emit(ReadMetadata{make_tag(TagKind::attach_intent_log, 0), formats::kIntentLogOffset,
                            formats::kIntentLogSlots * kPageBytes});
}

void Attach::intent_log_read(std::span<const std::byte> ring) {
    INVARIANT(ring.size() == formats::kIntentLogSlots * kPageBytes, "the driver reads what was asked for");
    log_ = formats::decode_intent_log(ring, core_.metadata.wanted().replica, core_.layout.extents);
    const auto found = static_cast<std::uint32_t>(log_.newest.extents.size());
    core_.extents = std::make_unique<ActiveExtents>(core_.layout, core_.metadata.wanted().replica,
                                                    std::max({core_.config.active_extents, found, 32U}),
                                                    *core_.bitmap, core_.config.intent_group);
    enter(State::bitmap);
    read_more_bitmap();
}

void Attach::read_more_bitmap() {
    const std::uint64_t pages = std::min(kPagesPerRead, core_.layout.bitmap_pages - next_page_);
    core_.emit(ReadMetadata{make_tag(TagKind::attach_bitmap, 0), formats::Layout::bitmap_offset(next_page_),
                            static_cast<std::uint32_t>(pages * kPageBytes)});
}

void Attach::bitmap_read(std::span<const std::byte> bytes) {
    for (std::size_t at = 0; at < bytes.size(); at += kPageBytes) {
        core_.bitmap->load_page(next_page_++, formats::ConstPageBytes{bytes.subspan(at, kPageBytes)});
    }
    if (next_page_ < core_.layout.bitmap_pages) {
        read_more_bitmap();
        return;
    }
    writer_crashed_ = !log_.known || !log_.newest.extents.empty();
    core_.extents->load(log_.newest);
    enter(State::spill);
    core_.again();
    if (log_.known) return;
    // A transaction written now would make the log known again, without what it lost: the bits must be stable
    // first.
    core_.notice(NoticeKind::metadata_unknown,
                 "the intent log is unreadable: every block counts as different");
    core_.bitmap->set_all();
    core_.bitmap->want_all_stable();
}

void Attach::finish() {
    enter(State::done);
    core_.notice(NoticeKind::attached, "attached, generation " +
                                           std::to_string(core_.metadata.wanted().generation.counter) +
                                           (writer_crashed_ ? ", was not closed" : ""));
    core_.again();
}

}  // namespace gemel::replication
