// Control: the control plane as the world sees it: what is truly committed (for checkers), and what happens
// to its processes. Two exist: ControlPlane (the real one: ClusterNode, planner and guard of each node on the
// store model) and Oracle (rules only, with knowledge no real one has). Here too: what they may do to the
// world.
#pragma once

#include <cstdint>
#include <string>

#include "core/formats/volume_record.hpp"
#include "sim/world/block_node.hpp"
#include "sim/world/host.hpp"

namespace gemel::sim {

enum class Voters : std::uint8_t { two, three };

// How a fence device behaves at the moment. `lies`: it says verified off and has done nothing. `cycles`:
// asked for "off" it turns the host off and on again, and its status says "on".
enum class FenceMood : std::uint8_t { works, slow, fails, hangs, lies, cycles };

inline constexpr const char* kNodeNames[] = {"node1", "node2", "witness"};

// What a control plane may do to the world.
class WorldPort {
  public:
    virtual Host& host(std::uint32_t node) = 0;
    virtual BlockNode& block(std::uint32_t node) = 0;
    virtual void power_off(std::uint32_t node) = 0;
    virtual void power_on(std::uint32_t node) = 0;
    virtual bool clusterd_alive(std::uint32_t node) const = 0;
    virtual bool witness_up() const = 0;
    virtual FenceMood fence_mood(std::uint32_t node) const = 0;
    virtual void left_ack_set(std::uint32_t node) = 0;
    // it lost its cache with something of the guest in it that was written since then and never flushed
    virtual bool forgot(std::uint32_t node, Instant since) const = 0;
    virtual ReplicaId replica_id(std::uint32_t node) const = 0;
    // -- blockd's part of its clusterd's orders
    virtual bool blockd_up(std::uint32_t node) const = 0;
    virtual std::uint64_t blockd_life(std::uint32_t node) const = 0;
    virtual void attach(std::uint32_t node) = 0;
    virtual void detach(std::uint32_t node) = 0;
    // a new backing, as the record says: blank where that row is not in the ack set
    virtual void guest_began(std::uint32_t) {}
    virtual void committed_anew() {}             // the volume's record
    virtual void move_stepped(std::uint32_t) {}  // LiveMove::Step
    virtual void make_replica(std::uint32_t node, const VolumeRecord& record) = 0;

  protected:
    ~WorldPort() = default;
};

class Control : public ControlPort {
  public:
    virtual ~Control() = default;

    // -- the truth, for checkers
    virtual const CommittedVolume& committed() const = 0;
    virtual bool owns(std::uint32_t node, std::uint64_t epoch) const = 0;
    bool in_ack_set(std::uint32_t node) const { return committed().record.replicas[node].in_ack_set; }
    std::uint32_t ack_mask() const { return (in_ack_set(0) ? 1U : 0U) | (in_ack_set(1) ? 2U : 0U); }
    // everybody takes part and nothing is under way
    virtual bool settled() const { return true; }
    // the store says that this life is over, and it goes on: it takes part again when it has booted
    virtual bool written_off(std::uint32_t) const { return false; }
    virtual std::string state_text() const { return {}; }

    // -- the world's events
    virtual void start() = 0;
    virtual bool formed() const { return true; }  // the guest was started for the first time
    virtual void blockd_started(std::uint32_t node) = 0;
    virtual void blockd_died(std::uint32_t) {}
    virtual void host_booted(std::uint32_t node) = 0;
    virtual void host_lost(std::uint32_t node) = 0;
    virtual void host_paused(std::uint32_t) {}
    virtual void host_resumed(std::uint32_t node) = 0;
    virtual void clusterd_started(std::uint32_t node) = 0;
    virtual void clusterd_died(std::uint32_t) {}
    virtual void witness_changed() {}
    // the guard holds the vCPUs of this node's guest
    virtual bool frozen(std::uint32_t) const { return false; }
    virtual void guest_ended() = 0;  // the guest crashed
    // the machine on that node is gone; false: the guest is to be ended by who says so
    virtual bool guest_vanishes(std::uint32_t) { return false; }
    // the guest on the other node runs too, and is served; empty: not so
    virtual std::string served_twice(std::uint32_t) const { return {}; }
    // -- the operator's wishes
    virtual void ask_handover() = 0;  // planned: the guest stops here and starts on the other node
    virtual bool ask_migration(bool) { return false; }  // it moves while it runs; true: its node is drained
    virtual void ask_cancel() {}
    // true: a new, blank replica is made at once; false: it is on its way, the world is told by make_replica
    virtual bool replace_replica(std::uint32_t node) = 0;
    virtual void replica_replaced(std::uint32_t node, ReplicaId fresh) = 0;
    // he vouches that this node is off, to the other one, again and again until then
    virtual void vouch_for_off(std::uint32_t, Instant) {}
    // his node leaves the cluster as when the host shuts down; told when it is done, or refused
    virtual bool ask_leave(std::uint32_t) { return false; }
    // The witness gets the disk back that it had a while ago; only while both nodes have all that was
    // decided.
    virtual void take_witness_image() {}
    virtual bool restore_witness_image() { return false; }
    // the store's directory of a switched-off host, with its nonce
    virtual void take_store_image(std::uint32_t) {}
    virtual bool restore_store_image(std::uint32_t) { return false; }
    virtual void healing() {}  // faults are over: the operator looks after what waits for him
    // unhealthy store: replies are lost and slow
    virtual void set_late_commits(bool) {}  // followers learn late what was decided
    virtual void set_trouble(bool lost_replies, bool slow_watches) = 0;
};

}  // namespace gemel::sim
