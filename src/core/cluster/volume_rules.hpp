// Rules about one committed volume record: who may be granted, and what the record becomes. Pure functions
// used by the planner, the coordinator and the views alike, so that there is one answer (promises D9, C2, C3,
// C5).
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "core/cluster/planner_port.hpp"
#include "core/cluster/store.hpp"

namespace gemel::cluster {

// That life of the node is over for good: verified fence or waited-out confirm-down of it, clean leave of it,
// or a later life of the same node has registered.
bool proven_gone(const Tables& tables, const std::string& node, const Incarnation& incarnation);
// The node's registered life is over and no new one has registered.
bool node_gone(const Tables& tables, const std::string& node);

// Another data directory, or another life of it, takes its place: the former nonce is remembered. false: that
// one is a former one itself; lives only follow one another, and nothing is changed.
bool renew_nonce(NodeRecord& node, const Uuid& nonce);

const ReplicaRecord* replica_on(const VolumeRecord& volume, const std::string& node);
bool in_ack_set(const VolumeRecord& volume, const std::string& node);
std::vector<std::string> ack_set(const VolumeRecord& volume);
// The replica's data may be served: committed UpToDate and in the ack set.
bool promotable(const VolumeRecord& volume, const std::string& node);

// Empty: `node` may be granted the volume now. Otherwise why not, one line.
std::string grant_refusal(const Tables& tables, const VolumeRecord& volume, const std::string& node,
                          const std::function<bool(const std::string&)>& alive);

struct Grant {
    std::string node;
    Incarnation incarnation;
    std::string secret;
    std::string purpose;
    GenerationId generation;  // used where the ack set shrinks
};
// The record after the grant: owner, epoch + 1; replicas of nodes that are gone (or of the lost owner) leave
// the ack set, which makes a new generation. Precondition: grant_refusal() is empty.
VolumeRecord granted(const Tables& tables, const VolumeRecord& volume, const Grant& grant);
VolumeRecord released(VolumeRecord volume);
// ack set = {node}; everything else that was in it is Outdated; new generation. The node was in the ack set.
void shrink_to(VolumeRecord& volume, const std::string& node, const GenerationId& generation);
// The operator's force and resolve, for a replica outside the ack set: the same, but the new generation
// descends from `held`, what that replica holds. Generations that were made without it are no ancestors:
// whoever holds one of them is told of a split brain, and never overwritten (promises D7, D8).
void restart_from(VolumeRecord& volume, const std::string& node, const GenerationId& held,
                  const GenerationId& generation);
bool names_generation(const VolumeRecord& volume, const GenerationId& id);  // its own, or an ancestor
// What the kept replica goes on from now, where it held `held` when the operation began: as a member of the
// ack set it has followed the record since. One beside the record (never named by it) stays what it was.
GenerationId kept_generation(const VolumeRecord& volume, const std::string& node, const GenerationId& held);

}  // namespace gemel::cluster
