#include "core/cluster/migration_rules.hpp"

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

std::string migration_refusal(const Tables& tables, const GuestRecord& guest, const std::string& node,
                              const std::function<bool(const std::string&)>& alive) {
    const std::string what = "guest " + guest.name;
    if (!guest.placement || guest.placement->phase != GuestPhase::running)
        return what + " does not run; 'gemel vm start " + guest.name + " --node " + node +
               "' starts it there";
    if (guest.wish == GuestWish::stopped) return what + " is being stopped";
    if (guest.placement->node == node) return what + " runs on " + node + " already";
    if (guest.migration) return what + " is moving to " + guest.migration->node + " already";
    const auto row = tables.nodes.find(node);
    if (row == tables.nodes.end()) return "there is no node named " + node + "; gemel node list shows them";
    if (row->second.record.state != NodeState::member || row->second.record.drained)
        return node + " is " +
               (row->second.record.drained ? "drained; gemel node undrain " + node : "leaving");
    if (node_gone(tables, node) || !alive(node)) return node + " does not answer";
    for (const auto& disk : guest.disks) {
        const auto volume = tables.volumes.find(disk.volume);
        if (volume == tables.volumes.end()) return "volume " + disk.volume + " does not exist";
        const VolumeRecord& record = volume->second.record;
        if (replica_on(record, node) == nullptr) return node + " has no copy of " + disk.volume;
        if (!promotable(record, node))
            return "the copy of " + disk.volume + " on " + node + " is " +
                   std::string(to_string(replica_on(record, node)->state)) +
                   "; wait until it is UpToDate (gemel volume list)";
        const auto epoch = guest.placement->epochs.find(disk.volume);
        if (!record.owner || record.handover || record.owner->revoking ||
            epoch == guest.placement->epochs.end() || epoch->second != record.owner->epoch)
            return "volume " + disk.volume + " is changing hands";
    }
    return {};
}

std::string migration_target(const Tables& tables, const GuestRecord& guest,
                             const std::function<bool(const std::string&)>& alive, std::string& why) {
    for (const auto& [name, row] : tables.nodes) {
        if (guest.placement && guest.placement->node == name) continue;
        const std::string refused = migration_refusal(tables, guest, name, alive);
        if (refused.empty()) return name;
        why += (why.empty() ? "" : "; ") + refused;
    }
    if (why.empty()) why = "there is no other node";
    return {};
}

void open_migration(Context& context, const Row<GuestRecord>& guest, MigrationRecord migration, Txn& txn) {
    const auto node = context.gated.nodes.find(migration.node);
    migration.incarnation = node->second.record.incarnation;
    migration.secret = context.secret();
    context.reads(txn, keys::node(migration.node), node->second);
    for (const auto& disk : guest.record.disks) {
        const auto& volume = context.gated.volumes.at(disk.volume);
        VolumeRecord next = volume.record;
        next.handover =
            HandoverRecord{migration.node, migration.incarnation, next.epoch + 1, context.secret()};
        context.reads(txn, keys::volume(disk.volume), volume);
        txn.puts.push_back({keys::volume(disk.volume), encode(next), 0});
    }
    GuestRecord next = guest.record;
    next.migration = std::move(migration);
    context.reads(txn, keys::guest(next.name), guest);
    txn.puts.push_back({keys::guest(next.name), encode(next), 0});
}

void close_migration(const Context& context, const Row<GuestRecord>& guest, Txn& txn) {
    for (const auto& disk : guest.record.disks) {
        const auto volume = context.gated.volumes.find(disk.volume);
        if (volume == context.gated.volumes.end() || !volume->second.record.handover) continue;
        VolumeRecord next = volume->second.record;
        next.handover.reset();
        context.reads(txn, keys::volume(disk.volume), volume->second);
        txn.puts.push_back({keys::volume(disk.volume), encode(next), 0});
    }
    GuestRecord next = guest.record;
    next.migration.reset();
    context.reads(txn, keys::guest(next.name), guest);
    txn.puts.push_back({keys::guest(next.name), encode(next), 0});
}

bool switch_migration(const Context& context, const Row<GuestRecord>& guest, Txn& txn) {
    const MigrationRecord& migration = *guest.record.migration;
    const auto node = context.gated.nodes.find(migration.node);
    if (node == context.gated.nodes.end() || node->second.record.incarnation != migration.incarnation ||
        node_gone(context.gated, migration.node))
        return false;
    context.reads(txn, keys::node(migration.node), node->second);
    GuestRecord next = guest.record;
    next.placement = PlacementRecord{migration.node, migration.incarnation, {}, GuestPhase::running};
    for (const auto& disk : guest.record.disks) {
        const auto at = context.gated.volumes.find(disk.volume);
        if (at == context.gated.volumes.end()) return false;
        const VolumeRecord& volume = at->second.record;
        const bool expected = volume.handover && volume.handover->node == migration.node &&
                              volume.handover->incarnation == migration.incarnation && volume.owner &&
                              !volume.owner->revoking && promotable(volume, migration.node);
        if (!expected) return false;
        VolumeRecord switched = volume;
        const HandoverRecord& handover = *volume.handover;
        switched.epoch = handover.epoch;
        switched.owner = OwnerRecord{handover.node, handover.incarnation, handover.epoch, handover.secret,
                                     false,         volume.owner->purpose};
        switched.handover.reset();
        next.placement->epochs[disk.volume] = handover.epoch;
        context.reads(txn, keys::volume(disk.volume), at->second);
        txn.puts.push_back({keys::volume(disk.volume), encode(switched), 0});
    }
    next.migration.reset();
    next.last_error.clear();
    context.reads(txn, keys::guest(next.name), guest);
    txn.puts.push_back({keys::guest(next.name), encode(next), 0});
    return true;
}

}  // namespace gemel::cluster
