// PeerSession: the life of one session with the peer's engine, and the handshake in it.
//
//               PeerUp                  both verdicts match: no_resync, source, target
//   down ---------------> exchanging --------------------------------------------------> connected
//    ^                      |    ^  |                                                        |
//    |                      |    +--+ leave_then_*, wait_record, no_source: compare again     |
//    |                      |         when the record has moved                              |
//    +----------------------+----------------------------------------------------------------+
//      PeerDown, drop(): standalone when it was split brain or a foreign disk (an operator must act)
//
// Both sides send their state; each computes the verdict over the pair and the record both know (same lineage
// and revision, or nothing happens), announces it, and acts only when the other announced the mirror image.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/replication/interface.hpp"
#include "core/replication/verdict.hpp"

namespace gemel::replication {

class Core;

class PeerSession {
  public:
    explicit PeerSession(Core& core) : core_(core) {}

    // -- inputs
    void peer_up(const PeerUp& up);
    void peer_down(const PeerDown& down);
    void state_message(const StateMessage& message);
    void verdict_message(const VerdictMessage& message);
    void record_hint(const RecordHintMessage& hint);
    void record_changed();
    void pump();

    // -- for the other phases
    void drop(const std::string& reason, bool stay_away = false);
    void peer_refused(AckStatus status);

    bool up() const { return phase_ != Phase::down; }
    bool connected() const { return phase_ == Phase::connected; }
    // Writes and flushes go to the peer too: equal, or a resync target that has said it is ready.
    bool mirrored() const;
    // Reads may be sent to the peer: its replica is UpToDate and knows how (D12, D15).
    bool serves_reads() const;
    // Reads of the peer may be answered: this replica is UpToDate and the peer's engine has met it as such.
    bool may_serve_reads() const;
    const SessionId& id() const { return id_; }
    const Incarnation& peer_incarnation() const { return peer_.incarnation; }
    const ReplicaId& peer_replica() const { return peer_.replica; }
    const std::optional<HandshakeState>& peer_state() const { return peer_state_; }
    // generation both sides agreed on; requests of another are refused
    std::uint64_t generation_counter() const { return generation_counter_; }
    // In this session the peer has said that its disk failed.
    bool peer_disk_failed() const {
        return up() && peer_state_ && peer_state_->state == ReplicaState::failed;
    }
    bool must_leave_first() const { return agreed_ == Verdict::leave_then_source; }
    bool must_be_left() const { return agreed_ == Verdict::leave_then_target; }
    bool named_source() const;
    bool met_peer() const { return !known_process_.is_nil(); }
    bool handshake_overdue() const { return phase_ == Phase::exchanging && core_now() >= overdue_at_; }
    Instant grace_until() const { return grace_until_; }
    ConnectionState connection() const;
    const std::string& problem() const { return problem_; }
    void mark_complete();
    void joined();  // the join is committed: in sync from now on
    Instant next_deadline() const;

  private:
    enum class Phase : std::uint8_t { down, exchanging, connected };
    static constexpr Duration kHandshakeBound = milliseconds(2000);
    static constexpr Duration kGrace = milliseconds(500);

    Instant core_now() const;
    bool failed_disk_has_a_say() const;
    void enter(Phase next);
    HandshakeState own_state() const;
    void send_state();
    void evaluate();
    void announce(Verdict verdict);
    void conclude();
    void connect();
    void stand_alone(const std::string& why, NoticeKind kind);
    void lost();

    Core& core_;
    Phase phase_ = Phase::down;
    SessionId id_;
    PeerUp peer_;
    std::optional<HandshakeState> sent_state_;
    std::optional<HandshakeState> peer_state_;
    CommittedVolume compared_;  // the record sent_state_ speaks of
    std::optional<Verdict> own_verdict_;
    std::optional<VerdictMessage> peer_verdict_;
    std::optional<Verdict> agreed_;
    std::uint64_t generation_counter_ = 0;
    GenerationId generation_;
    Incarnation known_incarnation_;
    SessionId known_process_;
    Instant overdue_at_ = Instant::never();
    Instant grace_until_{};
    bool standalone_ = false;
    std::string problem_;
};

}  // namespace gemel::replication
