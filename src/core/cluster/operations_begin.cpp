// Accepting requests: preconditions and the first transaction of each kind. See operations.hpp.
#include <algorithm>

#include "core/cluster/operations.hpp"
#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

Result<const Row<VolumeRecord>*> Operations::volume(const std::string& name) const {
    const auto at = context_.gated.volumes.find(name);
    if (at != context_.gated.volumes.end()) return &at->second;
    return fail(ErrorCode::not_found, "there is no volume named " + name + "; gemel volume list shows them");
}
Result<const Row<GuestRecord>*> Operations::guest(const std::string& name) const {
    const auto at = context_.gated.guests.find(name);
    if (at != context_.gated.guests.end()) return &at->second;
    return fail(ErrorCode::not_found, "there is no guest named " + name + "; gemel vm list shows them");
}
Status Operations::unused(const std::string& volume, const std::string& except_guest) const {
    for (const auto& [name, row] : context_.gated.guests) {
        if (name == except_guest) continue;
        for (const auto& disk : row.record.disks) {
            if (disk.volume == volume) {
                return fail(ErrorCode::failed_precondition,
                            "volume " + volume + " is a disk of the guest " + name +
                                "; delete that guest first, or name another volume");
            }
        }
    }
    for (const auto& [id, row] : context_.gated.operations) {
        const auto& operation = row.record;
        const bool unfinished =
            operation.state == OperationState::running || operation.state == OperationState::pending;
        if (unfinished && operation.object == "volume/" + volume) {
            return fail(ErrorCode::failed_precondition, "volume " + volume + " is busy with " +
                                                            operation.kind + "; wait for operation " +
                                                            operation.id.to_string());
        }
    }
    return {};
}

// Refused at once, where the first write or the allocation would fail later. A node that says nothing is
// asked nothing.
Status Operations::enough_space(const std::string& node, const std::string& pool,
                                std::uint64_t size_bytes) const {
    constexpr std::uint64_t kMetadataBytes = std::uint64_t{64} << 20;
    const HostResources& known = peers_.resources_of(node);
    const auto free = known.pool_free_bytes.find(pool);
    if (free == known.pool_free_bytes.end() || free->second >= size_bytes + kMetadataBytes) return {};
    const auto mib = [](std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
    return fail(ErrorCode::out_of_space, "pool " + pool + " on " + node + " has " + mib(free->second) +
                                             " free and " + mib(size_bytes + kMetadataBytes) +
                                             " are needed (the size and 64 MiB): free some space there, or "
                                             "make a smaller volume");
}

// On every node that says what it has: the guest shall be able to come back on any of them.
Status Operations::bridges_exist(const std::vector<GuestNic>& nics) const {
    for (const auto& [node, row] : context_.gated.nodes) {
        const HostResources& known = peers_.resources_of(node);
        if (!known.known) continue;
        for (const auto& nic : nics) {
            const auto& there = known.bridges;
            if (std::find(there.begin(), there.end(), nic.bridge) != there.end()) continue;
            if (there.size() >= HostResources::kMaxBridges) continue;  // not all of them are told
            std::string names;
            for (const auto& one : there) names += (names.empty() ? "" : ", ") + one;
            return fail(ErrorCode::failed_precondition, "there is no bridge " + nic.bridge + " on " + node +
                                                            ", which has " +
                                                            (names.empty() ? "none" : names) +
                                                            "; make it on every node, or name another one");
        }
    }
    return {};
}

Status Operations::begin(const ApiCommand& command, OperationRecord& operation, Txn& txn) {
    return std::visit(
        [&](const auto& c) -> Status {
            if constexpr (requires { begin_one(c, operation, txn); }) {
                return begin_one(c, operation, txn);
            } else {
                return fail(ErrorCode::internal, "this request is not kept in the store");
            }
        },
        command);
}

Status Operations::begin_one(const VolumeCreate& c, OperationRecord& operation, Txn& txn) {
    if (context_.gated.volumes.contains(c.name)) {
        return fail(ErrorCode::already_exists, "a volume named " + c.name + " exists; choose another name");
    }
    std::vector<std::string> nodes = c.nodes;
    if (nodes.empty()) {
        for (const auto& [name, row] : context_.gated.nodes) {
            if (row.record.state == NodeState::member) nodes.push_back(name);
        }
    }
    if (nodes.empty() || nodes.size() > 2) {
        return fail(ErrorCode::invalid_argument, "nodes: expected one or two; name them in this cluster");
    }
    VolumeRecord record;
    auto [high, low] = context_.random();
    record.id = VolumeId::from_random(high, low);
    record.name = c.name;
    record.size_bytes = c.size_bytes;
    record.ack_mode = c.ack_mode;
    std::tie(high, low) = context_.random();
    record.generation = {GenerationId::from_random(high, low), {}, 1};
    for (const auto& node : nodes) {
        const auto* known = context_.node(node);
        if (known == nullptr) return fail(ErrorCode::not_found, "there is no node named " + node);
        if (!context_.gated.pools.contains(node + "/" + c.pool)) {
            return fail(ErrorCode::not_found, "node " + node + " has no pool named " + c.pool);
        }
        if (node != context_.config.name && !peers_.clusterd_alive(node)) {
            return fail(ErrorCode::unavailable,
                        "node " + node + " does not answer; a volume is made on all its nodes");
        }
        if (auto ok = enough_space(node, c.pool, c.size_bytes); !ok) return ok;
        std::tie(high, low) = context_.random();
        record.replicas.push_back(
            {node, ReplicaId::from_random(high, low), c.pool, ReplicaState::inconsistent, false});
    }
    context_.absent(txn, keys::volume(c.name));
    txn.puts.push_back({keys::volume(c.name), encode(record), 0});
    operation.state = OperationState::running;
    operation.step = "format";
    return {};
}

Status Operations::delete_volume(const std::string& name, const std::string& guest,
                                 OperationRecord& operation, Txn& txn) {
    auto row = volume(name);
    if (!row) return tl::unexpected<Error>(row.error());
    if (auto ok = unused(name, guest); !ok) return ok;
    VolumeRecord next = (*row)->record;
    if (next.owner) {
        return fail(ErrorCode::failed_precondition, "volume " + name + " is held by " + next.owner->node +
                                                        " (" + next.owner->purpose +
                                                        "); stop or unexport it first");
    }
    for (auto& replica : next.replicas) {
        replica.in_ack_set = false;
        replica.state = ReplicaState::diskless;
    }
    context_.reads(txn, keys::volume(name), **row);
    txn.puts.push_back({keys::volume(name), encode(next), 0});
    operation.state = OperationState::running;
    operation.step = "delete";
    return {};
}

Status Operations::begin_one(const VolumeDelete& c, OperationRecord& operation, Txn& txn) {
    return delete_volume(c.name, "", operation, txn);
}

Status Operations::begin_one(const VolumeExport& c, OperationRecord& operation, Txn&) {
    auto row = volume(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    if (auto ok = unused(c.name, ""); !ok && ok.error().message.find("busy") != std::string::npos) return ok;
    const VolumeRecord& record = (*row)->record;
    const auto why = grant_refusal(context_.gated, record, context_.config.name,
                                   [this](const std::string& node) { return peers_.alive(node); });
    if (record.owner) {
        const std::string& holder = record.owner->node;
        if (holder != context_.config.name && !peers_.alive(holder) && !why.empty()) {
            return fail(ErrorCode::failed_precondition, why + "; " + holder +
                                                            " does not answer: 'gemel explain volume " +
                                                            c.name + "' says what would help");
        }
        return fail(ErrorCode::failed_precondition, "volume " + c.name + " is held by " + holder + " (" +
                                                        record.owner->purpose +
                                                        "); stop the guest or close the export first");
    }
    for (const auto& [name, guest_row] : context_.gated.guests) {
        const auto& disks = guest_row.record.disks;
        const bool uses =
            std::any_of(disks.begin(), disks.end(), [&](const auto& d) { return d.volume == c.name; });
        if (uses && guest_row.record.wish == GuestWish::running) {
            return fail(ErrorCode::failed_precondition,
                        "the guest " + name + " shall run on it; stop the guest first");
        }
    }
    if (!why.empty()) return fail(ErrorCode::failed_precondition, why);
    operation.node = context_.config.name;
    operation.state = OperationState::running;
    operation.step = "grant";
    return {};
}

Status Operations::begin_one(const VolumeUnexport& c, OperationRecord& operation, Txn&) {
    auto row = volume(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    const auto& owner = (*row)->record.owner;
    if (!owner || owner->purpose != "export") {
        return fail(ErrorCode::failed_precondition, "volume " + c.name + " is not exported");
    }
    operation.node = owner->node;
    operation.state = OperationState::running;
    operation.step = "release";
    return {};
}

// What the replica on that node holds is known to the blockd that has it open, and to nobody else.
Result<GenerationId> Operations::held_generation(const VolumeRecord& record, const std::string& node) const {
    const auto facts = context_.volumes.find(record.id);
    const bool open = node == context_.config.name && facts != context_.volumes.end() &&
                      facts->second.view.attached && !facts->second.view.generation.is_blank();
    const bool beside = open && !names_generation(record, facts->second.view.generation.id);
    if (in_ack_set(record, node) && !beside) return record.generation.id;
    if (node != context_.config.name) {
        return fail(
            ErrorCode::failed_precondition,
            "what the replica on " + node + " holds is known there only: run this command on " + node);
    }
    if (!open) {
        return fail(ErrorCode::unavailable, "the replica of " + record.name +
                                                " here is not open; look with systemctl status gemel-blockd");
    }
    return facts->second.view.generation.id;
}

Status Operations::begin_one(const VolumeForceUpToDate& c, OperationRecord& operation, Txn& txn) {
    auto row = volume(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    VolumeRecord next = (*row)->record;
    const auto* replica = replica_on(next, c.node);
    if (replica == nullptr)
        return fail(ErrorCode::not_found, "volume " + c.name + " has no replica on " + c.node);
    if (next.owner && !proven_gone(context_.gated, next.owner->node, next.owner->incarnation)) {
        return fail(ErrorCode::failed_precondition,
                    "volume " + c.name + " is held by " + next.owner->node +
                        ", whose end is not proven; if it is off, 'gemel node confirm-down " +
                        next.owner->node + "' first");
    }
    for (const auto& other : next.replicas) {
        const bool there = other.node == context_.config.name || peers_.alive(other.node);
        if (promotable(next, other.node) && there) {
            return fail(ErrorCode::failed_precondition,
                        "the replica on " + other.node +
                            " is current and can be promoted: nothing needs to be forced");
        }
    }
    if (replica->state < ReplicaState::outdated) {
        return fail(ErrorCode::failed_precondition,
                    "the replica on " + c.node + " is " + std::string(to_string(replica->state)) +
                        ": it is not one point in time and cannot be declared current; restore a backup");
    }
    const auto held = held_generation(next, c.node);
    if (!held) return tl::unexpected<Error>(held.error());
    next = released(std::move(next));
    const auto [high, low] = context_.random();
    restart_from(next, c.node, *held, GenerationId::from_random(high, low));
    context_.reads(txn, keys::volume(c.name), **row);
    txn.puts.push_back({keys::volume(c.name), encode(next), 0});
    context_.event(
        "critical", "volume.forced", "volume/" + c.name,
        "the operator declared the replica on " + c.node + " current; what only the other had is lost");
    operation.state = OperationState::succeeded;
    return {};
}

Status Operations::begin_one(const VolumeResolve& c, OperationRecord& operation, Txn&) {
    auto row = volume(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    const VolumeRecord& record = (*row)->record;
    if (auto ok = unused(c.name, ""); !ok && ok.error().message.find("busy") != std::string::npos) return ok;
    if (record.replicas.size() != 2 || replica_on(record, c.keep) == nullptr) {
        return fail(ErrorCode::not_found,
                    "keep: expected a node that holds one of two replicas of " + c.name);
    }
    if (record.owner && record.owner->node != c.keep) {
        return fail(ErrorCode::failed_precondition,
                    "volume " + c.name + " is in use on " + record.owner->node);
    }
    const auto& loser = record.replicas[0].node == c.keep ? record.replicas[1] : record.replicas[0];
    const auto facts = context_.volumes.find(record.id);
    const bool split = facts != context_.volumes.end() &&
                       facts->second.view.connection == replication::ConnectionState::standalone;
    if (promotable(record, c.keep) && promotable(record, loser.node) && !split) {
        return fail(ErrorCode::failed_precondition,
                    "both replicas of " + c.name + " are UpToDate and agree: there is no split brain to end");
    }
    if (loser.node != context_.config.name && !peers_.clusterd_alive(loser.node)) {
        return fail(ErrorCode::unavailable,
                    "node " + loser.node + ", whose replica would be set aside, does not answer");
    }
    const auto [high, low] = context_.random();
    const auto held = held_generation(record, c.keep);
    if (!held) return tl::unexpected<Error>(held.error());
    operation.arguments["held"] = held->to_string();
    operation.arguments["keep"] = c.keep;
    operation.arguments["loser"] = loser.node;
    operation.arguments["old_replica"] = loser.replica.to_string();
    operation.arguments["new_replica"] = ReplicaId::from_random(high, low).to_string();
    operation.state = OperationState::running;
    operation.step = "replace";
    return {};
}

Status Operations::begin_one(const GuestCreate& c, OperationRecord& operation, Txn& txn) {
    if (context_.gated.guests.contains(c.name)) {
        return fail(ErrorCode::already_exists, "a guest named " + c.name + " exists; choose another name");
    }
    for (const auto& disk : c.disks) {
        auto row = volume(disk.volume);
        if (!row) return tl::unexpected<Error>(row.error());
        if (auto ok = unused(disk.volume, ""); !ok) return ok;
        if (ack_set((*row)->record).empty()) {
            return fail(ErrorCode::failed_precondition,
                        "volume " + disk.volume + " is being made or deleted");
        }
        context_.reads(txn, keys::volume(disk.volume), **row);
    }
    if (auto ok = bridges_exist(c.nics); !ok) return ok;
    for (const auto& [node, known] : context_.gated.nodes) {
        const auto memory = known.record.memory_bytes;
        if (memory == 0 || c.memory_bytes <= memory) continue;
        return fail(ErrorCode::invalid_argument,
                    "memory_bytes: " + std::to_string(c.memory_bytes >> 20) + " MiB are more than the " +
                        std::to_string(memory >> 20) + " MiB that " + node + " has in all");
    }
    if (!c.preferred_node.empty() && context_.node(c.preferred_node) == nullptr) {
        return fail(ErrorCode::not_found, "preferred_node: there is no node named " + c.preferred_node);
    }
    GuestRecord record;
    record.name = c.name;
    const auto [high, low] = context_.random();
    record.uuid = c.uuid.is_nil() ? GuestId::from_random(high, low) : c.uuid;
    for (const auto& [name, row] : context_.gated.guests) {
        if (row.record.uuid == record.uuid) {
            return fail(ErrorCode::already_exists, "the guest " + name + " has the same UUID");
        }
    }
    record.template_text = c.template_text;
    record.memory_bytes = c.memory_bytes;
    record.vcpus = c.vcpus;
    record.disks = c.disks;
    record.nics = c.nics;
    record.priority = c.priority;
    record.preferred_node = c.preferred_node;
    context_.absent(txn, keys::guest(c.name));
    txn.puts.push_back({keys::guest(c.name), encode(record), 0});
    operation.state = OperationState::succeeded;
    return {};
}

Status Operations::begin_one(const GuestDelete& c, OperationRecord& operation, Txn& txn) {
    auto row = guest(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    if ((*row)->record.placement || (*row)->record.wish == GuestWish::running) {
        return fail(ErrorCode::failed_precondition,
                    "the guest " + c.name + " runs; gemel vm stop " + c.name + " first");
    }
    operation.state = OperationState::succeeded;
    if (c.with_volumes) {
        for (const auto& disk : (*row)->record.disks) {
            const auto [high, low] = context_.random();
            OperationRecord child;
            child.id = OperationId::from_random(high, low);
            child.kind = "volume.delete";
            child.object = "volume/" + disk.volume;
            child.node = context_.config.name;
            if (auto ok = delete_volume(disk.volume, c.name, child, txn); !ok) return ok;
            txn.puts.push_back({keys::operation(child.id), encode(child), 0});
        }
    }
    context_.reads(txn, keys::guest(c.name), **row);
    txn.deletes.push_back(keys::guest(c.name));
    return {};
}

Status Operations::begin_one(const GuestStart& c, OperationRecord& operation, Txn& txn) {
    auto row = guest(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    GuestRecord next = (*row)->record;
    if (!c.node.empty()) {
        if (context_.node(c.node) == nullptr)
            return fail(ErrorCode::not_found, "there is no node named " + c.node);
        if (next.placement && next.placement->node != c.node) {
            return fail(ErrorCode::failed_precondition,
                        "the guest " + c.name + " already runs on " + next.placement->node);
        }
    }
    if (auto ok = bridges_exist(next.nics); !ok) return ok;
    for (const auto& disk : next.disks) {
        const auto at = context_.gated.volumes.find(disk.volume);
        if (at != context_.gated.volumes.end() && at->second.record.owner &&
            at->second.record.owner->purpose == "export") {
            return fail(ErrorCode::failed_precondition,
                        "volume " + disk.volume + " is exported; unexport it first");
        }
    }
    next.wish = GuestWish::running;
    next.power_off = false;
    next.restarts = 0;
    next.host_losses = 0;
    next.pinned_node = c.node;
    next.last_error.clear();
    context_.reads(txn, keys::guest(c.name), **row);
    txn.puts.push_back({keys::guest(c.name), encode(next), 0});
    operation.state = OperationState::running;
    operation.step = "start";
    return {};
}

Status Operations::begin_one(const GuestStop& c, OperationRecord& operation, Txn& txn) {
    auto row = guest(c.name);
    if (!row) return tl::unexpected<Error>(row.error());
    GuestRecord next = (*row)->record;
    next.wish = GuestWish::stopped;
    next.power_off = c.power_off;
    context_.reads(txn, keys::guest(c.name), **row);
    txn.puts.push_back({keys::guest(c.name), encode(next), 0});
    operation.arguments["timeout_ms"] = std::to_string(c.timeout_ms);
    operation.arguments["mode"] = c.power_off ? "power-off" : "shutdown";
    operation.state = OperationState::running;
    operation.step = "stop";
    return {};
}

Status Operations::begin_one(const ConfirmDown& c, OperationRecord& operation, Txn&) {
    if (context_.node(c.node) == nullptr)
        return fail(ErrorCode::not_found, "there is no node named " + c.node);
    if (node_gone(context_.gated, c.node)) {
        return fail(ErrorCode::failed_precondition, "the loss of " + c.node + " is proven already");
    }
    if (auto ok = arbiter_.may_confirm_down(c.node); !ok) return ok;
    operation.state = OperationState::running;
    operation.step = "confirm";
    return {};
}

}  // namespace gemel::cluster
