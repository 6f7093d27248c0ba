// StoreModel: etcd, as far as a client can tell. Members with a log each, entries decided when a majority of
// voters has stored them, followers that learn of it later (and forget it at a power cut: the commit index
// alone is not synced), leaders that change, linearizable transactions and reads, replies that get lost after
// the deed was done, watches that lag, leases that end by the leader's clock, learners, members that were
// removed and are told so, and the forced restart of a single member on a copy of its data, which drops what
// it did not know to be committed (scenario H34). Elections are decided by the model from who can hear whom;
// the ballots themselves are etcd's business.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "core/cluster/store.hpp"
#include "sim/world/counters.hpp"
#include "sim/world/network.hpp"
#include "sim/world/tasks.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

// What a member has applied: the key-value state at one log index.
struct StoreState {
    struct Value {
        std::string value;
        std::uint64_t create_revision = 0;
        std::uint64_t mod_revision = 0;
        std::uint64_t lease = 0;
    };
    std::map<std::string, Value> values;
    std::map<std::uint64_t, std::uint32_t> leases;  // id -> ttl in seconds
    std::uint64_t revision = 1;
};

struct StoreMember {
    std::uint64_t id = 0;
    std::uint32_t node = 0;
    bool learner = false;
};

// One decided or undecided step of the log.
struct StoreEntry {
    enum class Kind : std::uint8_t { nothing, txn, grant_lease, revoke_lease, add_learner, promote, remove };
    std::uint64_t term = 0;
    Kind kind = Kind::nothing;
    cluster::Txn txn;
    std::uint64_t number = 0;  // request, for the reply; lease or member id otherwise in `id`
    std::uint64_t id = 0;
    std::uint32_t ttl_s = 0;
    std::uint32_t node = 0;
};
using StoreEntryPtr = std::shared_ptr<const StoreEntry>;

// A data directory: survives the process, and the power cut as far as it was synced.
struct StoreDirectory {
    std::uint64_t member_id = 0;
    std::uint64_t term = 0;
    std::vector<StoreEntryPtr> log;   // entry i has index i + 1
    std::uint64_t commit = 0;         // known to be committed
    std::uint64_t commit_synced = 0;  // of that, what a power cut leaves
    std::uint64_t applied = 0;
    StoreState state;
    std::vector<StoreMember> members;    // as applied
    std::vector<std::uint64_t> removed;  // ids that may not come back
};

class StoreModel {
  public:
    using TxnReply = std::function<void(cluster::TxnOutcome, std::uint64_t revision)>;
    using ReadReply = std::function<void(bool ok, std::uint64_t revision, std::vector<cluster::KeyValue>)>;
    using WatchEvents = std::function<void(std::uint64_t revision, std::vector<cluster::KeyChange>)>;

    StoreModel(Tasks& tasks, Trace& trace, Counters& counters, Network& network, Prng random);

    // -- processes and directories; a node has at most one of each
    void bootstrap(const std::vector<std::uint32_t>& voters);  // makes directories that know each other
    void start(std::uint32_t node);
    void stop(std::uint32_t node, bool power_cut);
    void pause(std::uint32_t node, bool paused);
    bool served(std::uint32_t node) const { return processes_[node].met; }
    bool running(std::uint32_t node) const { return processes_[node].running; }
    bool has_directory(std::uint32_t node) const { return directories_[node] != nullptr; }
    void set_aside(std::uint32_t node);
    StoreDirectory copy(std::uint32_t node) const { return *directories_[node]; }
    void restore(std::uint32_t node, const StoreDirectory& old);
    // a new member's empty directory, for the id that was added for this node
    bool join(std::uint32_t node);
    // the forced single member: on a copy, with its first commit; nothing is visible before activate
    bool force_prepare(std::uint32_t node, const cluster::Txn& first);
    bool force_activate(std::uint32_t node);
    void force_abort(std::uint32_t node);
    void force_discard(std::uint32_t node) {
        prepared_[node].reset();
    }  // at boot: nobody works at it any more

    // -- clients
    void submit(std::uint32_t node, const cluster::Txn& txn, TxnReply reply);
    void read(std::uint32_t node, std::vector<std::string> keys, bool prefix, ReadReply reply);
    void grant_lease(std::uint32_t node, std::uint32_t ttl_s, std::function<void(std::uint64_t id)> reply);
    void keep_alive(std::uint32_t node, std::uint64_t lease, std::function<void(bool ok)> reply);
    void revoke_lease(std::uint32_t node, std::uint64_t lease);
    void change_member(std::uint32_t node, StoreEntry::Kind kind, std::uint64_t id, std::uint32_t which,
                       std::function<void(bool ok)> reply);
    // events after `revision` from the member this node talks to; `lost` once when they end
    void watch(std::uint32_t node, std::uint64_t revision, WatchEvents events, std::function<void()> lost);
    void unwatch(std::uint32_t node);

    // -- looking
    std::optional<std::uint32_t> leader_of(std::uint32_t node) const;  // as that member believes
    bool rejected(std::uint32_t node) const { return processes_[node].rejected; }
    const StoreDirectory* directory(std::uint32_t node) const { return directories_[node].get(); }
    bool answers(std::uint32_t asker, std::uint32_t member) const;
    bool learner_ready(std::uint32_t node) const;
    // `node` runs, hears that leader, and has stored all that the leader has
    bool has_all(std::uint32_t node, std::uint32_t leader) const;
    // for whoever reads why nothing was decided
    std::string text() const;
    // the leader with a majority now, if there is one
    std::optional<std::uint32_t> working_leader() const;

    // told after each transaction that a member has applied and that changed something
    using Applied = std::function<void(std::uint32_t node, std::uint64_t revision,
                                       std::span<const cluster::KeyChange> changes)>;
    void on_applied(Applied applied) { applied_ = std::move(applied); }
    // asked before a transaction whose compares held is applied; `there` is what it meets
    using Landing = std::function<void(const cluster::Txn& txn, const StoreState& there)>;
    void on_landing(Landing landing) { landing_ = std::move(landing); }

    // -- trouble
    void set_lost_replies(std::uint32_t percent) { lost_replies_percent_ = percent; }
    // followers learn what was decided with the next tick or entry only
    void set_late_commits(bool late) { late_commits_ = late; }
    void set_slow_watches(bool slow) { slow_watches_ = slow; }
    void set_slow_disk(std::uint32_t node, bool slow) { processes_[node].slow = slow; }
    using Which = std::function<bool(const cluster::Txn&)>;
    // the next transaction of that node for which `which` holds is under way until release_held()
    void hold_next(std::uint32_t node, Which which) { hold_ = {node, std::move(which)}; }
    // ... is carried out, and its reply does not arrive
    void lose_next_reply(std::uint32_t node, Which which) { lose_ = {node, std::move(which)}; }
    bool holds_one() const { return held_.has_value(); }
    void release_held();

  private:
    struct Process {
        bool running = false;
        bool paused = false;
        bool slow = false;
        bool leader = false;
        bool rejected = false;
        bool met = false;  // a leader, since it was started: before that etcd serves nobody
        std::uint64_t life = 0;
        std::optional<std::uint32_t> knows_leader;
        Instant heard{0};                              // from its leader, or as leader from a majority
        std::map<std::uint32_t, std::uint64_t> match;  // leader: stored on that node
        std::map<std::uint64_t, Instant> lease_ends;   // leader
        std::map<std::uint64_t, TxnReply> waiting;     // leader: by request number
        std::map<std::uint64_t, std::function<void(bool)>> waiting_other;
    };
    struct Watcher {
        bool active = false;
        std::uint64_t number = 0;
        std::uint64_t next_revision = 0;
        std::uint32_t member = 0;
        WatchEvents events;
        std::function<void()> lost;
        Instant last_delivery{0};
    };
    bool alive(std::uint32_t node) const { return processes_[node].running && !processes_[node].paused; }
    bool hear_each_other(std::uint32_t a, std::uint32_t b) const;
    bool same_cluster(std::uint32_t a, std::uint32_t b) const;
    bool is_voter(const StoreDirectory& directory, std::uint64_t id) const;
    std::size_t majority(const StoreDirectory& directory) const;
    std::vector<std::uint32_t> voters_heard(std::uint32_t node) const;
    void tick();
    std::size_t confirm(std::uint32_t leader) const;
    std::vector<std::uint32_t> votes_for(std::uint32_t node) const;
    void elect(std::uint32_t node);
    void step_down(std::uint32_t node, bool unknown_replies);
    void propose(std::uint32_t leader, StoreEntry entry);
    void replicate(std::uint32_t leader, std::uint32_t to);
    void stored(std::uint32_t leader, std::uint32_t from, std::uint64_t term, std::uint64_t index);
    void advance(std::uint32_t leader);
    void learn_commit(std::uint32_t node, std::uint64_t commit);
    void apply(std::uint32_t node);
    bool apply_txn(StoreDirectory& directory, std::uint32_t node, const cluster::Txn& txn);
    void apply_members(StoreDirectory& directory, std::uint32_t node, const StoreEntry& entry);
    void put(StoreDirectory& directory, std::uint32_t node, const std::string& key,
             const std::optional<std::string>& value, std::uint64_t lease);
    void expire_leases(std::uint32_t leader);
    void feed_watchers(std::uint32_t node);
    void deliver_watch(std::uint32_t watcher, std::uint64_t number);
    // the member that node's requests go to: its own, else another that answers
    std::optional<std::uint32_t> endpoint(std::uint32_t node) const;
    struct Route {  // of a request: from that node, through that member, to that leader; its answer comes
                    // back so
        std::uint32_t node = 0;
        std::uint32_t member = 0;
        std::uint32_t leader = 0;
    };
    void with_leader(std::uint32_t node, std::function<void(const Route& route)> then,
                     std::function<void()> failed);
    void answer(const Route& route, std::function<void()> what);
    Duration sync_time(std::uint32_t node);
    bool reply_lost();

    Tasks& tasks_;
    Trace& trace_;
    Counters& counters_;
    Network& network_;
    Prng random_;
    std::array<std::unique_ptr<StoreDirectory>, kNodes> directories_;
    std::array<std::unique_ptr<StoreDirectory>, kNodes> prepared_;
    std::array<Process, kNodes> processes_;
    std::array<Watcher, kNodes> watchers_;
    std::array<std::vector<cluster::KeyChange>, kNodes>
        changes_;  // of each member's applied state, for watches
    std::array<std::uint64_t, kNodes> compacted_{};
    Applied applied_;
    Landing landing_;
    std::uint64_t next_request_ = 1;
    std::uint64_t next_id_ = 100;
    std::uint32_t lost_replies_percent_ = 0;
    bool slow_watches_ = false;
    bool late_commits_ = false;
    struct Catch {
        std::uint32_t node = kNodes;
        Which which;
        bool takes(std::uint32_t from, const cluster::Txn& txn);
    };
    Catch hold_;
    Catch lose_;
    std::optional<std::pair<std::uint32_t, cluster::Txn>> held_;
};

}  // namespace gemel::sim
