#include "core/replication/lease.hpp"

#include <algorithm>

#include "base/mutant.hpp"
#include "core/replication/core.hpp"

namespace gemel::replication {

bool Lease::valid() const {
    if (mutant("lease_not_checked")) return epoch_ != 0;
    return epoch_ != 0 && core_.now < until_;
}

void Lease::extend(Instant sent_at) {
    const Instant until = sent_at + core_.config.lease;
    if (until <= until_) return;
    const bool was_valid = valid();
    until_ = until;
    if (!was_valid && valid()) {
        core_.notice(NoticeKind::lease_resumed, "lease of epoch " + std::to_string(epoch_) + " is fresh");
        announced_ = Instant{};
        lapse_told_ = false;
        core_.again();
    }
    if (until_ - announced_ > core_.config.heartbeat || announced_ == Instant{}) {
        announced_ = until_;
        core_.emit(LeaseExtended{epoch_, until_});
    }
}

void Lease::store_renewal(const StoreRenewal& renewal) {
    const auto& owner = renewal.committed.record.owner;
    const bool mine =
        owner && owner->node == core_.config.node && owner->incarnation == core_.config.incarnation;
    if (mine && !owner->revoking && owner->epoch == epoch_) extend(renewal.sent_at);
}

void Lease::heartbeat_ack(const HeartbeatAckMessage& ack) {
    if (ack.epoch != epoch_ || ack.number < oldest_of_session_ || ack.number > number_) return;
    if (number_ - ack.number >= kRemembered) return;
    if (ack.refused) {
        core_.emit(NeedRecord{core_.authority.revision()});
        return;
    }
    if (!peer_answered_) core_.again();
    peer_answered_ = true;
    extend(sent_[ack.number % kRemembered]);
}

void Lease::session_lost() {
    oldest_of_session_ = number_ + 1;
    peer_answered_ = false;
}

void Lease::send_heartbeat() {
    ++number_;
    sent_[number_ % kRemembered] = core_.now;
    core_.emit(PeerSend{core_.session.id(), HeartbeatMessage{number_, epoch_}});
    next_heartbeat_ = core_.now + core_.config.heartbeat;
}

void Lease::pump() {
    const std::uint64_t owned = core_.authority.owned_epoch();
    if (owned != epoch_) {
        epoch_ = owned;
        until_ = announced_ = Instant{};
        lapse_told_ = true;
        peer_answered_ = false;
        oldest_of_session_ = number_ + 1;
        next_heartbeat_ = core_.now;
    }
    if (epoch_ == 0) return;
    if (core_.session.connected() && core_.now >= next_heartbeat_) send_heartbeat();
    if (!valid() && !lapse_told_) {
        lapse_told_ = true;
        core_.notice(NoticeKind::lease_lapsed,
                     "lease of epoch " + std::to_string(epoch_) + " ended: frozen until renewed");
    }
}

Instant Lease::next_deadline() const {
    if (epoch_ == 0) return Instant::never();
    Instant next = lapse_told_ ? Instant::never() : until_;
    if (core_.session.connected()) next = std::min(next, next_heartbeat_);
    return next;
}

}  // namespace gemel::replication
