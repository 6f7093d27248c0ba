#include "core/replication/authority.hpp"

#include <algorithm>

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/core.hpp"

namespace gemel::replication {
namespace {

bool names(const std::vector<GenerationId>& ids, const GenerationId& id) {
    return std::ranges::find(ids, id) != ids.end();
}

}  // namespace

std::string_view to_string(FreezeReason reason) noexcept {
    switch (reason) {
        case FreezeReason::none: return "none";
        case FreezeReason::not_primary: return "not primary";
        case FreezeReason::lease_lapsed: return "lease lapsed";
        case FreezeReason::peer_lost: return "peer lost";
        case FreezeReason::handshake: return "handshake";
        case FreezeReason::metadata: return "metadata not stable yet";
        case FreezeReason::local_failed: return "own disk failed";
        case FreezeReason::disk_lost: return "the guest's disk has failed";
    }
    return "unknown";
}

// ---- the record

// A record of a lineage that was replaced never comes back: that store was forced aside.
bool Authority::newer(const CommittedVolume& committed) const {
    if (!committed_) return true;
    if (committed.lineage == committed_->lineage) return committed.revision > committed_->revision;
    return std::ranges::find(former_lineages_, committed.lineage) == former_lineages_.end();
}

void Authority::offer(const CommittedVolume& committed) {
    if (committed.record.id != core_.config.volume || !newer(committed)) return;
    if (committed_ && committed_->lineage != committed.lineage)
        former_lineages_.push_back(committed_->lineage);
    committed_ = committed;
    ++record_number_;
    retry_at_ = core_.now;
    core_.again();
}

const ReplicaRecord* Authority::self() const {
    for (const ReplicaRecord& replica : record().replicas) {
        if (replica.replica == core_.metadata.wanted().replica) return &replica;
    }
    return nullptr;
}

const ReplicaRecord* Authority::other() const {
    for (const ReplicaRecord& replica : record().replicas) {
        if (replica.replica != core_.metadata.wanted().replica) return &replica;
    }
    return nullptr;
}

bool Authority::self_in_ack_set() const {
    return committed_ && self() != nullptr && self()->in_ack_set;
}

bool Authority::other_in_ack_set() const {
    return committed_ && other() != nullptr && other()->in_ack_set;
}

bool Authority::current() const {
    if (!self_in_ack_set() || core_.local_failed()) return false;
    const formats::Superblock& known =
        mutant("generation_before_alone_ack") ? core_.metadata.wanted() : core_.metadata.stable();
    return known.generation.id == record().generation.id && known.state == ReplicaState::up_to_date &&
           core_.metadata.wanted().state == ReplicaState::up_to_date;
}

bool Authority::adopted() const {
    return core_.metadata.is_stable();
}

// The superblock follows the record: it may lag behind it after a crash, it never leads (rule 5).
void Authority::adopt_generation() {
    const formats::Superblock& mine = core_.metadata.wanted();
    problem_.clear();
    if (mine.generation.is_blank() || mine.generation.id == record().generation.id) return;
    if (!names(record().ancestors, mine.generation.id)) {
        problem_ =
            "this disk knows a generation that the cluster's record does not: the store lost state or the "
            "histories parted; an operator must decide";
        return;
    }
    const bool alone = self_in_ack_set() && !other_in_ack_set();
    if (!alone || mine.state != ReplicaState::up_to_date) {
        core_.metadata.edit([](formats::Superblock& s) { s.join_pending = false; });
        return;
    }
    // The owner's disk failed: from now on it writes here only, and nothing here knows which blocks. Stable
    // with the generation, so before the first such write: its return is a full resync (D3).
    const bool untracked =
        role_ != Role::primary && other() != nullptr && other()->state == ReplicaState::failed;
    core_.metadata.edit([&](formats::Superblock& s) {
        s.generation = record().generation;
        s.ancestors = record().ancestors;
        s.join_pending = false;
        if (untracked) s.tracked_peer = ReplicaId{};
    });
}

void Authority::follow_membership() {
    if (!crashed_epoch_) {  // before the first record changes what the superblock says
        const formats::Superblock& found = core_.metadata.stable();
        crashed_epoch_ = found.primary ? found.granted_epoch : 0;
    }
    // A record that does not know this disk's generation is of before (a clusterd that lags hands it to a new
    // process), or the store lost state: what it says of the ack set, and of a join whose outcome is open,
    // is not news (seed 54881).
    if (!problem_.empty()) return;
    const bool both = self_in_ack_set() && other_in_ack_set();
    const std::uint64_t granted = record().owner ? record().owner->epoch : 0;
    core_.metadata.edit([&](formats::Superblock& s) {
        s.in_ack_set = self_in_ack_set();
        s.peer_in_ack_set = other_in_ack_set();
        if (other() != nullptr) s.peer = other()->replica;
        if (both) s.join_pending = false;
        if (granted > s.granted_epoch && role_ != Role::primary) s.primary = false;  // that epoch is over
        s.granted_epoch = std::max(s.granted_epoch, granted);
    });
}

void Authority::adopt() {
    if (adopted_record_ == record_number_ && adopted_version_ == core_.metadata.version()) return;
    const bool needed_before = peer_counts_;
    adopt_generation();
    follow_membership();
    core_.session.record_changed();
    peer_counts_ = other_in_ack_set() || core_.metadata.wanted().join_pending;
    adopted_record_ = record_number_;
    adopted_version_ = core_.metadata.version();
    if (!needed_before || peer_counts_) return;
    // The peer has left: what it may not have, or not stably, is a tracked difference from now on (rule 6).
    core_.extents->spill_unsettled(core_.rounds.settled());
    core_.rounds.peer_gone();
    core_.front.peer_gone();
}

// ---- role

std::uint64_t Authority::owned_epoch() const {
    if (!committed_ || !record().owner) return 0;
    const OwnerRecord& owner = *record().owner;
    const bool mine = owner.node == core_.config.node && owner.incarnation == core_.config.incarnation;
    return mine && accepts(owner.epoch) ? owner.epoch : 0;
}

bool Authority::accepts(std::uint64_t epoch) const {
    const formats::Superblock& known = core_.metadata.wanted();
    return epoch > known.refused_epoch && epoch >= known.granted_epoch && epoch > refusing_;
}

bool Authority::peer_needed() const {
    if (mutant("ack_before_leave_committed") && !core_.session.up()) return false;
    if (other_in_ack_set()) return true;
    if (mutant("join_after_propose")) return false;
    return core_.metadata.wanted().join_pending || core_.metadata.stable().join_pending;
}

bool Authority::may_become_primary() const {
    if (owned_epoch() == 0 || record().owner->revoking || !problem_.empty()) return false;
    if (!current() || !core_.lease.valid()) return false;
    // A session that the former owner has closed with writes in flight may not have told this side yet.
    return !peer_needed() || (core_.session.mirrored() && core_.lease.peer_answered());
}

bool Authority::may_stay_primary() const {
    return owned_epoch() == served_epoch_ && (self_in_ack_set() || core_.local_failed());
}

void Authority::promote() {
    const std::uint64_t epoch = owned_epoch();
    core_.metadata.edit([&](formats::Superblock& s) {
        s.granted_epoch = epoch;
        s.primary = true;
        s.complete_in = core_.config.incarnation;
    });
    if (core_.metadata.stable().granted_epoch != epoch || !core_.metadata.stable().primary) return;
    role_ = Role::primary;
    served_epoch_ = epoch;
    core_.notice(NoticeKind::role_changed, "primary, epoch " + std::to_string(epoch));
    open_front(epoch, record().owner->secret);
    core_.front.promoted();
    core_.again();
}

void Authority::demote() {
    const std::uint64_t epoch = served_epoch_;
    role_ = Role::secondary;
    served_epoch_ = 0;
    core_.metadata.edit([](formats::Superblock& s) { s.primary = false; });
    core_.notice(NoticeKind::role_changed, "secondary, epoch " + std::to_string(epoch) + " is over");
    close_front();
    core_.front.demoted();
    core_.rounds.want();
    core_.again();
}

// ---- front end

void Authority::open_front(std::uint64_t epoch, const std::string& secret) {
    if (front_ && front_->epoch == epoch && front_->secret == secret) return;
    if (front_) close_front();
    front_ = Front{epoch, secret};
    core_.emit(ServeFront{epoch, secret});
}

void Authority::close_front() {
    core_.emit(StopFront{front_->epoch});
    front_.reset();
    core_.front.early_refused();
}

// The destination of a handover is where a guest already connects (0011). It may be told something only once
// the record names this node as the owner: until then it is a secondary like any other.
void Authority::follow_handover() {
    if (role_ == Role::primary) return;
    const auto& handover = record().handover;
    const bool here = handover && handover->node == core_.config.node &&
                      handover->incarnation == core_.config.incarnation && problem_.empty() && current();
    if (here) {
        if (!front_) core_.notice(NoticeKind::handover, "a guest may connect, and waits for its lease");
        return open_front(handover->epoch, handover->secret);
    }
    if (!front_) return;
    const bool granted = owned_epoch() == front_->epoch && record().owner->secret == front_->secret;
    if (granted) return;
    core_.notice(NoticeKind::handover, "withdrawn");
    close_front();
}

// ---- freeze

FreezeReason Authority::frozen() const {
    if (role_ != Role::primary)
        return copy_is_elsewhere() ? FreezeReason::disk_lost : FreezeReason::not_primary;
    if (core_.local_failed() && !over_network()) return FreezeReason::local_failed;
    if (over_network() && core_.front.disk_lost()) return FreezeReason::disk_lost;
    if (!core_.lease.valid()) return FreezeReason::lease_lapsed;
    if (peer_needed() && !core_.session.mirrored()) {
        return core_.session.up() ? FreezeReason::handshake : FreezeReason::peer_lost;
    }
    if (over_network()) return FreezeReason::none;
    return current() ? FreezeReason::none : FreezeReason::metadata;
}

// The owner of this life, whose process is another than the one whose disk failed: both compared, and the
// peer must go on. Only who owns may say so to the store while the owner's node lives, and this one cannot
// serve.
bool Authority::copy_is_elsewhere() const {
    return owned_epoch() != 0 && core_.session.must_be_left();
}

bool Authority::may_acknowledge() const {
    return frozen() == FreezeReason::none;
}

bool Authority::may_read() const {
    if (role_ != Role::primary || !core_.lease.valid()) return false;
    return over_network() || (!core_.local_failed() && self_in_ack_set());
}

bool Authority::over_network() const {
    if (!core_.local_failed() || !other_in_ack_set() || self() == nullptr) return false;
    return !self()->in_ack_set || mutant("network_before_failed_committed");
}

void Authority::check_frozen() {
    const FreezeReason reason = frozen();
    if (reason == told_frozen_) return;
    const bool thawed = reason == FreezeReason::none;
    told_frozen_ = reason;
    core_.notice(thawed ? NoticeKind::thawed : NoticeKind::frozen, std::string(to_string(reason)));
    core_.again();
}

// ---- epochs

void Authority::refuse_epoch(std::uint64_t epoch) {
    refusing_ = std::max(refusing_, epoch);
    refusal_asked_ = true;
    core_.again();
}

void Authority::answer_refusal() {
    if (!refusal_asked_) return;
    core_.metadata.edit(
        [&](formats::Superblock& s) { s.refused_epoch = std::max(s.refused_epoch, refusing_); });
    // A failed disk keeps nothing; it is not needed either: a Failed replica is never current again, here or
    // in a later process, so it serves no epoch, and could not be moved away from otherwise.
    const bool durable = core_.metadata.stable().refused_epoch >= refusing_ || core_.local_failed();
    if (!durable && !mutant("epoch_refused_not_durable")) return;
    refusal_asked_ = false;
    core_.emit(EpochRefused{refusing_});
}

// A disk that cannot even be attached keeps nothing. Its own life's epoch may be given back all the same:
// this process never served it, a later one would need a fresh lease for it. So may any epoch by a replica
// outside the ack set, of which nobody is promoted. A survivor in the ack set must not: another's lease ends
// by what it keeps.
void Authority::pump_unattached() {
    if (!refusal_asked_ || !committed_) return;
    const auto& owner = record().owner;
    const bool own = owner && owner->node == core_.config.node &&
                     owner->incarnation == core_.config.incarnation && owner->epoch == refusing_;
    const bool counts = std::ranges::any_of(record().replicas, [this](const ReplicaRecord& replica) {
        return replica.node == core_.config.node && replica.in_ack_set;
    });
    if (counts && !own) return;
    refusal_asked_ = false;
    core_.emit(EpochRefused{refusing_});
}

void Authority::peer_proven_down(const Incarnation& incarnation) {
    proven_down_ = incarnation;
    core_.again();
}

void Authority::pump() {
    if (!core_.attached()) return;
    answer_refusal();
    if (!committed_) return;
    if (self() == nullptr) {
        problem_ = "this replica is not in the cluster's record of the volume";
    } else {
        adopt();
    }
    if (role_ == Role::primary && !may_stay_primary()) demote();
    if (role_ == Role::secondary && may_become_primary()) promote();
    follow_handover();
    consider_proposal();
    check_frozen();
}

}  // namespace gemel::replication
