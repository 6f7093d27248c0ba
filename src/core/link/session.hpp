// Session: one ordered, exactly-once stream of messages between the two engines of a volume, over a changing
// set of connections (one per link). Sequence numbers belong to the session, never to a connection: what was
// sent over a dead connection and is not acknowledged goes out again over another, duplicates are dropped,
// order is restored here.
//
// A session is the pair (process, counter) of both sides. A side that leaves by its own decision (time, the
// engine's drop, the bound on what is outstanding) raises its counter and closes its connections, so that a
// session that was left can never be entered again; a side that sees a higher counter or another process
// leaves without raising.
//
//        no session ──hello of both──► in session ──loss / drop / other process or counter──► no session
//        (PeerDown)
//
// Half-open peers are found by progress: no frame at all for `link_loss`, or something outstanding for that
// long without any acknowledgement, ends the session; a single connection without a frame for that long is
// closed. Pure: bytes of payloads never pass through (handles do); connecting, sockets and checksums of
// payloads are the driver's. Not in it: TLS, what the messages mean.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/instant.hpp"
#include "core/link/wire.hpp"
#include "core/replication/interface.hpp"

namespace gemel::link {

using ConnectionId = std::uint64_t;
using replication::kNoPayload;
using replication::PayloadHandle;

struct SessionConfig {
    ClusterId cluster;
    VolumeId volume;
    ReplicaId replica;
    std::string node;
    std::string peer_node;
    Incarnation incarnation;
    SessionId process;
    Duration heartbeat = milliseconds(250);
    Duration link_loss = milliseconds(2000);
    std::size_t max_outstanding = 8192;  // frames sent and not acknowledged; beyond it the session is left
    std::size_t max_reordered = 4096;    // frames received ahead of a gap
};

// Send header and body (bytes valid during the step only) and then the payload, as one frame.
struct SendFrame {
    ConnectionId connection = 0;
    std::vector<std::byte> head;
    PayloadHandle payload = kNoPayload;
    std::uint32_t payload_bytes = 0;
};
struct CloseConnection {
    ConnectionId connection = 0;
    std::string reason;
};
// A payload given to send() is not needed here any more.
struct PayloadSent {
    PayloadHandle payload = kNoPayload;
};
using SessionOutput = std::variant<SendFrame, CloseConnection, PayloadSent, replication::PeerUp,
                                   replication::PeerDown, replication::PeerMessageIn>;
using SessionOutputs = std::vector<SessionOutput>;

class Session {
  public:
    explicit Session(SessionConfig config);

    // A connection of any link is open, in either direction.
    void connected(Instant now, ConnectionId connection, SessionOutputs& out);
    void disconnected(Instant now, ConnectionId connection, SessionOutputs& out);
    // A whole frame whose checksums the driver found right. `payload` is handed on inside PeerMessageIn; a
    // frame that is dropped gives it back as PayloadSent.
    void received(Instant now, ConnectionId connection, const FrameHeader& header,
                  std::span<const std::byte> body, PayloadHandle payload, SessionOutputs& out);
    // The message goes out in order. Outside a session it is dropped (its payload is given back): the engine
    // has been or will be told by PeerDown. `session` is the one the engine believes in.
    void send(Instant now, SessionId session, const replication::PeerMessage& message, PayloadHandle payload,
              std::uint32_t payload_crc, SessionOutputs& out);
    // The engine leaves; stay_away refuses the peer until allow().
    void drop(Instant now, SessionId session, const std::string& reason, bool stay_away, SessionOutputs& out);
    void allow();
    void tick(Instant now, SessionOutputs& out);
    Instant next_deadline() const;

    bool in_session() const { return current_.has_value(); }
    bool wants_connections() const { return !stay_away_; }
    std::size_t outstanding() const { return outbox_.size(); }
    // why the peer was refused or left last; empty while all is well
    const std::string& problem() const { return problem_; }

  private:
    struct Connection {
        ConnectionId id = 0;
        std::optional<Hello> peer_hello;
        Instant last_received;
        Instant last_sent;
        std::uint64_t bytes_outstanding = 0;
    };
    struct Outgoing {
        std::uint64_t sequence = 0;
        FrameType type = FrameType::state;
        std::vector<std::byte> body;
        PayloadHandle payload = kNoPayload;
        std::uint32_t payload_bytes = 0;
        std::uint32_t payload_crc = 0;
        ConnectionId connection = 0;  // carried by; 0: by none yet
    };
    struct Incoming {
        replication::PeerMessage message;
        PayloadHandle payload = kNoPayload;
    };
    struct Current {
        SessionId id;
        Hello peer;
        std::uint64_t peer_next_expected = 1;
    };

    Connection* find(ConnectionId id);
    Hello own_hello() const;
    void greet(Instant now, Connection& connection, SessionOutputs& out);
    void on_hello(Instant now, Connection& connection, const Hello& hello, SessionOutputs& out);
    std::string refusal(const Hello& hello) const;
    void refuse(Connection& connection, const std::string& reason, SessionOutputs& out);
    void enter(Instant now, const Hello& hello, SessionOutputs& out);
    void leave(bool own_decision, const std::string& reason, ConnectionId keep, SessionOutputs& out);
    void close(ConnectionId id, const std::string& reason, SessionOutputs& out);
    void acknowledge(std::uint64_t up_to, Instant now, SessionOutputs& out);
    void on_message(Instant now, const FrameHeader& header, std::span<const std::byte> body,
                    PayloadHandle payload, Connection& connection, SessionOutputs& out);
    void deliver_in_order(SessionOutputs& out);
    void transmit(Instant now, Outgoing& outgoing, SessionOutputs& out);
    void transmit_waiting(Instant now, SessionOutputs& out);
    void send_progress(Instant now, Connection& connection, SessionOutputs& out);
    Connection* best_connection();
    bool bound_to_current(const Connection& connection) const;
    void give_back(PayloadHandle payload, SessionOutputs& out);

    SessionConfig config_;
    std::uint64_t counter_ = 1;
    bool stay_away_ = false;
    std::string problem_;
    std::vector<Connection> connections_;
    std::optional<Current> current_;
    std::optional<Hello> last_peer_;  // highest counter seen of the peer's process
    std::deque<Outgoing> outbox_;     // unacknowledged, by sequence
    std::uint64_t next_sequence_ = 1;
    std::uint64_t next_expected_ = 1;
    std::uint64_t acknowledged_to_peer_ = 0;
    std::map<std::uint64_t, Incoming> ahead_;  // received ahead of next_expected_
    Instant last_received_;
    Instant last_progress_;  // the outbox was empty, or something of it was acknowledged
};

}  // namespace gemel::link
