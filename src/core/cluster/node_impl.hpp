// The inside of ClusterNode: all parts wired together. Not for use outside core/cluster.
#pragma once

#include <memory>

#include "base/invariant.hpp"
#include "core/cluster/arbiter.hpp"
#include "core/cluster/boot.hpp"
#include "core/cluster/context.hpp"
#include "core/cluster/coordinator.hpp"
#include "core/cluster/election.hpp"
#include "core/cluster/guest_agent.hpp"
#include "core/cluster/leaver.hpp"
#include "core/cluster/members.hpp"
#include "core/cluster/migration_agent.hpp"
#include "core/cluster/node.hpp"
#include "core/cluster/operations.hpp"
#include "core/cluster/peers.hpp"
#include "core/cluster/releaser.hpp"
#include "core/cluster/standing.hpp"
#include "core/cluster/volume_agent.hpp"

namespace gemel::cluster {

class ClusterNode::Impl {
  public:
    static constexpr Duration kProbeEvery = milliseconds(250);
    static constexpr std::size_t kMaxProbes = 3;  // under way at once; a late answer counts, from its sending
    static constexpr Duration kProbeGivenUp = seconds(5);
    static constexpr Duration kOwnReadGivenUp = seconds(10);
    static constexpr Duration kQuorateFor = milliseconds(1500);
    static constexpr Duration kEventsEvery = milliseconds(1500);
    static constexpr Duration kTickEvery = milliseconds(250);
    static constexpr Duration kFenceTestEvery = seconds(600);

    Impl(NodeConfig config, PlanFunction planner);

    void step(Instant at, const Input& input, Outputs& outputs);

    Context context;
    Standing standing;
    Peers peers;
    Boot boot;
    Arbiter arbiter;
    Releaser releaser;
    Election election;
    VolumeAgent volumes;
    MigrationAgent migrations;
    GuestAgent guests;
    Coordinator coordinator;
    Leaver leaver;
    Operations operations;
    Members members;
    Instant last_tick;

  private:
    void handle(const Tick& in);
    void handle(const TableSnapshot& in);
    void handle(const WatchEvents& in);
    void handle(const WatchLost& in);
    void handle(const TxnDone& in);
    void handle(const ReadDone& in);
    void handle(const LeaseGranted& in);
    void handle(const LeaseLost& in);
    void handle(const StoreHealth& in);
    void handle(const BootFacts& in);
    void handle(const StoreCommandDone& in);
    void handle(const PeerMessageIn& in);
    void handle(const BlockdUp& in);
    void handle(const BlockdDown& in);
    void handle(const BlockdSession& in);
    void handle(const BlockdVolume& in);
    void handle(const BlockdProposal& in);
    void handle(const BlockdNeedsRecord& in);
    void handle(const BlockdEpochRefused& in);
    void handle(const BlockdDone& in);
    void handle(const FenceDone& in);
    void handle(const DomainList& in);
    void handle(const DomainDone& in);
    void handle(const LibvirtDown& in);
    void handle(const GateDone& in);
    void handle(const MigrateDone& in);
    void handle(const MigrationProgress& in);
    void handle(const HostFacts& in);
    void handle(const ApiRequest& in);
    void handle(const LeaveNode& in);

    void evaluate();
    void probe();
    void look_at_own_disk();
    LineageId lineage_in(const ReadDone& in);
    void compare_stores(const LineageId& answered);
    void want_tables();
    void quorum();
    void gate();
    Tables decision_copy();
    void versions();
    void save_events();
    void test_fences();

    std::map<Tag, Instant> probes_;
    Tag stale_tag_ = 0;
    std::optional<Instant> stale_asked_;
    Instant tables_next_;
    Instant other_store_since_ = Instant::never();
    std::string answered_value_;  // of the lineage key, as last decoded
    LineageId answered_lineage_;
    Instant probe_next_;
    std::uint64_t change_revision_ = 0;  // newest change that decisions read
    std::uint64_t gated_change_ = 0;
    bool gating_ = false;
    bool saving_events_ = false;
    bool events_due_ = false;
    Instant events_next_;
    std::uint32_t event_slot_ = 0;
    bool event_slot_known_ = false;
    Instant fence_test_next_;
};

}  // namespace gemel::cluster
