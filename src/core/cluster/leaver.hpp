// Leaver: a clean leave (design brief 3.6). Only its last transaction is a proof; a daemon that merely exits
// proves nothing.
//
//   idle --asked--> announcing --leaving committed--> emptying --no guest, no lease here--> closing --blockd
//   closed--> leaving --left committed--> left (answered)
//
// It stays left until the process ends: the next one registers anew, in this incarnation or the next.
#pragma once

#include <string>

#include "core/cluster/context.hpp"
#include "core/cluster/guest_agent.hpp"
#include "core/cluster/volume_agent.hpp"

namespace gemel::cluster {

class Leaver {
  public:
    enum class State : std::uint8_t { idle, announcing, emptying, closing, leaving, left };
    Leaver(Context& context, GuestAgent& guests, VolumeAgent& volumes)
        : context_(context), guests_(guests), volumes_(volumes) {}
    Status asked();
    Status may_leave() const;
    std::string step() const;  // what it is doing, for humans
    void evaluate();
    State state() const { return state_; }

  private:
    void commit_state(NodeState to, State then);
    void release_exports();
    bool waited_for() const;
    Context& context_;
    GuestAgent& guests_;
    VolumeAgent& volumes_;
    State state_ = State::idle;
    bool busy_ = false;
    Instant repeat_at_;
    Instant closed_at_;
};

}  // namespace gemel::cluster
