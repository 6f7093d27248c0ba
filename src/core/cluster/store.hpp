// Store: what the control plane says to the cluster store and what it knows of it. Txn is etcd's transaction
// (compare, then put and delete, all or nothing); Tables is the typed copy of everything below /gemel/, fed
// by one full read and then by a watch. Pure data; the adapter (adapters/etcd) and the simulator's model
// speak these types.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "core/formats/records.hpp"

namespace gemel::cluster {

enum class CompareKind : std::uint8_t {
    mod_revision,     // equal; 0: the key does not exist
    create_revision,  // equal; 0: the key does not exist
    value,            // equal bytes
};
struct Compare {
    std::string key;
    CompareKind kind = CompareKind::mod_revision;
    std::uint64_t revision = 0;
    std::string value;
    bool operator==(const Compare&) const = default;
};
struct Put {
    std::string key;
    std::string value;
    std::uint64_t lease = 0;  // etcd lease id; 0: none
    bool operator==(const Put&) const = default;
};
struct Txn {
    std::vector<Compare> compares;
    std::vector<Put> puts;
    std::vector<std::string> deletes;
    // What it was based on. The compares decide; this is for logs, and for the simulator, which judges them.
    std::string lineage{};   // value of the lineage key; empty: none yet, or a barrier, a seal
    std::uint64_t term = 0;  // of the coordinator; 0: not as one
};

enum class TxnOutcome : std::uint8_t {
    committed,
    compare_failed,  // nothing was changed by this request
    unknown,         // no answer, an error, no quorum: it may still happen later
};

struct KeyValue {
    std::string key;
    std::string value;
    std::uint64_t mod_revision = 0;
    std::uint64_t create_revision = 0;
};
struct KeyChange {
    std::string key;
    std::optional<std::string> value;  // none: deleted
    std::uint64_t mod_revision = 0;
    std::uint64_t create_revision = 0;
};

template <typename Record>
struct Row {
    Record record;
    std::uint64_t revision = 0;  // mod_revision
    std::uint64_t created = 0;   // create_revision
    bool operator==(const Row&) const = default;
};
template <typename Record>
using Table = std::map<std::string, Row<Record>>;

// Typed copy of the store at one revision. A value that cannot be decoded is listed in `refused` and its old
// row is dropped: while the list is not empty the node does not act (promise C8).
class Tables {
  public:
    std::optional<Row<ClusterRecord>> cluster;
    std::optional<Row<LineageRecord>> lineage;
    std::optional<Row<CoordinatorRecord>> coordinator;  // row.created is the term
    Table<NodeRecord> nodes;
    Table<PoolRecord> pools;  // "<node>/<pool>"
    Table<VolumeRecord> volumes;
    Table<GuestRecord> guests;
    Table<FenceDeviceRecord> fence_devices;
    Table<OperationRecord> operations;           // by id text
    Table<EventBatchRecord> events;              // "<node>/<slot>"
    Table<AppliedRecord> applied;                // by node
    std::map<std::string, std::string> refused;  // key -> why
    std::uint64_t revision = 0;                  // of the store when this was true

    // Replaces everything. Keys outside /gemel/ are ignored.
    void load(std::uint64_t at_revision, const std::vector<KeyValue>& all);
    // Applies one watch answer; changes at or below the row's revision are old and ignored.
    void apply(std::uint64_t at_revision, const std::vector<KeyChange>& changes);

    LineageId lineage_id() const { return lineage ? lineage->record.id : LineageId{}; }
    std::optional<CommittedVolume> committed_volume(const std::string& name) const;
    const Row<VolumeRecord>* volume_by_id(const VolumeId& id) const;

  private:
    void set(const KeyChange& change);
};

}  // namespace gemel::cluster
