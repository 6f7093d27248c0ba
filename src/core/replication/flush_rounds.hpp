// FlushRounds: making everything completed so far stable on every replica writes go to, one round at a time.
// Guest flushes, FUA writes and the retiring of intent extents all wait for "the next round": one that begins
// after they asked, so it covers every write completed before, on any queue (D14). Extents count as settled
// up to settled().
//
//   idle --wanted, replicas reachable--> running --own flush ok and peer's ack--> idle (settled := its id)
//                                           | session lost: waits; resumed: asked again; peer left: own part
//                                           counts
#pragma once

#include <cstdint>

#include "core/replication/active_extents.hpp"
#include "core/replication/interface.hpp"

namespace gemel::replication {

class Core;

class FlushRounds {
  public:
    static constexpr std::uint64_t kRequestBit = 1ULL << 63;  // request numbers of rounds among the peer's

    explicit FlushRounds(Core& core) : core_(core) {}
    // The round that covers everything completed until now.
    RoundId want() {
        wanted_ = true;
        return next_;
    }
    RoundId next() const { return next_; }
    RoundId settled() const { return settled_; }
    bool running() const { return running_; }
    void pump();
    void local_flushed();
    void peer_ack(const AckMessage& ack);
    void peer_resumed();  // same peer process, new session: ask again
    void peer_gone();     // it left: its part is not waited for

  private:
    void start();
    void ask_peer();
    void finish_if_done();

    Core& core_;
    RoundId next_ = 1;
    RoundId settled_ = 0;
    bool wanted_ = false;
    bool running_ = false;
    bool local_done_ = false;
    bool peer_done_ = false;
};

}  // namespace gemel::replication
