#include "core/cluster/election.hpp"

#include <algorithm>

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

void Election::granted(const LeaseGranted& lease) {
    leasing_ = false;
    lease_ = lease.id;
    if (lease_ == 0) not_before_ = context_.now + seconds(1);
}

void Election::lost(const LeaseLost& lease) {
    if (lease.id != lease_) return;
    lease_ = 0;
    resign();
}

void Election::resign() {
    if (context_.term == 0) return;
    context_.term = 0;
    context_.log("info", "no longer the coordinator");
}

bool Election::still_coordinator() const {
    if (mutant("term_not_checked_at_action")) return true;
    const bool known = context_.is_coordinator() && lease_ != 0 && context_.latest.coordinator &&
                       context_.latest.coordinator->created == context_.term;
    return known && context_.now - context_.term_shown_at <= kTermShownFor;
}

void Election::probed(const ReadDone& done) {
    for (const auto& value : done.values) {
        if (value.key == keys::kCoordinator && context_.term != 0 && value.create_revision == context_.term)
            context_.term_shown_at = std::max(context_.term_shown_at, done.sent_at);
    }
}

// A coordinator that is silent on all paths is replaced before its lease ends. Safe without proof: what it
// still sends compares its term, and the term is gone.
void Election::depose(const Row<CoordinatorRecord>& key) {
    campaigning_ = true;
    Txn txn;
    txn.compares.push_back({std::string(keys::kCoordinator), CompareKind::create_revision, key.created, {}});
    txn.deletes.push_back(std::string(keys::kCoordinator));
    context_.commit(std::move(txn), false, true, [this, node = key.record.node](const JobResult& result) {
        campaigning_ = false;
        not_before_ = context_.now + (result.committed ? milliseconds(0) : milliseconds(500));
        if (result.committed)
            context_.event("info", "coordinator.deposed", "node/" + node, "its term is over");
    });
}

// Not one that took its key while nothing was heard of it: it reaches the store, only we do not reach it. Two
// such nodes would depose each other for as long as that lasts. Should it be dead, its lease ends.
bool Election::silent_in_its_term(const Row<CoordinatorRecord>& key) {
    if (key_seen_ != key.created) {
        key_seen_ = key.created;
        key_seen_at_ = context_.now;
    }
    return !peers_.answers(key.record.node) && peers_.lost_since(key.record.node) >= key_seen_at_;
}

// It cannot vouch for itself (design brief 3.5): the one that can must lead until this member has its vote.
bool Election::own_member_learns() const {
    const auto& cluster = context_.gated.cluster;
    if (!cluster || cluster->record.adding_voter != context_.config.name) return false;
    return std::ranges::any_of(context_.health.members, [this](const StoreMemberView& member) {
        return member.name == context_.config.name && member.learner;
    });
}

void Election::give_up(bool mine) {
    if (mine) {
        context_.emit(RevokeLease{lease_});
        lease_ = 0;
    }
    resign();
}

void Election::evaluate() {
    const auto& key = context_.gated.coordinator;
    const bool mine = key && key->record.node == context_.config.name &&
                      key->record.incarnation == context_.config.incarnation && lease_ != 0;
    if (context_.term != 0 && !(key && key->created == context_.term && lease_ != 0)) resign();
    // The key would be kept alive through the others' members, and nobody deposes a node that answers.
    if (!context_.acting && lease_ != 0) return give_up(true);
    if (!context_.acting || !context_.store_quorate() || !context_.tables_live ||
        context_.store == StoreCondition::forcing)
        return;
    const NodeRecord* self = context_.node(context_.config.name);
    if (self == nullptr || self->state != NodeState::member || !context_.config.voter) return;
    // Taken for lost while it lives (a lying device): it leads nothing until it has booted anew.
    if (node_gone(context_.gated, context_.config.name)) return resign();
    if (own_member_learns()) return give_up(mine);
    if (mine && context_.term == 0 && !campaigning_) {
        context_.term = key->created;
        context_.event("info", "coordinator.elected", "node/" + context_.config.name,
                       "is the coordinator, term " + std::to_string(context_.term));
    }
    // Of an earlier process or life of this node: nobody keeps its lease alive, and nobody waits for it.
    const bool own_former = key && key->record.node == context_.config.name && !mine;
    const bool silent = key && key->record.node != context_.config.name && silent_in_its_term(*key);
    if ((own_former || silent) && !campaigning_ && context_.now >= not_before_) return depose(*key);
    if (key || campaigning_ || context_.now < not_before_) return;
    if (lease_ == 0) {
        if (!leasing_) context_.emit(GrantLease{kTtlSeconds});
        leasing_ = true;
        return;
    }
    campaigning_ = true;
    Txn txn;
    context_.absent(txn, std::string(keys::kCoordinator));
    txn.puts.push_back({std::string(keys::kCoordinator),
                        encode(CoordinatorRecord{context_.config.name, context_.config.incarnation}),
                        lease_});
    context_.commit(std::move(txn), false, false, [this](const JobResult& result) {
        campaigning_ = false;
        not_before_ = context_.now + (result.committed ? milliseconds(100) : seconds(1));
        if (!result.committed && lease_ != 0) {
            // A lease that etcd no longer knows can never carry the key.
            context_.emit(RevokeLease{lease_});
            lease_ = 0;
        }
    });
}

}  // namespace gemel::cluster
