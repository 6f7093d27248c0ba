// Join: the source takes the target into the ack set, in the one order that loses nothing (rule 4, H31, H37):
//
//   idle --all sent--> intent (own join pending stable) -> asked (target: generation and join intent stable)
//        -> flushing (one round over both: everything so far is stable on both) -> proposing --record shows
//        both--> idle
//
// From the intent on, losing the target means that peer_left must be committed before anything is
// acknowledged alone. Guest writes have been waiting for both since the resync began, so nothing acknowledged
// is missing on the target.
#pragma once

#include <cstdint>

#include "core/replication/active_extents.hpp"
#include "core/replication/interface.hpp"

namespace gemel::replication {

class Core;

class Join {
  public:
    explicit Join(Core& core) : core_(core) {}
    void pump();
    void ready_message(const JoinReadyMessage& message);
    void session_lost() { enter(State::idle); }
    bool ready_to_propose() const { return state_ == State::proposing; }

  private:
    enum class State : std::uint8_t { idle, intent, asked, flushing, proposing };
    void enter(State next);

    Core& core_;
    State state_ = State::idle;
    RoundId round_ = 0;
};

}  // namespace gemel::replication
