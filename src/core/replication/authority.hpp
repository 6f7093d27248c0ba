// Authority: who may do what, from the committed record alone. It keeps the newest record, brings the
// superblock after it (never before), derives role and freeze from stable facts, and makes the three
// proposals.
//
//   role:      secondary --owner is me, epoch durable, replica current, peer answered for, lease--> primary
//              primary --other owner, other epoch, epoch refused, out of the ack set--> secondary
//   front end: none --promoted, or a handover to here--> open --demoted, handover withdrawn--> none
//   proposal:  none --wanted--> outstanding --committed/refused/unknown--> none (refused, unknown: again
//   after a pause)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/replication/interface.hpp"

namespace gemel::replication {

class Core;

class Authority {
  public:
    explicit Authority(Core& core) : core_(core) {}

    // -- inputs
    void offer(const CommittedVolume& committed);
    void proposal_done(const ProposalDone& done);
    void refuse_epoch(std::uint64_t epoch);
    void peer_proven_down(const Incarnation& incarnation);
    // any word from that incarnation voids all proof against it
    void peer_heard(const Incarnation& incarnation) {
        if (proven_down_ == incarnation) proven_down_.reset();
    }
    void pump();
    // this process will never attach
    void pump_unattached();

    // -- facts
    bool has_record() const { return committed_.has_value(); }
    const CommittedVolume& committed() const { return *committed_; }
    const VolumeRecord& record() const { return committed_->record; }
    std::uint64_t revision() const { return committed_ ? committed_->revision : 0; }
    const ReplicaRecord* self() const;
    const ReplicaRecord* other() const;
    bool self_in_ack_set() const;
    bool other_in_ack_set() const;
    // The superblock on disk is at the record's generation and this replica is in the ack set with sound
    // data.
    bool current() const;
    // The superblock needs no change to follow the record, and what it needed is stable.
    bool adopted() const;

    Role role() const { return role_; }
    std::uint64_t served_epoch() const { return role_ == Role::primary ? served_epoch_ : 0; }
    // the epoch the record grants this incarnation of this node; 0: none
    std::uint64_t owned_epoch() const;
    // The front end that is open for a handover to this node, before its epoch is granted: what it is asked
    // waits. 0: none
    std::uint64_t incoming_epoch() const { return role_ == Role::secondary && front_ ? front_->epoch : 0; }
    // Not refused, and not older than one accepted here.
    bool accepts(std::uint64_t epoch) const;
    // Acknowledgements need the other replica: it is in the committed ack set, or a join of it is undecided.
    bool peer_needed() const;
    FreezeReason frozen() const;
    bool may_acknowledge() const;
    bool may_read() const;
    // The own disk failed and that is committed, with the peer as the ack set's only member: the guest goes
    // on through it (K2).
    bool over_network() const;
    const std::string& problem() const { return problem_; }

    Instant next_deadline() const;

  private:
    static constexpr Duration kRetry = milliseconds(200);
    bool newer(const CommittedVolume& committed) const;
    void adopt();
    void adopt_generation();
    void follow_membership();
    bool may_become_primary() const;
    bool may_stay_primary() const;
    void promote();
    void demote();
    bool copy_is_elsewhere() const;
    void open_front(std::uint64_t epoch, const std::string& secret);
    void close_front();
    void follow_handover();
    bool may_propose() const;
    bool leave_wanted() const;
    void consider_proposal();
    void propose(ProposalKind kind);
    VolumeRecord next_record(ProposalKind kind);
    void check_frozen();
    void answer_refusal();

    Core& core_;
    std::optional<CommittedVolume> committed_;
    std::vector<LineageId> former_lineages_;
    Role role_ = Role::secondary;
    std::uint64_t served_epoch_ = 0;
    struct Front {
        std::uint64_t epoch = 0;
        std::string secret;
    };
    std::optional<Front> front_;  // open: of the epoch that is served, or of a handover
    std::optional<std::uint64_t>
        crashed_epoch_;  // served by the process before this one, which did not close it
    FreezeReason told_frozen_ = FreezeReason::not_primary;
    std::uint64_t next_proposal_ = 1;
    std::uint64_t outstanding_ = 0;
    Instant retry_at_{};
    std::uint64_t refusing_ = 0;  // in memory at once; answered when stable
    bool refusal_asked_ = false;
    bool peer_counts_ = false;
    std::uint64_t record_number_ = 0;  // of the records taken over, to see that one is new
    std::uint64_t adopted_record_ = 0;
    std::uint64_t adopted_version_ = 0;
    std::optional<Incarnation> proven_down_;
    std::string problem_;
};

std::string_view to_string(FreezeReason reason) noexcept;

}  // namespace gemel::replication
