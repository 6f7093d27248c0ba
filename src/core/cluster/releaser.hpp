// Releaser: this node was asked to release, because the other one is about to fence it (scenario N3). It
// grants only when it would lose the fencing anyway (fewer weighted guests) and its own store is not quorate.
// Granting is durable before it is said: guests gone, front ends closed, every epoch refused by blockd, the
// store set aside.
//
//   idle --asked, may--> destroying --no domain left--> closing --blockd refused all--> aside --renamed-->
//   released
//     \--asked, may not--> answered with the reason (idle)
#pragma once

#include <set>
#include <string>

#include "core/cluster/arbiter.hpp"
#include "core/cluster/boot.hpp"
#include "core/cluster/context.hpp"
#include "core/cluster/peers.hpp"

namespace gemel::cluster {

class Releaser {
  public:
    enum class State : std::uint8_t { idle, destroying, closing, aside, released };

    Releaser(Context& context, Peers& peers, Boot& boot, Arbiter& arbiter)
        : context_(context), peers_(peers), boot_(boot), arbiter_(arbiter) {}
    void asked(const std::string& from, const AskRelease& ask);
    void evaluate();
    bool active() const { return state_ != State::idle; }
    State state() const { return state_; }

  private:
    std::string refusal(const std::string& from, const AskRelease& ask) const;
    void answer(bool granted, const std::string& reason);
    bool domains_gone();

    Context& context_;
    Peers& peers_;
    Boot& boot_;
    Arbiter& arbiter_;
    State state_ = State::idle;
    std::string asker_;
    AskRelease ask_;
    LineageId lineage_;  // of the store that is set aside
    std::uint64_t revision_ = 0;
    std::set<GuestId> destroyed_;
    std::set<std::pair<VolumeId, std::uint64_t>> to_refuse_;
    Instant repeat_at_;
};

}  // namespace gemel::cluster
