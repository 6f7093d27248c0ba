#include "core/replication/resync_target.hpp"

#include <algorithm>

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/core.hpp"

namespace gemel::replication {

void ResyncTarget::enter(State next) {
    const bool legal = next == State::off || static_cast<int>(next) == static_cast<int>(state_) + 1;
    INVARIANT(legal, "a resync target moves along its chart");
    if (next == state_) return;
    const bool was_off = state_ == State::off;
    state_ = next;
    if (was_off || next == State::off)
        core_.notice(NoticeKind::sync_changed, was_off ? "sync target" : "off");
    core_.again();
}

void ResyncTarget::begin(bool full) {
    INVARIANT(core_.authority.role() == Role::secondary, "a Primary is never overwritten");
    full_ = full;
    core_.extents->spill_unsettled(core_.rounds.settled());
    core_.rounds.peer_gone();
    enter(State::marking);
    core_.metadata.edit([](formats::Superblock& s) {
        s.state = ReplicaState::inconsistent;
        s.join_pending = false;
    });
}

void ResyncTarget::pump() {
    if (state_ == State::marking) {
        const bool marked =
            core_.metadata.stable().state == ReplicaState::inconsistent && core_.metadata.is_stable();
        if (!marked && !mutant("target_not_marked_inconsistent")) return;
        send_bitmap();
        core_.emit(PeerSend{core_.session.id(), ResyncReadyMessage{}});
        enter(State::receiving);
    }
    if (state_ == State::adopting) adopt();
    if (state_ == State::joining && core_.authority.self_in_ack_set()) {
        enter(State::off);
        core_.session.joined();
    }
}

// What this side knows to differ goes to the source, which merges it into its own (union, M5).
void ResyncTarget::send_bitmap() {
    const DirtyBitmap& bitmap = *core_.bitmap;
    BitmapMessage message;
    if (!full_) {
        for (std::uint64_t page = 0; page < bitmap.pages(); ++page) {
            const std::uint64_t first = page * formats::kBlocksPerPage;
            const std::uint64_t next = bitmap.next_dirty(first);
            if (next >= std::min(first + formats::kBlocksPerPage, core_.layout.blocks)) continue;
            const auto words = bitmap.page_words(page);
            message.first_block = first;
            message.words.assign(words.begin(), words.end());
            core_.emit(PeerSend{core_.session.id(), message});
        }
    }
    core_.emit(PeerSend{core_.session.id(), BitmapMessage{0, {}, true}});
}

void ResyncTarget::join_message(const JoinMessage& message) {
    if (state_ != State::receiving) {
        core_.session.drop("a join that does not follow a resync");
        return;
    }
    const Generation& agreed = core_.authority.record().generation;
    if (message.generation != agreed || message.ancestors.size() > VolumeRecord::kMaxAncestors) {
        core_.session.drop("a join to another generation than the record's");
        return;
    }
    join_ = message;
    enter(State::adopting);
    core_.extents->forget_all();
    core_.bitmap->clear_all();
    core_.bitmap->want_all_stable();
}

bool ResyncTarget::own_tracking_clean() {
    if (core_.extents->writing() || core_.extents->changed()) return false;
    if (core_.bitmap->all_stable()) return true;
    core_.bitmap->want_all_stable();
    return false;
}

// Every block is here and stable. The old differences go first, then generation, state and join intent in one
// write.
void ResyncTarget::adopt() {
    if (!own_tracking_clean()) return;
    core_.metadata.edit([&](formats::Superblock& s) {
        s.generation = join_.generation;
        s.ancestors = join_.ancestors;
        s.state = ReplicaState::up_to_date;
        s.join_pending = true;
        s.tracked_peer = core_.session.peer_replica();
        s.tracked_since = join_.generation.id;
    });
    const bool written =
        core_.metadata.stable().join_pending && core_.metadata.stable().generation.id == join_.generation.id;
    if (!written && !mutant("join_written_after_proposed")) return;
    core_.emit(PeerSend{core_.session.id(), JoinReadyMessage{join_.generation.id}});
    enter(State::joining);
}

void ResyncTarget::session_lost() {
    enter(State::off);
}

}  // namespace gemel::replication
