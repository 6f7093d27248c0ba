// GuestHost: what libvirt and gemel-guard are on one host: the guest's domain and the real guard over it.
// There is one guest in the world; where its domain exists on this host and its virtual machine went on
// elsewhere (frozen here, or a fence device lied), what is left here is a husk: it asks for nothing any more,
// but if its vCPUs run while the guest runs elsewhere, that is a guest running twice (promise C1). Not in it:
// who may run it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/cluster/interface.hpp"
#include "core/ha/guard.hpp"
#include "sim/guests/guest.hpp"
#include "sim/world/control.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/tasks.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

class GuestHost {
  public:
    struct Parts {
        Tasks& tasks;
        Trace& trace;
        Counters& counters;
        Guest& guest;
        WorldPort& world;
        // a fence device said that this node was off, and it was not
        std::function<bool(std::uint32_t node)> lied_about;
        // its clusterd takes part in what the cluster decides
        std::function<bool(std::uint32_t node)> acts;
    };
    GuestHost(Parts parts, std::uint32_t node, Prng random)
        : parts_(std::move(parts)), node_(node), random_(random) {}
    void set_other(GuestHost& other) { other_ = &other; }

    // -- the host's life
    void boot();
    void lost();
    void resumed();
    // every quarter of a second: the guard looks at its guests
    void poll();

    // -- libvirt
    bool exists() const;
    bool frozen() const { return frozen_ || stopped_; }
    bool vcpus_run() const;
    cluster::DomainState state() const;
    std::uint64_t epoch() const { return epoch_; }
    std::string start(std::uint64_t epoch);  // empty, or why not
    void destroy();
    void shut_down();
    void vanish();  // its QEMU is gone

    // -- a move (LiveMove): the destination's side, the source's side
    bool receive(std::uint64_t epoch);  // false: a domain exists here
    bool incoming() const { return incoming_; }
    void drop_incoming();
    void arrive();
    void stop_for_move();
    void resume_after_move();
    void leave_after_move();
    std::function<void()> changed;  // the list of domains is another now

    // -- guard
    void guard(const ha::GuardInput& input);

  private:
    bool mine() const { return parts_.guest.alive() && parts_.guest.node() == node_; }
    void act(const ha::GuardOutput& output);
    void apply_vcpus();
    void end(const char* why);
    void leave();
    void tell();
    void check_twice();
    void check_twice_for_long();
    void check_right() const;
    void arm();
    Instant local() const;

    Parts parts_;
    std::uint32_t node_;
    Prng random_;
    GuestHost* other_ = nullptr;
    std::unique_ptr<ha::Guard> guard_;
    GuestId guarded_;
    ha::GuardState seen_ = ha::GuardState::allowed;
    bool husk_ = false;
    bool twin_ = false;              // a husk that has the guest's memory as it was when it moved
    bool incoming_ = false;          // exists and waits for the guest's state
    bool stopped_ = false;           // by libvirt, to move it
    std::uint64_t completions_ = 0;  // of the guest, when it arrived here
    std::uint64_t guarded_epoch_ = 0;
    Instant twice_since_ = Instant::never();
    bool frozen_ = false;
    bool existed_ = false;
    bool shutting_down_ = false;
    bool fed_ = true;
    std::uint64_t epoch_ = 0;
    std::uint64_t lease_epoch_ = 0;
    Instant lease_until_{0};
    Instant resumed_at_{0};
    std::uint64_t life_ = 0;
    std::uint64_t starts_ = 0;
    std::uint64_t feedings_ = 0;
    Instant armed_ = Instant::never();
};

}  // namespace gemel::sim
