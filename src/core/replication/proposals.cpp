// Authority's proposals: what this engine asks the store to commit (rules 2-4). Acted on only when committed.
#include <algorithm>

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/authority.hpp"
#include "core/replication/core.hpp"

namespace gemel::replication {

// The owner proposes; without a living owner, the side the verdict named as source.
bool Authority::may_propose() const {
    if (!record().owner) return core_.session.named_source();
    const OwnerRecord& owner = *record().owner;
    if (owner.node == core_.config.node) {
        return owner.incarnation == core_.config.incarnation ? !owner.revoking : core_.session.named_source();
    }
    const bool dead_owner = core_.session.up() && core_.session.peer_incarnation() != owner.incarnation;
    return dead_owner && core_.session.named_source();
}

bool Authority::leave_wanted() const {
    if (core_.session.must_leave_first()) return true;
    if (!peer_needed() || core_.session.connected()) return false;
    if (owned_epoch() == 0) return false;
    // Everything acknowledged under this epoch went through this node, or the peer was met in this life, or
    // it is proven down: only then is this replica known not to miss something the peer has (D9).
    const bool served_it = role_ == Role::primary || crashed_epoch_ == owned_epoch();
    if (!served_it && !core_.session.met_peer() && !proven_down_.has_value()) return false;
    if (core_.session.up()) return core_.session.handshake_overdue();
    return core_.now >= core_.session.grace_until();
}

void Authority::consider_proposal() {
    if (outstanding_ != 0 || core_.now < retry_at_ || self() == nullptr || !may_propose()) return;
    if (core_.local_failed()) {
        if (self_in_ack_set() && other_in_ack_set() && owned_epoch() != 0)
            propose(ProposalKind::local_failed);
        return;
    }
    if (!current() || !adopted() || !problem_.empty()) return;
    if (leave_wanted()) {
        propose(ProposalKind::peer_left);
    } else if (core_.join.ready_to_propose()) {
        propose(ProposalKind::peer_joined);
    }
}

VolumeRecord Authority::next_record(ProposalKind kind) {
    VolumeRecord next = record();
    const ReplicaId own = core_.metadata.wanted().replica;
    if (kind != ProposalKind::peer_joined && !mutant("leave_keeps_generation")) {
        next.ancestors.insert(next.ancestors.begin(), next.generation.id);
        if (next.ancestors.size() > VolumeRecord::kMaxAncestors) next.ancestors.pop_back();
        next.generation.parent = next.generation.id;
        next.generation.id = GenerationId::from_random(core_.random.next(), core_.random.next());
        ++next.generation.counter;
    }
    for (ReplicaRecord& replica : next.replicas) {
        const bool mine = replica.replica == own;
        if (kind == ProposalKind::peer_joined) {
            replica.in_ack_set = true;
            replica.state = ReplicaState::up_to_date;
        } else if (kind == ProposalKind::peer_left) {
            replica.in_ack_set = mine;
            if (mine) {
                replica.state = ReplicaState::up_to_date;
            } else if (core_.session.peer_disk_failed()) {
                replica.state = ReplicaState::failed;
            } else if (replica.state > ReplicaState::outdated) {
                replica.state = ReplicaState::outdated;
            }
        } else {
            replica.in_ack_set = !mine;
            if (mine) replica.state = ReplicaState::failed;
        }
    }
    return next;
}

void Authority::propose(ProposalKind kind) {
    outstanding_ = next_proposal_++;
    core_.emit(Propose{outstanding_, kind, committed().revision, committed().lineage, next_record(kind)});
}

void Authority::proposal_done(const ProposalDone& done) {
    if (done.proposal != outstanding_) return;
    outstanding_ = 0;
    if (done.current) offer(*done.current);
    if (done.outcome != ProposalOutcome::committed) retry_at_ = core_.now + kRetry;
    if (!done.current || done.outcome == ProposalOutcome::unknown) core_.emit(NeedRecord{revision()});
    core_.again();
}

Instant Authority::next_deadline() const {
    return committed_ && outstanding_ == 0 && retry_at_ > core_.now ? retry_at_ : Instant::never();
}

}  // namespace gemel::replication
