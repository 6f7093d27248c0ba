#include "core/cluster/members.hpp"

#include <algorithm>

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

const VoterRecord* Members::known(const std::string& name) const {
    for (const auto& voter : context_.config.initial_voters) {
        if (voter.name == name) return &voter;
    }
    return nullptr;
}

// A learner that never started has no name in etcd yet: its address tells.
const StoreMemberView* Members::member(const VoterRecord& voter) const {
    for (const auto& member : context_.health.members) {
        if (member.name == voter.name || (member.name.empty() && member.peer_url == voter.peer_url))
            return &member;
    }
    return nullptr;
}

bool Members::listed(const ClusterRecord& cluster, const std::string& name) const {
    return std::any_of(cluster.voters.begin(), cluster.voters.end(),
                       [&](const auto& v) { return v.name == name; });
}

void Members::commit(ClusterRecord next, const std::string& what) {
    Txn txn;
    context_.reads(txn, std::string(keys::kCluster), *context_.gated.cluster);
    txn.puts.push_back({std::string(keys::kCluster), encode(next), 0});
    busy_ = true;
    context_.commit(std::move(txn), true, false, [this, what](const JobResult& result) {
        busy_ = false;
        repeat_at_ = context_.now + milliseconds(200);
        if (result.committed) context_.event("info", "store.members", "store", what);
    });
}

void Members::command(StoreCommandKind command) {
    busy_ = true;
    context_.store_command(std::move(command), [this](const StoreCommandDone& done) {
        busy_ = false;
        repeat_at_ = context_.now + seconds(1);
        if (!done.ok) context_.log("warning", "store members: " + done.detail);
    });
}

void Members::adding(const ClusterRecord& cluster) {
    const VoterRecord* voter = known(cluster.adding_voter);
    if (voter == nullptr) {
        ClusterRecord next = cluster;
        next.adding_voter.clear();
        return commit(next, "an unknown voter is not added");
    }
    const auto* there = member(*voter);
    if (there == nullptr) {
        if (const auto* other = other_learner(*voter)) return command(RemoveMember{other->id});
        return command(AddLearner{voter->name, voter->peer_url});
    }
    if (!there->learner) {
        ClusterRecord next = cluster;
        next.voters.push_back(*voter);
        next.adding_voter.clear();
        return commit(next, voter->name + " is a voter");
    }
    if (voter->witness) return adding_witness(cluster, *voter, *there);
    const auto* peer = peers_.find(voter->name);
    if (peer != nullptr && peer->heartbeat.wants_to_join) {
        std::string initial;
        for (const auto& one : cluster.voters) initial += one.name + "=" + one.peer_url + ",";
        peers_.send(voter->name,
                    JoinOffer{context_.gated.lineage_id(), initial + voter->name + "=" + voter->peer_url});
        repeat_at_ = context_.now + seconds(1);
        return;
    }
    if (!there->learner_ready || peer == nullptr || !peers_.clusterd_alive(voter->name)) return;
    if (vouch(voter->name, peer->heartbeat.store.member_nonce)) command(PromoteMember{there->id});
}

const StoreMemberView* Members::other_learner(const VoterRecord& voter) const {
    for (const auto& one : context_.health.members) {
        if (one.learner && one.name != voter.name && one.peer_url != voter.peer_url) return &one;
    }
    return nullptr;
}

// No nonce is compared: as a member that was added it has a new id and has nothing but what the leader sent
// to it. Its old data, should it come up with them, belong to a member that was removed (scenario H8).
void Members::adding_witness(const ClusterRecord& cluster, const VoterRecord& voter,
                             const StoreMemberView& there) {
    constexpr Duration kPatience = seconds(10);
    if (there.answers && there.learner_ready) return command(PromoteMember{there.id});
    if (context_.now - adding_since_ < kPatience) return;
    // Gone again: nothing else may wait for it.
    ClusterRecord next = cluster;
    next.adding_voter.clear();
    commit(next, voter.name + " went away before it could vote");
}

bool Members::all_nodes_vote(const ClusterRecord& cluster) const {
    for (const auto& voter : context_.config.initial_voters) {
        if (voter.witness) continue;
        const bool there = voter.name == context_.config.name || peers_.clusterd_alive(voter.name);
        if (!there || !listed(cluster, voter.name)) return false;
    }
    return true;
}

void Members::bring_back_witness(const ClusterRecord& cluster) {
    constexpr Duration kRetry = seconds(30);
    for (const auto& voter : context_.config.initial_voters) {
        if (!voter.witness || listed(cluster, voter.name)) continue;
        if (!all_nodes_vote(cluster)) return;
        const auto* there = member(voter);
        if (there == nullptr) {
            if (context_.now < witness_retry_at_ || other_learner(voter) != nullptr) return;
            witness_retry_at_ = context_.now + kRetry;
            return command(AddLearner{voter.name, voter.peer_url});
        }
        const bool ready = there->learner && there->answers && there->learner_ready;
        if (!ready && there->learner) return;
        ClusterRecord next = cluster;
        next.adding_voter = voter.name;
        adding_since_ = context_.now;
        return commit(next, "the witness is back and has caught up: it is added");
    }
}

// true: the member's nonce is the committed one; it may vote. One of a life before is never committed again:
// its heartbeat is from before its own registration, or its disk from an old image, and a record that goes
// back would call the present life a former one (seed 53233: the sole voter set its store aside).
bool Members::vouch(const std::string& name, const Uuid& nonce) {
    const auto row = context_.gated.nodes.find(name);
    if (row == context_.gated.nodes.end() || row->second.record.member_nonce == nonce) return true;
    NodeRecord next = row->second.record;
    if (!renew_nonce(next, nonce)) return false;
    Txn txn;
    context_.reads(txn, keys::node(name), row->second);
    txn.puts.push_back({keys::node(name), encode(next), 0});
    busy_ = true;
    context_.commit(std::move(txn), true, false, [this](const JobResult&) {
        busy_ = false;
        repeat_at_ = context_.now + milliseconds(200);
    });
    return false;
}

void Members::removing(const ClusterRecord& cluster) {
    const auto at = std::find_if(cluster.voters.begin(), cluster.voters.end(),
                                 [&](const auto& voter) { return voter.name == cluster.removing_voter; });
    const auto* there = at == cluster.voters.end() ? nullptr : member(*at);
    if (there != nullptr) return command(RemoveMember{there->id});
    ClusterRecord next = cluster;
    std::erase_if(next.voters, [&](const auto& voter) { return voter.name == cluster.removing_voter; });
    next.removing_voter.clear();
    commit(next, cluster.removing_voter + " is no voter any more");
}

bool Members::witness_to_remove(const VoterRecord& voter) {
    const auto* there = member(voter);
    auto& seen = witness_seen_.try_emplace(voter.name, context_.now).first->second;
    if (there == nullptr || there->answers) seen = context_.now;
    for (const auto& other : context_.gated.cluster->record.voters) {
        const bool healthy =
            other.witness || other.name == context_.config.name || peers_.clusterd_alive(other.name);
        if (!healthy) seen = context_.now;  // its vote may be needed: never shrink while a node is missing
    }
    return context_.now - seen > milliseconds(context_.timing().witness_absent_ms);
}

void Members::look_for_work(const ClusterRecord& cluster) {
    for (const auto& [name, peer] : peers_.all()) {
        if (!peer.heartbeat.wants_to_join || !peers_.clusterd_alive(name) || known(name) == nullptr) continue;
        ClusterRecord next = cluster;
        (listed(cluster, name) ? next.removing_voter : next.adding_voter) = name;
        return commit(next, listed(cluster, name) ? name + " lost its store: it is removed and added again"
                                                  : name + " is added to the store");
    }
    for (const auto& voter : cluster.voters) {
        if (!voter.witness || !witness_to_remove(voter)) continue;
        ClusterRecord next = cluster;
        next.removing_voter = voter.name;
        return commit(next, "the witness has been silent for long: going on with the nodes alone");
    }
    bring_back_witness(cluster);
}

void Members::evaluate() {
    if (!context_.is_coordinator() || !context_.store_quorate() || !context_.gated.cluster) return;
    if (busy_ || context_.now < repeat_at_) return;
    const ClusterRecord& cluster = context_.gated.cluster->record;
    if (!cluster.removing_voter.empty()) return removing(cluster);
    if (!cluster.adding_voter.empty()) return adding(cluster);
    look_for_work(cluster);
}

}  // namespace gemel::cluster
