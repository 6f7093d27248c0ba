#include "core/replication/peer_session.hpp"

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/core.hpp"

namespace gemel::replication {

Instant PeerSession::core_now() const {
    return core_.now;
}

void PeerSession::enter(Phase next) {
    const bool legal = next == Phase::down || (phase_ == Phase::down && next == Phase::exchanging) ||
                       (phase_ == Phase::exchanging && next == Phase::connected);
    INVARIANT(legal, "a session moves along its chart");
    if (next == phase_) return;
    phase_ = next;
    constexpr const char* kNames[] = {"connecting", "handshake", "connected"};
    core_.notice(NoticeKind::connection_changed, standalone_ ? "standalone" : kNames[static_cast<int>(next)]);
    core_.again();
}

ConnectionState PeerSession::connection() const {
    if (standalone_) return ConnectionState::standalone;
    switch (phase_) {
        case Phase::down: return ConnectionState::connecting;
        case Phase::exchanging: return ConnectionState::handshake;
        case Phase::connected: return ConnectionState::connected;
    }
    return ConnectionState::connecting;
}

bool PeerSession::mirrored() const {
    if (!connected() || !agreed_) return false;
    return *agreed_ == Verdict::no_resync || *agreed_ == Verdict::diskless || core_.source.mirroring();
}

bool PeerSession::serves_reads() const {
    return connected() && agreed_ && peer_.serves_reads &&
           (*agreed_ == Verdict::no_resync || *agreed_ == Verdict::diskless);
}

bool PeerSession::may_serve_reads() const {
    return connected() && agreed_ && (*agreed_ == Verdict::no_resync || *agreed_ == Verdict::peer_diskless);
}

bool PeerSession::named_source() const {
    if (!agreed_) return false;
    return *agreed_ == Verdict::leave_then_source || *agreed_ == Verdict::source_bitmap ||
           *agreed_ == Verdict::source_full;
}

// ---- life

void PeerSession::peer_up(const PeerUp& up) {
    if (this->up()) lost();
    id_ = up.session;
    peer_ = up;
    if (core_.local_failed() && !failed_disk_has_a_say()) {
        core_.emit(PeerDrop{up.session, "own disk failed", true});
        id_ = SessionId{};
        return;
    }
    standalone_ = false;
    problem_.clear();
    core_.authority.peer_heard(up.incarnation);
    overdue_at_ = core_.now + kHandshakeBound;
    enter(Phase::exchanging);
}

// With a failed disk the peer is needed for two things only: to serve this node's guest over the network;
// and, while the record still counts this disk and the peer's, to hear of it, since only who has a current
// disk may propose that this one leaves.
bool PeerSession::failed_disk_has_a_say() const {
    const Authority& authority = core_.authority;
    if (!authority.has_record() || (authority.self_in_ack_set() && authority.other_in_ack_set())) return true;
    return authority.role() == Role::primary && peer_.serves_reads;
}

void PeerSession::peer_down(const PeerDown& down) {
    if (up() && down.session == id_) lost();
}

void PeerSession::drop(const std::string& reason, bool stay_away) {
    if (!up()) return;
    core_.emit(PeerDrop{id_, reason, stay_away});
    if (!stay_away) grace_until_ = core_.now + kGrace;
    lost();
}

// The peer did not carry out what it was sent. Whatever the reason, it does not count as having it.
void PeerSession::peer_refused(AckStatus status) {
    if (status == AckStatus::io_error) {
        core_.notice(NoticeKind::disk_error, "the peer's disk failed");
        if (core_.authority.over_network()) core_.front.only_copy_failed();
        drop("peer reported a disk error");
        grace_until_ = Instant{};
        return;
    }
    core_.emit(NeedRecord{core_.authority.revision() + 1});
    drop(status == AckStatus::refused_epoch ? "peer refused the epoch" : "peer is at another generation");
}

void PeerSession::stand_alone(const std::string& why, NoticeKind kind) {
    standalone_ = true;
    problem_ = why;
    core_.notice(kind, why);
    drop(why, true);
}

void PeerSession::lost() {
    enter(Phase::down);
    id_ = SessionId{};
    sent_state_.reset();
    peer_state_.reset();
    own_verdict_.reset();
    peer_verdict_.reset();
    agreed_.reset();
    core_.lease.session_lost();
    core_.source.session_lost();
    core_.target.session_lost();
    core_.join.session_lost();
    if (core_.attached() && core_.authority.has_record() && !core_.authority.peer_needed()) {
        // It was not counted: go on without it; what it may not have is tracked.
        core_.extents->spill_unsettled(core_.rounds.settled());
        core_.rounds.peer_gone();
        core_.front.peer_gone();
    }
}

// ---- comparing

HandshakeState PeerSession::own_state() const {
    const formats::Superblock& known = core_.metadata.stable();
    HandshakeState s;
    s.replica = known.replica;
    s.incarnation = core_.config.incarnation;
    s.process = core_.config.process;
    s.size_bytes = known.size_bytes;
    s.state = core_.local_failed() ? ReplicaState::failed : known.state;
    s.generation = known.generation;
    s.ancestors = known.ancestors;
    s.in_own_ack_set = known.in_ack_set;
    s.peer_in_own_ack_set = known.peer_in_ack_set;
    s.join_pending = known.join_pending;
    s.tracked_peer = known.tracked_peer;
    s.tracked_since = known.tracked_since;
    s.dirty_bytes = core_.bitmap->dirty_blocks() * kBlockBytes;
    s.unsettled_bytes = core_.extents->unsettled_bytes(core_.rounds.settled());
    s.writer_crashed = core_.attach.writer_crashed();
    s.outlived_process = core_.config.outlived_io_possible && known.complete_in == core_.config.incarnation;
    s.epoch_floor = known.refused_epoch;
    s.granted_epoch = known.granted_epoch;
    s.known_peer_incarnation = known_incarnation_;
    s.known_peer_process = known_process_;
    s.record_revision = core_.authority.revision();
    s.record_lineage = core_.authority.committed().lineage;
    return s;
}

void PeerSession::send_state() {
    sent_state_ = own_state();
    compared_ = core_.authority.committed();
    own_verdict_.reset();
    agreed_.reset();
    core_.emit(PeerSend{id_, StateMessage{*sent_state_}});
    evaluate();
}

// What is sent must stay true while it is compared: the superblock has followed the record, stably, first.
void PeerSession::pump() {
    if (phase_ == Phase::connected && agreed_ == Verdict::diskless && core_.authority.role() != Role::primary)
        drop("own disk failed", true);
    if (phase_ != Phase::exchanging || !core_.attached() || !core_.authority.has_record()) return;
    // A failed disk's superblock follows nothing any more; what counts is what the record says of it.
    if (core_.local_failed() && !failed_disk_has_a_say()) return drop("own disk failed", true);
    if (!core_.local_failed() && !core_.metadata.is_stable()) return;
    const ReplicaState state = core_.local_failed() ? ReplicaState::failed : core_.metadata.stable().state;
    const bool stale = !sent_state_ || sent_state_->record_revision != core_.authority.revision() ||
                       sent_state_->record_lineage != core_.authority.committed().lineage ||
                       sent_state_->state != state ||
                       sent_state_->generation != core_.metadata.stable().generation;
    if (stale) send_state();
}

void PeerSession::state_message(const StateMessage& message) {
    if (phase_ == Phase::down) return;
    if (phase_ == Phase::connected) {
        drop("peer compares again");
        return;
    }
    peer_state_ = message.state;
    peer_verdict_.reset();
    agreed_.reset();
    own_verdict_.reset();
    if (core_.authority.has_record() && message.state.record_lineage == core_.authority.committed().lineage) {
        const std::uint64_t known = core_.authority.revision();
        if (message.state.record_revision > known) core_.emit(NeedRecord{message.state.record_revision});
        if (message.state.record_revision < known) core_.emit(PeerSend{id_, RecordHintMessage{known}});
    }
    evaluate();
}

void PeerSession::record_hint(const RecordHintMessage& hint) {
    if (hint.revision > core_.authority.revision()) core_.emit(NeedRecord{hint.revision});
}

void PeerSession::evaluate() {
    if (phase_ != Phase::exchanging || !sent_state_ || !peer_state_) return;
    if (peer_state_->replica != peer_.replica) {
        stand_alone("the peer speaks for another replica than its connection", NoticeKind::refused);
        return;
    }
    announce(verdict(*sent_state_, *peer_state_, compared_));
    conclude();
}

void PeerSession::announce(Verdict verdict) {
    own_verdict_ = verdict;
    core_.notice(NoticeKind::verdict, std::string(to_string(verdict)));
    core_.emit(
        PeerSend{id_, VerdictMessage{static_cast<std::uint8_t>(verdict), sent_state_->record_revision}});
    if (verdict == Verdict::split_brain) {
        problem_ = "split brain: each side has writes the other lacks; an operator must choose";
        core_.notice(NoticeKind::split_brain, problem_);
    } else if (verdict == Verdict::foreign) {
        problem_ = "the peer's replica does not belong to this volume, or has another size";
        core_.notice(NoticeKind::refused, problem_);
    } else if (verdict == Verdict::no_source) {
        problem_ = "no replica here is current: waiting for the one that is, or for an operator";
    } else {
        problem_.clear();
        if (verdict == Verdict::wait_record) core_.emit(NeedRecord{core_.authority.revision()});
    }
}

void PeerSession::verdict_message(const VerdictMessage& message) {
    if (phase_ != Phase::exchanging) return;
    peer_verdict_ = message;
    conclude();
}

void PeerSession::conclude() {
    if (phase_ != Phase::exchanging || !own_verdict_ || !peer_verdict_) return;
    if (sent_state_->record_revision != core_.authority.revision())
        return;  // compare again, with the newer record
    if (peer_verdict_->record_revision != sent_state_->record_revision &&
        *own_verdict_ != Verdict::split_brain)
        return;
    if (peer_verdict_->verdict != static_cast<std::uint8_t>(replication::mirrored(*own_verdict_))) return;
    agreed_ = own_verdict_;
    switch (*agreed_) {
        case Verdict::split_brain: stand_alone(problem_, NoticeKind::refused); return;
        case Verdict::foreign: stand_alone(problem_, NoticeKind::refused); return;
        case Verdict::wait_record:
        case Verdict::no_source: core_.again(); return;
        case Verdict::leave_then_source:
        case Verdict::leave_then_target:
            if (mutant("resync_before_leave_committed")) return connect();
            core_.again();
            return;
        case Verdict::no_resync:
        case Verdict::source_bitmap:
        case Verdict::source_full:
        case Verdict::target_bitmap:
        case Verdict::target_full:
        case Verdict::peer_diskless:
        case Verdict::diskless: connect(); return;
    }
}

void PeerSession::connect() {
    // Nothing of what the guest was told and has not flushed can be sent again from here (rule 7).
    const bool rebooted = !known_process_.is_nil() && known_incarnation_ != peer_.incarnation;
    if (rebooted && *agreed_ == Verdict::diskless) core_.front.only_copy_rebooted();
    known_incarnation_ = peer_.incarnation;
    known_process_ = peer_.process;
    generation_counter_ = compared_.record.generation.counter;
    generation_ = compared_.record.generation.id;
    enter(Phase::connected);
    overdue_at_ = Instant::never();
    if (*agreed_ == Verdict::peer_diskless) {
        mark_complete();
        return;
    }
    if (*agreed_ == Verdict::no_resync || *agreed_ == Verdict::diskless) {
        if (*agreed_ == Verdict::no_resync) mark_complete();
        core_.rounds.peer_resumed();
        core_.front.peer_resumed();
        return;
    }
    const bool full = *agreed_ == Verdict::source_full || *agreed_ == Verdict::target_full;
    if (named_source()) {
        core_.source.begin(full);
    } else {
        core_.target.begin(full);
    }
}

// From here on this replica has every acknowledged write; a reboot ends that.
void PeerSession::mark_complete() {
    core_.metadata.edit([&](formats::Superblock& s) { s.complete_in = core_.config.incarnation; });
}

void PeerSession::joined() {
    INVARIANT(connected(), "a join is made within a session");
    agreed_ = Verdict::no_resync;
    mark_complete();
    core_.front.peer_joined();
    core_.again();
}

// A connected session holds for one generation: when the ack set lost a member, both compare anew.
void PeerSession::record_changed() {
    if (connected() && core_.authority.record().generation.id != generation_) drop("the generation changed");
}

Instant PeerSession::next_deadline() const {
    Instant next = phase_ == Phase::exchanging && overdue_at_ > core_.now ? overdue_at_ : Instant::never();
    if (phase_ == Phase::down && grace_until_ > core_.now) next = std::min(next, grace_until_);
    return next;
}

}  // namespace gemel::replication
