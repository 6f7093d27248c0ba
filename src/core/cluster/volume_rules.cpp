#include "core/cluster/volume_rules.hpp"

#include <algorithm>

#include "base/invariant.hpp"
#include "base/mutant.hpp"

namespace gemel::cluster {

bool proven_gone(const Tables& tables, const std::string& node, const Incarnation& incarnation) {
    const auto row = tables.nodes.find(node);
    if (row == tables.nodes.end()) return false;
    const NodeRecord& record = row->second.record;
    if (record.incarnation != incarnation) return !record.incarnation.is_nil();
    if (record.state == NodeState::left && record.left_incarnation == incarnation) return true;
    const bool fenced =
        record.fence.state == FenceState::verified || record.fence.state == FenceState::confirmed_down;
    return fenced && (record.fence.incarnation == incarnation || mutant("fence_any_incarnation"));
}

bool node_gone(const Tables& tables, const std::string& node) {
    const auto row = tables.nodes.find(node);
    return row != tables.nodes.end() && proven_gone(tables, node, row->second.record.incarnation);
}

bool renew_nonce(NodeRecord& node, const Uuid& nonce) {
    if (node.member_nonce == nonce) return true;
    if (std::ranges::find(node.former_nonces, nonce) != node.former_nonces.end()) return false;
    if (!node.member_nonce.is_nil()) node.former_nonces.insert(node.former_nonces.begin(), node.member_nonce);
    if (node.former_nonces.size() > NodeRecord::kMaxFormerNonces)
        node.former_nonces.resize(NodeRecord::kMaxFormerNonces);
    node.member_nonce = nonce;
    return true;
}

const ReplicaRecord* replica_on(const VolumeRecord& volume, const std::string& node) {
    for (const auto& replica : volume.replicas) {
        if (replica.node == node) return &replica;
    }
    return nullptr;
}

bool in_ack_set(const VolumeRecord& volume, const std::string& node) {
    const auto* replica = replica_on(volume, node);
    return replica != nullptr && replica->in_ack_set;
}

std::vector<std::string> ack_set(const VolumeRecord& volume) {
    std::vector<std::string> names;
    for (const auto& replica : volume.replicas) {
        if (replica.in_ack_set) names.push_back(replica.node);
    }
    return names;
}

bool promotable(const VolumeRecord& volume, const std::string& node) {
    const auto* replica = replica_on(volume, node);
    if (replica == nullptr) return false;
    if (mutant("promote_outdated") && replica->state >= ReplicaState::outdated) return true;
    return replica->in_ack_set && replica->state == ReplicaState::up_to_date;
}

std::string grant_refusal(const Tables& tables, const VolumeRecord& volume, const std::string& node,
                          const std::function<bool(const std::string&)>& alive) {
    if (replica_on(volume, node) == nullptr) return "volume " + volume.name + " has no replica on " + node;
    if (!promotable(volume, node)) {
        std::string current;
        for (const auto& name : ack_set(volume)) current += (current.empty() ? "" : ", ") + name;
        return "the replica of " + volume.name + " on " + node + " is " +
               std::string(to_string(replica_on(volume, node)->state)) +
               "; current: " + (current.empty() ? "none" : current);
    }
    if (volume.owner && !mutant("promote_unfenced") &&
        !proven_gone(tables, volume.owner->node, volume.owner->incarnation)) {
        return volume.name + " is held by " + volume.owner->node + " (" + volume.owner->purpose +
               "), whose end is not proven";
    }
    for (const auto& replica : volume.replicas) {
        if (replica.node == node || !replica.in_ack_set) continue;
        if (!alive(replica.node) && !node_gone(tables, replica.node) && !mutant("promote_unfenced")) {
            return replica.node + ", also in the ack set of " + volume.name +
                   ", is silent and not proven gone";
        }
    }
    return {};
}

void shrink_to(VolumeRecord& volume, const std::string& node, const GenerationId& generation) {
    for (auto& replica : volume.replicas) {
        if (replica.node == node) {
            replica.in_ack_set = true;
            replica.state = ReplicaState::up_to_date;
        } else {
            replica.in_ack_set = false;
            if (replica.state >= ReplicaState::consistent) replica.state = ReplicaState::outdated;
        }
    }
    volume.ancestors.insert(volume.ancestors.begin(), volume.generation.id);
    if (volume.ancestors.size() > VolumeRecord::kMaxAncestors)
        volume.ancestors.resize(VolumeRecord::kMaxAncestors);
    volume.generation = {generation, volume.generation.id, volume.generation.counter + 1};
}

void restart_from(VolumeRecord& volume, const std::string& node, const GenerationId& held,
                  const GenerationId& generation) {
    auto& ancestors = volume.ancestors;
    ancestors.insert(ancestors.begin(), volume.generation.id);
    const auto at = std::find(ancestors.begin(), ancestors.end(), held);
    ancestors.erase(ancestors.begin(), at);
    const auto counter = volume.generation.counter;
    if (ancestors.empty()) ancestors.push_back(held);  // older than the record remembers, or beside it
    volume.generation = {ancestors.front(), {}, counter};
    ancestors.erase(ancestors.begin());
    shrink_to(volume, node, generation);
}

bool names_generation(const VolumeRecord& volume, const GenerationId& id) {
    return volume.generation.id == id || std::ranges::find(volume.ancestors, id) != volume.ancestors.end();
}

GenerationId kept_generation(const VolumeRecord& volume, const std::string& node, const GenerationId& held) {
    return in_ack_set(volume, node) && names_generation(volume, held) ? volume.generation.id : held;
}

VolumeRecord granted(const Tables& tables, const VolumeRecord& volume, const Grant& grant) {
    VolumeRecord next = volume;
    const bool owner_lost = volume.owner && volume.owner->node != grant.node;
    bool shrink = mutant("promote_outdated") && !in_ack_set(volume, grant.node);
    for (const auto& replica : volume.replicas) {
        if (replica.node == grant.node || !replica.in_ack_set) continue;
        if (node_gone(tables, replica.node) || (owner_lost && volume.owner->node == replica.node))
            shrink = true;
    }
    if (shrink) shrink_to(next, grant.node, grant.generation);
    // Above a handover's too: who was promised that epoch must never take this one for it.
    next.epoch = std::max(volume.epoch, volume.handover ? volume.handover->epoch : 0) + 1;
    next.handover.reset();
    next.owner = OwnerRecord{grant.node, grant.incarnation, next.epoch, grant.secret, false, grant.purpose};
    return next;
}

VolumeRecord released(VolumeRecord volume) {
    if (volume.handover) volume.epoch = volume.handover->epoch;  // never given to another
    volume.handover.reset();
    volume.owner.reset();
    return volume;
}

}  // namespace gemel::cluster
