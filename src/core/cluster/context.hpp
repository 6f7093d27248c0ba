// Context: what the parts of ClusterNode share: configuration, time of this step, tables (as seen and as
// gated), facts, and the one way to commit and to emit. Owned by ClusterNode; parts hold a reference. Not for
// use outside core/cluster.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mutant.hpp"
#include "base/prng.hpp"
#include "core/cluster/interface.hpp"
#include "core/cluster/planner_port.hpp"
#include "core/cluster/txn_queue.hpp"

namespace gemel::cluster {

// Where this node stands with its store.
enum class StoreCondition : std::uint8_t {
    starting,  // not yet looked at
    waiting,   // not quorate
    forcing,   // becoming a single member
    quorate,
    old,          // another member has a newer one: stopped, waits to join
    split_brain,  // both sides forced since their common lineage: stopped, operator
};

struct Session {
    Incarnation incarnation;
    bool up = false;
    Instant changed;
    std::vector<std::string> links;
};
struct VolumeFacts {
    replication::View view;
    std::uint64_t front_sessions = 0;
    Instant at;
};
struct FenceTestResult {
    bool ok = false;
    bool power_off = false;
    std::string detail;
    std::int64_t wall_ms = 0;
};

class Context {
  public:
    Context(NodeConfig node_config, PlanFunction planner_function)
        : config(std::move(node_config)),
          planner(planner_function),
          prng(config.random_seed),
          queue(config.name) {}

    // ---- fixed ----
    const NodeConfig config;
    const PlanFunction planner;

    // ---- this step ----
    Instant now;
    std::int64_t wall_ms = 0;
    Outputs* outputs = nullptr;
    Tag next_tag = 1;
    Prng prng;

    // ---- store ----
    TxnQueue queue;
    Tables latest;             // as watched
    Tables gated;              // what decisions read (design note 0005)
    bool tables_live = false;  // a snapshot came and the watch goes on
    bool gate_open = false;    // `gated` holds all that `latest` has
    StoreHealth health;
    Instant health_at;  // when it was said
    StoreCondition store = StoreCondition::starting;
    Instant quorate_at;                  // sending time of the newest linearizable answer
    std::uint64_t quorate_revision = 0;  // the store's revision in it
    bool ever_quorate = false;
    bool acting = false;  // rejoined: may decide and act
    // Set when a clean leave begins to close the volumes, until this process ends: blockd is handed nothing
    // any more, and this node neither fences nor forces.
    bool withdrawn = false;
    // A fencing that the tables name, of this life or the one before, may still land here: a management board
    // is slow, and whoever ordered it may be off or paused by now. Nobody is fenced before.
    Instant aimed_at_until;
    std::uint64_t term = 0;  // election key's create revision while this node is coordinator
    Instant term_shown_at;   // sending time of the newest linearizable answer that showed this term

    // ---- facts ----
    bool standing = false;
    bool blockd_up = false;
    SessionId blockd_process;
    std::map<std::string, Session> sessions;
    std::map<VolumeId, VolumeFacts> volumes;
    std::map<std::pair<VolumeId, std::uint64_t>, Instant> epochs_refused;
    std::map<std::pair<VolumeId, std::uint64_t>, Instant> refusals_asked;  // until blockd says so
    bool domains_known = false;
    Instant domains_at;
    std::uint64_t domain_lists = 0;
    std::map<GuestId, DomainView> domains;
    std::map<std::string, FenceTestResult> fence_tests;
    HostResources resources;  // of this node
    struct BlockedFact {
        std::string why;
        bool until_operator = false;
    };
    std::map<std::string, BlockedFact> blocked;  // planner's, by object

    // ---- doing ----
    void emit(Output output) { outputs->push_back(std::move(output)); }
    Tag tag() { return next_tag++; }
    std::pair<std::uint64_t, std::uint64_t> random() { return {prng.next(), prng.next()}; }
    std::string secret();
    // Whether blockd refuses that epoch durably; until it says so it is asked, once a second: it may have
    // been away, or the volume not attached yet.
    bool epoch_refused(const VolumeId& volume, std::uint64_t epoch);
    void log(std::string severity, std::string text) { emit(Log{std::move(severity), std::move(text)}); }
    // Also into the bounded list in the store, when it can be written.
    void event(const std::string& severity, const std::string& kind, const std::string& object,
               const std::string& message);

    const TimingRecord& timing() const {
        return gated.cluster ? gated.cluster->record.timing : config.timing;
    }
    void aimed_at();  // until this node's own devices must have answered
    Duration suspicion() const { return milliseconds(timing().suspicion_ms); }
    bool store_quorate() const { return store == StoreCondition::quorate; }
    bool is_coordinator() const { return acting && term != 0; }
    // Walked, not copied: asked at every step. One that is being added may be promoted already while the
    // record does not say so yet.
    template <typename Visit>
    void each_voter(Visit&& visit) const {
        const auto& row = gated.cluster ? gated.cluster : latest.cluster;
        for (const auto& voter : row ? row->record.voters : config.initial_voters)
            if (!row || !removed_witness(row->record, voter)) visit(voter);
        for (const auto& known : config.initial_voters)
            if (row && known.name == row->record.adding_voter) visit(known);
    }
    // Being removed, and etcd has done so already: who dies now leaves one of two voters, whatever the record
    // says, and nobody could change it any more.
    bool removed_witness(const ClusterRecord& cluster, const VoterRecord& voter) const;
    std::size_t voter_count() const;
    // the other voter where there are exactly two and both are nodes
    std::optional<std::string> other_voter() const;
    bool needs_barrier() const;
    const NodeRecord* node(const std::string& name) const;
    // What is held (an owner's lease, a placement, a migration to its destination) is this life's.
    template <typename Held>
    bool this_life(const Held& held) const {
        return held.node == config.name && held.incarnation == config.incarnation;
    }
    const DomainView* domain(const GuestId& uuid) const;  // as last listed; nullptr: none
    // A lineage that goes on from this store's, and from `others`; its id is new.
    LineageRecord next_lineage(const std::vector<LineageId>& others, const std::string& reason);

    // Commit `txn` guarded by the lineage of the gated tables; with the term too where `as_coordinator`. The
    // callback is called in a later step, once, and only after the barrier where one is needed.
    using Committed = std::function<void(const JobResult& result)>;
    void commit(Txn txn, bool as_coordinator, bool urgent, Committed callback);
    // An empty link of the chain, based on the lineage as watched.
    void gate_barrier(Committed callback);
    // Compare that `row` of `key` is as it was read.
    template <typename Record>
    void reads(Txn& txn, const std::string& key, const Row<Record>& row) const {
        if (!mutant("revision_not_compared")) {
            txn.compares.push_back({key, CompareKind::mod_revision, row.revision, {}});
        }
    }
    void absent(Txn& txn, const std::string& key) const {
        txn.compares.push_back({key, CompareKind::mod_revision, 0, {}});
    }
    void deliver_results();

    // Runs `what` when the driver's answer with this tag comes.
    std::map<Tag, std::function<void(const StoreCommandDone&)>> store_waits;
    std::map<Tag, std::function<void(const BlockdDone&)>> blockd_waits;
    std::map<Tag, std::function<void(const FenceDone&)>> fence_waits;
    std::map<Tag, std::function<void(const DomainDone&)>> domain_waits;
    std::map<Tag, std::function<void(const GateDone&)>> gate_waits;
    std::map<Tag, std::function<void(const MigrateDone&)>> migrate_waits;
    void store_command(StoreCommandKind command, std::function<void(const StoreCommandDone&)> done);
    void destroy_domain(const GuestId& uuid, std::string reason);  // and asks what is left
    void fence(FenceAction action, const FenceDeviceRecord& device,
               std::function<void(const FenceDone&)> done);

    std::deque<EventRecord> unsaved_events;

  private:
    std::map<JobId, Committed> callbacks_;
};

}  // namespace gemel::cluster
