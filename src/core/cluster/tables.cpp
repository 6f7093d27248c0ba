#include "core/cluster/store.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {
namespace {

// One row: newer replaces, deleted erases, undecodable is remembered in `refused`.
template <typename Record>
void set_row(Table<Record>& table, std::string_view prefix, const KeyChange& change,
             std::map<std::string, std::string>& refused) {
    const std::string name = change.key.substr(prefix.size());
    if (const auto old = table.find(name);
        old != table.end() && change.value && old->second.revision >= change.mod_revision) {
        return;
    }
    refused.erase(change.key);
    if (!change.value) {
        table.erase(name);
        return;
    }
    auto record = decode<Record>(*change.value);
    if (!record) {
        table.erase(name);
        refused[change.key] = record.error().message;
        return;
    }
    table[name] = {std::move(*record), change.mod_revision, change.create_revision};
}
template <typename Record>
void set_single(std::optional<Row<Record>>& row, const KeyChange& change,
                std::map<std::string, std::string>& refused) {
    Table<Record> table;
    if (row) table[""] = std::move(*row);
    set_row(table, change.key, change, refused);
    row.reset();
    if (!table.empty()) row = std::move(table.begin()->second);
}
bool starts(const std::string& key, std::string_view prefix) {
    return key.compare(0, prefix.size(), prefix) == 0;
}

}  // namespace

void Tables::set(const KeyChange& change) {
    const std::string& key = change.key;
    if (key == keys::kCluster) {
        set_single(cluster, change, refused);
    } else if (key == keys::kLineage) {
        set_single(lineage, change, refused);
    } else if (key == keys::kCoordinator) {
        set_single(coordinator, change, refused);
    } else if (starts(key, keys::kNodes)) {
        set_row(nodes, keys::kNodes, change, refused);
    } else if (starts(key, keys::kPools)) {
        set_row(pools, keys::kPools, change, refused);
    } else if (starts(key, keys::kVolumes)) {
        set_row(volumes, keys::kVolumes, change, refused);
    } else if (starts(key, keys::kGuests)) {
        set_row(guests, keys::kGuests, change, refused);
    } else if (starts(key, keys::kFence)) {
        set_row(fence_devices, keys::kFence, change, refused);
    } else if (starts(key, keys::kOperations)) {
        set_row(operations, keys::kOperations, change, refused);
    } else if (starts(key, keys::kEvents)) {
        set_row(events, keys::kEvents, change, refused);
    } else if (starts(key, keys::kApplied)) {
        set_row(applied, keys::kApplied, change, refused);
    } else if (starts(key, keys::kRoot)) {
        // A kind of entry this program has never heard of (promise C8).
        if (change.value) refused[key] = "unknown kind of entry; upgrade gemel on this node";
        if (!change.value) refused.erase(key);
    }
}

void Tables::load(std::uint64_t at_revision, const std::vector<KeyValue>& all) {
    *this = Tables{};
    for (const auto& one : all) set({one.key, one.value, one.mod_revision, one.create_revision});
    revision = at_revision;
}

void Tables::apply(std::uint64_t at_revision, const std::vector<KeyChange>& changes) {
    for (const auto& change : changes) {
        if (change.mod_revision > revision) set(change);
    }
    if (at_revision > revision) revision = at_revision;
}

std::optional<CommittedVolume> Tables::committed_volume(const std::string& name) const {
    const auto row = volumes.find(name);
    if (row == volumes.end()) return std::nullopt;
    return CommittedVolume{row->second.record, row->second.revision, lineage_id()};
}

const Row<VolumeRecord>* Tables::volume_by_id(const VolumeId& id) const {
    for (const auto& [name, row] : volumes) {
        if (row.record.id == id) return &row;
    }
    return nullptr;
}

}  // namespace gemel::cluster
