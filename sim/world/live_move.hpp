// LiveMove: what libvirt, QEMU and the tunnel do while the guest moves (docs/design/0011). The memory is
// copied while the guest runs; its vCPUs stop; what is in flight is drained and flushed; the state arrives
// and runs there; a reply says so; the source's domain ends. It can end at each step: cancelled, the tunnel
// gone with either clusterd, the cables silent for too long, the destination cannot load the state, the reply
// lost: then the source's domain stays paused, or both run. Not in it: who may be served (that is the control
// plane's).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "base/prng.hpp"
#include "sim/guests/guest.hpp"
#include "sim/world/control.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/guest_host.hpp"
#include "sim/world/network.hpp"
#include "sim/world/tasks.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

class LiveMove {
  public:
    // resumed: it runs at the destination, and the source's libvirt has not heard of it
    enum class Step : std::uint8_t { none, copying, draining, arriving, resumed };
    // What goes wrong by itself.
    enum class Mishap : std::uint8_t { none, cannot_load, reply_lost, left_paused };
    struct Parts {
        Tasks& tasks;
        Trace& trace;
        Counters& counters;
        Network& network;
        Guest& guest;
        WorldPort& world;
    };
    using Done = std::function<void(bool ok, const std::string& why)>;
    using Progress = std::function<void()>;
    struct Order {
        std::uint32_t from = 0;
        std::uint64_t epoch = 0;  // of the handover
        std::string secret;
        Done done;
        Progress progress;
    };
    LiveMove(Parts parts, Prng random) : parts_(parts), random_(random) {}
    void set_hosts(GuestHost& first, GuestHost& second) { hosts_ = {&first, &second}; }

    // -- the gates and the tunnel are the clusterds'
    void open_gate(std::uint32_t node, const std::string& secret) { gates_[node] = secret; }
    void close_gate(std::uint32_t node) { gates_[node].clear(); }
    void clusterd_died(std::uint32_t node);
    // -- libvirt
    void begin(Order order);
    void cancel(std::uint32_t from);
    // -- looking
    Step step() const { return step_; }
    // the guest's machine is still this node's: libvirt may yet resume it here
    bool holds(std::uint32_t node) const;

  private:
    GuestHost& from() { return *hosts_[order_.from]; }
    GuestHost& to() { return *hosts_[1 - order_.from]; }
    void tick();
    bool stalled();
    std::string failure();
    void advance();
    void enter(Step step, Duration takes);
    void arrive();
    void finish();
    void fail(const std::string& why);
    void end(bool ok, const std::string& why);

    Parts parts_;
    Prng random_;
    std::array<GuestHost*, 2> hosts_{};
    std::array<std::string, 2> gates_;
    // -- of the one under way
    Order order_;
    Step step_ = Step::none;
    std::uint64_t number_ = 0;
    Mishap mishap_ = Mishap::none;
    Incarnation life_;
    bool tunnel_ = false;
    bool cancelled_ = false;
    bool flushed_ = false;
    std::uint64_t errors_ = 0;
    Duration patience_{};
    Instant next_;
    Instant told_;
    Instant stalled_since_ = Instant::never();
};

}  // namespace gemel::sim
