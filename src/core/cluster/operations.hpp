// Operations: what operators ask for. Accepting a request is one transaction: its operation record together
// with the wish or the first step it changes; from then on the record carries it: every step is committed
// before it is acted on, every step may be executed twice, and whoever is coordinator goes on (promise C9).
// Requests that must work without a quorum (start alone, confirm-down), those that change nothing until
// they succeed (fence set, fence test) and those that end with this process (leave) live in memory.
//
//   request --valid, preconditions hold--> committed: running(step) --each node does its part--> done
//   --coordinator--> succeeded
//                                                                        \--a part failed--> undo --> failed
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/cluster/arbiter.hpp"
#include "core/cluster/context.hpp"
#include "core/cluster/coordinator.hpp"
#include "core/cluster/leaver.hpp"
#include "core/cluster/peers.hpp"

namespace gemel::cluster {

class Operations {
  public:
    Operations(Context& context, Peers& peers, Arbiter& arbiter, Coordinator& coordinator, Leaver& leaver)
        : context_(context), peers_(peers), arbiter_(arbiter), coordinator_(coordinator), leaver_(leaver) {}
    void request(const ApiRequest& request);
    void evaluate();
    const std::map<OperationId, OperationRecord>& in_memory() const { return memory_; }

  private:
    static constexpr int kAttempts = 8;
    static constexpr Duration kSeenPatience = seconds(2);
    static constexpr Duration kSourcePatience = seconds(12);
    static constexpr Duration kMoveAgain = seconds(30);  // a drain tries a guest that could not be moved
    struct Pending {
        ApiRequest request;
        int attempts = 0;
        Instant not_before;
    };

    // accepting (operations_begin.cpp)
    Status begin(const ApiCommand& command, OperationRecord& operation, Txn& txn);
    Status begin_one(const VolumeCreate& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const VolumeDelete& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const VolumeExport& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const VolumeUnexport& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const VolumeForceUpToDate& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const VolumeResolve& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const GuestCreate& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const GuestDelete& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const GuestStart& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const GuestStop& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const GuestMigrate& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const GuestMigrateCancel& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const NodeDrain& c, OperationRecord& operation, Txn& txn);
    Status begin_one(const NodeUndrain& c, OperationRecord& operation, Txn& txn);
    void begin_move(const Row<GuestRecord>& guest, MigrationRecord migration, OperationRecord& operation,
                    Txn& txn);
    Status set_drained(const std::string& node, bool drained, Txn& txn);
    Status begin_one(const ConfirmDown& c, OperationRecord& operation, Txn& txn);
    Result<const Row<VolumeRecord>*> volume(const std::string& name) const;
    Result<GenerationId> held_generation(const VolumeRecord& record, const std::string& node) const;
    Result<const Row<GuestRecord>*> guest(const std::string& name) const;
    Status unused(const std::string& volume, const std::string& except_guest) const;
    Status delete_volume(const std::string& name, const std::string& guest, OperationRecord& operation,
                         Txn& txn);

    // An answer says "done" only when decisions here read what was done: the asker's next question or order
    // must not be told that it is not there. After kSeenPatience it is told anyway; it is committed.
    void when_seen(std::uint64_t revision, std::function<void()> then);
    void tell_seen();

    void try_begin(Pending pending);
    bool begin_in_memory(const ApiRequest& request, OperationRecord& operation);
    std::optional<Status> begin_without_store(const ApiCommand& command, OperationRecord& operation);
    std::optional<Status> begin_fence(const ApiCommand& command, OperationRecord& operation);
    Status fence_in_time(const FenceDeviceRecord& device) const;
    Status enough_space(const std::string& node, const std::string& pool, std::uint64_t size_bytes) const;
    Status bridges_exist(const std::vector<GuestNic>& nics) const;
    void fence_set(const FenceSet& c, const OperationRecord& operation);
    void fence_test(const FenceTest& c, const OperationRecord& operation);
    void finish_memory(const OperationId& id, OperationState state, ErrorCode code, const std::string& error);
    void watch_memory();

    // carrying out (operations.cpp)
    using OperationRow = Row<OperationRecord>;
    void local(const OperationRow& row);
    void local_replica(const OperationRow& row, const VolumeRecord& record);
    void local_unexport(const OperationRow& row, const Row<VolumeRecord>& volume);
    void local_serve(const OperationRow& row, const Row<VolumeRecord>& volume);
    void part_done(const OperationId& id, const BlockdDone& done);
    void advance(const OperationRow& row);
    void advance_guest(const OperationRow& row);
    void advance_create(const OperationRow& row);
    void advance_delete(const OperationRow& row);
    void advance_export(const OperationRow& row);
    void advance_resolve(const OperationRow& row);
    void advance_confirm(const OperationRow& row);
    void advance_migrate(const OperationRow& row);
    void advance_drain(const OperationRow& row);
    bool drain_next(const OperationRow& row, std::string& waits);
    std::function<bool(const std::string&)> alive() const;
    void update(const OperationRow& row, OperationRecord next, Txn txn, bool as_coordinator);
    void finish(const OperationRow& row, OperationState state, ErrorCode code, const std::string& error,
                Txn txn);
    void prune();
    static std::string name_of(const OperationRecord& operation);

    Context& context_;
    Peers& peers_;
    Arbiter& arbiter_;
    Coordinator& coordinator_;
    Leaver& leaver_;
    struct Unseen {
        std::uint64_t revision = 0;
        Instant patience_ends;
        std::function<void()> then;
    };
    std::vector<Pending> retry_;
    std::vector<Unseen> unseen_;
    std::set<OperationId> busy_;  // a part or a commit of it is outstanding here
    std::map<OperationId, OperationRecord> memory_;
    // guest -> the last attempt of a drain to move it; operation -> when its migration was seen to be over
    std::map<std::string, Instant> moved_at_;
    std::map<OperationId, Instant> seen_at_;  // when this coordinator first saw it (time-outs)
    bool pruning_ = false;
};

}  // namespace gemel::cluster
