// PeerLink: the session between the two engines of a volume, as core/link gives it to them: a pair of process
// lives, messages in order and exactly once inside a session, nothing of an earlier session after a new one
// began. What may go wrong: each side learns of the end at its own time, what was under way may arrive or not
// (always a prefix), a side that gets nothing for the link-loss time gives up, a reset tells both at once, a
// cut tells nobody.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "base/ids.hpp"
#include "base/prng.hpp"
#include "core/replication/messages.hpp"
#include "sim/world/event_queue.hpp"
#include "sim/world/network.hpp"
#include "sim/world/payload.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

// What one process says about itself when it connects.
struct PeerIdentity {
    ReplicaId replica;
    Incarnation incarnation;
    SessionId process;
};

class PeerClient {
  public:
    virtual void peer_up(SessionId session, const PeerIdentity& peer) = 0;
    virtual void peer_down(SessionId session) = 0;
    // `stamps` is the payload, empty for messages without one
    virtual void peer_message(SessionId session, const replication::PeerMessage& message,
                              const std::vector<Stamp>& stamps) = 0;

  protected:
    ~PeerClient() = default;
};

class PeerLink final : public EventSink {
  public:
    PeerLink(EventQueue& queue, Trace& trace, Network& network, Prng random);

    // -- a process's side (node 0 or 1)
    void attach(std::uint32_t node, PeerClient& client, const PeerIdentity& identity);
    void send(std::uint32_t node, SessionId session, const replication::PeerMessage& message,
              std::vector<Stamp> stamps);
    void drop(std::uint32_t node, SessionId session, bool stay_away);
    void allow(std::uint32_t node);  // ends stay_away

    // -- the world's side
    void process_died(std::uint32_t node);   // the kernel resets its connections: the peer hears of it
    void host_vanished(std::uint32_t node);  // nothing gets out: the peer finds out by time
    void pause(std::uint32_t node, bool paused);
    void reset();  // a middle box, or a frame that failed its checksum: both hear of it
    // the next frame to arrive anywhere fails its checksum (N5): it is not delivered, both ends hear of it
    bool corrupt();
    // the versions that node's process speaks: without a common one there is no session (N6)
    void set_protocol(std::uint32_t node, std::uint32_t version) { protocols_[node] = version; }
    bool up(std::uint32_t node) const { return sides_[node].up; }
    std::uint64_t sessions() const { return sessions_; }
    std::uint64_t delivered() const { return delivered_; }

    void on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t b) override;

  private:
    enum Kind : std::uint32_t { kTryConnect, kOpen, kDeliver, kCheckSilence, kDown };
    struct Packet {
        replication::PeerMessage message;
        std::vector<Stamp> stamps;
        Instant arrives;
        bool held = false;  // still in its sender's buffer, because the links are cut
    };
    struct Side {
        PeerClient* client = nullptr;
        PeerIdentity identity;
        bool opening = false;  // the session exists, this side was not told yet
        bool up = false;
        bool paused = false;
        bool stay_away = false;
        bool down_wanted = false;  // told to go down while paused
        std::uint64_t session = 0;
        std::deque<Packet> incoming;
        bool deliver_scheduled = false;
        Instant last_arrival{0};
        bool ends_after_queue = false;  // the sender is gone: what arrives is a prefix, then the end
    };
    static SessionId session_id(std::uint64_t number);
    bool healthy() const;
    void network_changed();
    void forget(std::uint32_t node);
    void try_connect();
    void connect();
    void open(std::uint32_t node, std::uint64_t session);
    void schedule_delivery(std::uint32_t node);
    void deliver(std::uint32_t node);
    void end_side(std::uint32_t node);
    void peer_hears(std::uint32_t node, Duration delay);

    EventQueue& queue_;
    Trace& trace_;
    Network& network_;
    Prng random_;
    std::array<Side, 2> sides_;
    std::array<std::uint32_t, 2> protocols_{1, 1};
    std::uint64_t sessions_ = 0;
    std::uint64_t delivered_ = 0;
    bool connect_scheduled_ = false;
    bool was_healthy_ = true;
    std::uint64_t outage_ = 0;  // number of the outage that a silence check belongs to
};

}  // namespace gemel::sim
