#include "core/replication/join.hpp"

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/core.hpp"

namespace gemel::replication {

void Join::enter(State next) {
    const bool legal = next == State::idle || static_cast<int>(next) == static_cast<int>(state_) + 1;
    INVARIANT(legal, "a join moves along its chart");
    if (next == state_) return;
    state_ = next;
    core_.again();
}

void Join::pump() {
    if (state_ == State::idle) {
        if (!core_.source.all_sent() || !core_.authority.current()) return;
        if (!core_.bitmap->all_stable()) {
            core_.bitmap->want_all_stable();
            return;
        }
        enter(State::intent);
        if (!mutant("join_written_after_proposed")) {
            core_.metadata.edit([](formats::Superblock& s) { s.join_pending = true; });
        }
    }
    if (state_ == State::intent && core_.metadata.is_stable()) {
        core_.emit(PeerSend{core_.session.id(), JoinMessage{core_.authority.record().generation,
                                                            core_.authority.record().ancestors}});
        enter(State::asked);
    }
    if (state_ == State::flushing && core_.rounds.settled() >= round_) enter(State::proposing);
    if (state_ == State::proposing && core_.authority.other_in_ack_set()) {
        core_.source.finished();
        core_.session.joined();
        enter(State::idle);
    }
}

void Join::ready_message(const JoinReadyMessage& message) {
    if (state_ != State::asked || message.generation != core_.authority.record().generation.id) {
        core_.session.drop("ready for a join nobody asked for");
        return;
    }
    core_.metadata.edit([&](formats::Superblock& s) {
        s.tracked_peer = core_.session.peer_replica();
        s.tracked_since = message.generation;
    });
    round_ = core_.rounds.want();
    enter(State::flushing);
}

}  // namespace gemel::replication
