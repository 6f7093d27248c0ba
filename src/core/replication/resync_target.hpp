// ResyncTarget: this replica is being brought up to the peer. Before the first byte it says Inconsistent,
// stably (D10), and stays so until the join. It keeps its own dirty bits and crashed extents until then: the
// source has merged them, but only the end of the resync makes them superfluous (M5).
//
//   off -> marking (Inconsistent stable) -> receiving -> adopting (own log and bitmap clean, then generation
//   and join
//          intent stable) -> joining (answered; until the record shows both) -> off
#pragma once

#include <cstdint>

#include "core/replication/interface.hpp"

namespace gemel::replication {

class Core;

class ResyncTarget {
  public:
    explicit ResyncTarget(Core& core) : core_(core) {}

    void begin(bool full);
    void pump();
    void session_lost();
    void join_message(const JoinMessage& message);

    bool active() const { return state_ != State::off; }
    bool receiving() const { return state_ == State::receiving; }

  private:
    enum class State : std::uint8_t { off, marking, receiving, adopting, joining };
    void enter(State next);
    void send_bitmap();
    void adopt();
    bool own_tracking_clean();

    Core& core_;
    State state_ = State::off;
    bool full_ = false;
    JoinMessage join_;
};

}  // namespace gemel::replication
