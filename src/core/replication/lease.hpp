// Lease: how long this node may serve the epoch it owns (rule 8). Grows only from the *sending* time of a
// question that was answered: a heartbeat the peer acknowledged without refusing, or a linearizable store
// read that showed the same owner and epoch, not revoking. When it ends, serving freezes; a fresh answer
// resumes it.
//
//   none --owner granted, renewed--> valid <--renewed / lapsed--> lapsed ; owner or epoch changed: back to
//   none
#pragma once

#include <array>
#include <cstdint>

#include "core/replication/interface.hpp"

namespace gemel::replication {

class Core;

class Lease {
  public:
    explicit Lease(Core& core) : core_(core) {}

    bool valid() const;
    Instant until() const { return until_; }
    std::uint64_t epoch() const { return epoch_; }
    // The peer answered for this epoch in this session: what it had in flight under an older one is settled.
    bool peer_answered() const { return peer_answered_; }
    void pump();
    void store_renewal(const StoreRenewal& renewal);
    void heartbeat_ack(const HeartbeatAckMessage& ack);
    void session_lost();
    Instant next_deadline() const;

  private:
    static constexpr std::uint64_t kRemembered = 64;  // heartbeats without an answer
    void extend(Instant sent_at);
    void send_heartbeat();

    Core& core_;
    std::uint64_t epoch_ = 0;
    Instant until_{};
    Instant announced_{};
    bool lapse_told_ = true;
    bool peer_answered_ = false;
    std::uint64_t number_ = 0;
    std::array<Instant, kRemembered> sent_{};
    std::uint64_t oldest_of_session_ = 1;  // numbers below it were sent in an earlier session
    Instant next_heartbeat_{};
};

}  // namespace gemel::replication
