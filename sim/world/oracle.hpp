// Oracle: a control plane that follows the rules of the design brief (sections 3 to 6) with knowledge no real
// one has: it looks at the hosts themselves where a real one asks and waits. It lets the volume's promises be
// simulated on their own, with every legal order of grants, fences, revocations, lost replies and lagging
// watches, and without the cluster logic's own faults. The store is a linearizable record with latency, lost
// replies and quorum; its finer semantics belong to store.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/prng.hpp"
#include "core/formats/volume_record.hpp"
#include "sim/world/control.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/network.hpp"
#include "sim/world/tasks.hpp"

namespace gemel::sim {

class Oracle final : public Control {
  public:
    struct Parts {
        Tasks& tasks;
        Trace& trace;
        Counters& counters;
        Network& network;
        Guest& guest;
        WorldPort& world;
    };
    Oracle(Parts parts, Prng random, Voters voters, VolumeRecord first);

    // -- the truth, for checkers
    const CommittedVolume& committed() const override { return committed_; }
    bool owns(std::uint32_t node, std::uint64_t epoch) const override;

    // -- the world's events
    void start() override;
    void blockd_started(std::uint32_t node) override;
    void host_booted(std::uint32_t node) override;
    void host_lost(std::uint32_t node) override;
    void host_resumed(std::uint32_t node) override;
    void clusterd_started(std::uint32_t node) override;
    void ask_handover() override;
    void guest_ended() override;  // its lease is released, then granted anew
    bool replace_replica(std::uint32_t) override { return true; }
    void replica_replaced(std::uint32_t node, ReplicaId fresh) override;
    // unhealthy store: replies are lost and slow
    void set_trouble(bool lost_replies, bool slow_watches) override;

    // -- ControlPort
    void propose(std::uint32_t node, const replication::Propose& propose) override;
    void need_record(std::uint32_t node, std::uint64_t at_least_revision) override;
    void epoch_refused(std::uint32_t node, std::uint64_t epoch) override;
    void lease_extended(std::uint32_t node, std::uint64_t epoch, Instant local_until) override;
    void serve_front(std::uint32_t node, std::uint64_t epoch) override;
    void stop_front(std::uint32_t node, std::uint64_t epoch) override;

  private:
    enum class FenceStep : std::uint8_t { idle, running, verified, failed };
    struct Fencing {
        FenceStep step = FenceStep::idle;
        Incarnation victim;
        std::uint64_t attempt = 0;
        Instant lost_since = Instant::never();
    };
    struct Regrant {  // by the time bound
        bool active = false;
        std::uint64_t epoch = 0;
        bool refused = false;  // the peer's blockd stopped acknowledging that epoch, durably
        Instant ready_local = Instant::never();  // on the survivor's clock
    };
    struct NodeState {
        std::optional<CommittedVolume> known;
        Instant lease_until{0};  // on its clock
        std::uint64_t lease_epoch = 0;
        bool guest_paused_by_lease = false;
        bool standing = false;
        std::uint64_t front_epoch = 0;  // being served, 0: none
    };

    ReplicaRecord& replica(std::uint32_t node) { return committed_.record.replicas[node]; }
    const ReplicaRecord& replica(std::uint32_t node) const { return committed_.record.replicas[node]; }
    bool speaks(std::uint32_t node) const;  // host up and clusterd alive
    bool reaches(std::uint32_t from, std::uint32_t to) const;
    bool witness_reached(std::uint32_t node) const;
    bool quorum(std::uint32_t node) const;
    std::uint32_t owner_node() const;
    void tick();
    void update_standing();
    void consider_owner();
    bool consider_unserved(std::uint32_t owner);
    void consider_lost_owner(std::uint32_t owner);
    void consider_regrant(std::uint32_t owner, std::uint32_t survivor);
    void consider_grant();
    void consider_sole_voter();
    void consider_lost_peer();
    void consider_rejoin();
    void begin_fence(std::uint32_t by, std::uint32_t victim);
    void fence_answered(std::uint32_t by, std::uint32_t victim, std::uint64_t attempt, bool off);
    bool proven_down(std::uint32_t node) const;
    bool may_promote(std::uint32_t node, bool* needs_leave);
    void grant(std::uint32_t node, bool leave_peer);
    void release(const char* why);
    void commit(const char* what);
    void new_generation();
    void renew(std::uint32_t node);
    void tell(std::uint32_t node, const CommittedVolume& snapshot);
    void finish_proposal(std::uint32_t node, const replication::Propose& propose);
    void answer(std::uint32_t node, std::uint64_t proposal, replication::ProposalOutcome outcome,
                bool with_current);
    void guard_check(std::uint32_t node);
    void guard_kill(std::uint32_t node, std::uint64_t epoch);
    void start_guest(std::uint32_t node, std::uint64_t epoch);
    Duration latency();

    Parts parts_;
    Prng random_;
    Voters voters_;
    std::optional<std::uint32_t> sole_voter_;  // two voters, one was forced
    CommittedVolume committed_;
    std::uint32_t committed_mask_ = 3;
    std::array<NodeState, 2> nodes_;
    std::array<Fencing, 2> fencing_;  // by victim
    Regrant regrant_;
    bool handover_wanted_ = false;
    bool restart_wanted_ = false;
    std::optional<std::uint32_t> prefer_;
    bool lost_replies_ = false;
    bool slow_watches_ = false;
    Instant unserved_since_ = Instant::never();
    Instant rejoined_since_ = Instant::never();
};

}  // namespace gemel::sim
