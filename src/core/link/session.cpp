#include "core/link/session.hpp"

#include <algorithm>
#include <array>

#include "base/bytes.hpp"
#include "base/checksum.hpp"
#include "base/invariant.hpp"

namespace gemel::link {
namespace {

// An acknowledgement of its own goes out when this many frames wait for one and nothing else carries it.
constexpr std::uint64_t kAcknowledgeEvery = 32;

// The same on both sides: the two (process, counter) pairs in the order of their processes.
SessionId session_id(SessionId a, std::uint64_t a_counter, SessionId b, std::uint64_t b_counter) {
    if (b < a) {
        std::swap(a, b);
        std::swap(a_counter, b_counter);
    }
    std::array<std::byte, 48> bytes{};
    ByteWriter writer(bytes);
    writer.id(a);
    writer.u64(a_counter);
    writer.id(b);
    writer.u64(b_counter);
    const Hash128 hash = hash128(bytes);
    return SessionId::from_random(hash.high, hash.low);
}

std::vector<std::byte> frame_head(FrameHeader header, std::span<const std::byte> body) {
    header.body_bytes = static_cast<std::uint32_t>(body.size());
    header.body_crc = crc32c(body);
    std::vector<std::byte> head(kHeaderBytes + body.size());
    encode_header(header, std::span<std::byte, kHeaderBytes>(head.data(), kHeaderBytes));
    std::copy(body.begin(), body.end(), head.begin() + kHeaderBytes);
    return head;
}

}  // namespace

Session::Session(SessionConfig config) : config_(std::move(config)) {}

Session::Connection* Session::find(ConnectionId id) {
    const auto found = std::find_if(connections_.begin(), connections_.end(),
                                    [id](const Connection& c) { return c.id == id; });
    return found == connections_.end() ? nullptr : &*found;
}

Hello Session::own_hello() const {
    Hello hello;
    hello.features_offered = kFeaturesKnown;
    hello.cluster = config_.cluster;
    hello.volume = config_.volume;
    hello.replica = config_.replica;
    hello.node = config_.node;
    hello.peer_node = config_.peer_node;
    hello.incarnation = config_.incarnation;
    hello.process = config_.process;
    hello.counter = counter_;
    if (current_) {
        hello.in_session = true;
        hello.session_process = current_->peer.process;
        hello.session_counter = current_->peer.counter;
        hello.next_expected = next_expected_;
    }
    return hello;
}

void Session::greet(Instant now, Connection& connection, SessionOutputs& out) {
    FrameHeader header;
    header.type = FrameType::hello;
    out.emplace_back(SendFrame{connection.id, frame_head(header, encode_hello(own_hello())), kNoPayload, 0});
    connection.last_sent = now;
}

void Session::connected(Instant now, ConnectionId id, SessionOutputs& out) {
    INVARIANT(find(id) == nullptr, "the driver numbers its connections");
    if (stay_away_) {
        out.emplace_back(CloseConnection{id, problem_});
        return;
    }
    Connection connection;
    connection.id = id;
    connection.last_received = now;
    connections_.push_back(connection);
    greet(now, connections_.back(), out);
}

void Session::disconnected(Instant now, ConnectionId id, SessionOutputs& out) {
    const auto found = std::find_if(connections_.begin(), connections_.end(),
                                    [id](const Connection& c) { return c.id == id; });
    if (found == connections_.end()) return;
    connections_.erase(found);
    for (Outgoing& outgoing : outbox_) {
        if (outgoing.connection == id) outgoing.connection = 0;
    }
    transmit_waiting(now, out);
}

std::string Session::refusal(const Hello& hello) const {
    if (hello.cluster != config_.cluster)
        return "it belongs to another cluster (" + hello.cluster.to_string() + ")";
    if (hello.volume != config_.volume) return "it serves another volume (" + hello.volume.to_string() + ")";
    if (hello.node != config_.peer_node || hello.peer_node != config_.node) {
        return "it is '" + hello.node + "' looking for '" + hello.peer_node + "', expected '" +
               config_.peer_node + "' looking for '" + config_.node +
               "': check the link addresses in node.toml";
    }
    if (hello.protocol_min > kProtocolMax || hello.protocol_max < kProtocolMin) {
        return "it speaks protocol " + std::to_string(hello.protocol_min) + " to " +
               std::to_string(hello.protocol_max) + ", this node " + std::to_string(kProtocolMin) + " to " +
               std::to_string(kProtocolMax) + ": bring both nodes to neighbouring versions";
    }
    if ((hello.features_required & ~kFeaturesKnown) != 0)
        return "it requires features this version does not have: upgrade this node";
    return {};
}

void Session::refuse(Connection& connection, const std::string& reason, SessionOutputs& out) {
    problem_ = "peer refused: " + reason;
    FrameHeader header;
    header.type = FrameType::refuse;
    const std::string text = reason.substr(0, kMaxTextBytes);
    out.emplace_back(
        SendFrame{connection.id, frame_head(header, std::as_bytes(std::span(text))), kNoPayload, 0});
    close(connection.id, problem_, out);
}

void Session::on_hello(Instant now, Connection& connection, const Hello& hello, SessionOutputs& out) {
    if (const std::string reason = refusal(hello); !reason.empty()) {
        refuse(connection, reason, out);
        return;
    }
    const bool known_process = last_peer_ && last_peer_->process == hello.process;
    if (known_process && hello.counter < last_peer_->counter) {
        close(connection.id, "a connection of a session that was left", out);
        return;
    }
    const ConnectionId id = connection.id;
    if (current_ && !known_process) {
        // A new process, or a late hello of a dead one: leave with a raised counter, so that whatever process
        // this was, no session that was left can be entered again. The next connection begins cleanly.
        leave(true, "the peer's process changed", 0, out);
        return;
    }
    if (current_ && hello.counter > last_peer_->counter)
        leave(false, "the peer began a new session", id, out);
    Connection* kept = find(id);  // leave() moved the others
    kept->peer_hello = hello;
    if (!current_) {
        enter(now, hello, out);
    } else {
        // Resumed: the peer says what it still expects, when it is in this very session; else it has nothing
        // yet.
        const bool same =
            hello.in_session && hello.session_process == config_.process && hello.session_counter == counter_;
        acknowledge(same ? hello.next_expected - 1 : 0, now, out);
    }
    transmit_waiting(now, out);
}

void Session::enter(Instant now, const Hello& hello, SessionOutputs& out) {
    Current current;
    current.id = session_id(config_.process, counter_, hello.process, hello.counter);
    current.peer = hello;
    current_ = current;
    last_peer_ = hello;
    next_sequence_ = 1;
    next_expected_ = 1;
    acknowledged_to_peer_ = 0;
    last_received_ = now;
    last_progress_ = now;
    problem_.clear();
    INVARIANT(outbox_.empty() && ahead_.empty(), "a session begins with nothing of an earlier one");
    out.emplace_back(replication::PeerUp{current.id, hello.node, hello.replica, hello.incarnation,
                                         hello.process, (hello.features_offered & kFeatureReads) != 0});
}

void Session::leave(bool own_decision, const std::string& reason, ConnectionId keep, SessionOutputs& out) {
    if (!current_) return;
    const SessionId id = current_->id;
    current_.reset();
    if (own_decision) ++counter_;
    problem_ = reason;
    for (const Outgoing& outgoing : outbox_) give_back(outgoing.payload, out);
    outbox_.clear();
    for (const auto& [sequence, incoming] : ahead_) give_back(incoming.payload, out);
    ahead_.clear();
    const std::vector<Connection> before = connections_;
    for (const Connection& connection : before) {
        if (connection.id != keep) close(connection.id, reason, out);
    }
    out.emplace_back(replication::PeerDown{id});
}

void Session::close(ConnectionId id, const std::string& reason, SessionOutputs& out) {
    std::erase_if(connections_, [id](const Connection& c) { return c.id == id; });
    for (Outgoing& outgoing : outbox_) {
        if (outgoing.connection == id) outgoing.connection = 0;
    }
    out.emplace_back(CloseConnection{id, reason});
}

void Session::acknowledge(std::uint64_t up_to, Instant now, SessionOutputs& out) {
    if (up_to >= next_sequence_) {
        leave(true, "the peer acknowledged what was never sent", 0, out);
        return;
    }
    bool progress = outbox_.empty();
    while (!outbox_.empty() && outbox_.front().sequence <= up_to) {
        const Outgoing& done = outbox_.front();
        if (Connection* carrier = find(done.connection))
            carrier->bytes_outstanding -= done.payload_bytes + done.body.size();
        give_back(done.payload, out);
        outbox_.pop_front();
        progress = true;
    }
    if (progress) last_progress_ = now;
}

bool Session::bound_to_current(const Connection& connection) const {
    return current_ && connection.peer_hello && connection.peer_hello->process == current_->peer.process &&
           connection.peer_hello->counter == current_->peer.counter;
}

void Session::received(Instant now, ConnectionId id, const FrameHeader& header,
                       std::span<const std::byte> body, PayloadHandle payload, SessionOutputs& out) {
    Connection* connection = find(id);
    if (connection == nullptr) {
        give_back(payload, out);
        return;
    }
    connection->last_received = now;
    if (header.type == FrameType::hello) {
        give_back(payload, out);
        auto hello = decode_hello(body);
        if (!hello) {
            refuse(*connection, hello.error().message, out);
            return;
        }
        on_hello(now, *connection, *hello, out);
        return;
    }
    if (header.type == FrameType::refuse) {
        give_back(payload, out);
        const auto text = body.first(std::min(body.size(), kMaxTextBytes));
        problem_ = "the peer refused this node: " +
                   std::string(reinterpret_cast<const char*>(text.data()), text.size());
        close(id, problem_, out);
        return;
    }
    if (!bound_to_current(*connection)) {
        give_back(payload, out);
        close(id, "a frame outside the session", out);
        return;
    }
    last_received_ = now;
    if (header.type == FrameType::progress) {
        give_back(payload, out);
        acknowledge(header.acknowledged, now, out);
        return;
    }
    on_message(now, header, body, payload, *connection, out);
}

void Session::on_message(Instant now, const FrameHeader& header, std::span<const std::byte> body,
                         PayloadHandle payload, Connection& connection, SessionOutputs& out) {
    const SessionId session = current_->id;
    acknowledge(header.acknowledged, now, out);
    if (!current_ || current_->id != session || header.sequence < next_expected_ ||
        ahead_.contains(header.sequence)) {
        give_back(payload, out);  // a repeat, or the acknowledgement ended the session
        return;
    }
    auto message = decode_message(header.type, body);
    const std::uint32_t carried = payload == kNoPayload ? 0 : header.payload_bytes;
    if (!message || payload_bytes(*message) != carried) {
        give_back(payload, out);
        leave(true, message ? "the peer sent a payload of the wrong length" : message.error().message, 0,
              out);
        return;
    }
    if (header.sequence - next_expected_ > config_.max_reordered) {
        give_back(payload, out);
        leave(true, "the peer sent too far ahead of a gap", 0, out);
        return;
    }
    ahead_.emplace(header.sequence, Incoming{std::move(*message), payload});
    deliver_in_order(out);
    if (next_expected_ - 1 - acknowledged_to_peer_ >= kAcknowledgeEvery) send_progress(now, connection, out);
}

void Session::deliver_in_order(SessionOutputs& out) {
    while (!ahead_.empty() && ahead_.begin()->first == next_expected_) {
        Incoming incoming = std::move(ahead_.begin()->second);
        ahead_.erase(ahead_.begin());
        ++next_expected_;
        out.emplace_back(
            replication::PeerMessageIn{current_->id, std::move(incoming.message), incoming.payload});
    }
}

void Session::send(Instant now, SessionId session, const replication::PeerMessage& message,
                   PayloadHandle payload, std::uint32_t payload_crc, SessionOutputs& out) {
    if (!current_ || current_->id != session) {
        give_back(payload, out);
        return;
    }
    if (outbox_.size() >= config_.max_outstanding) {
        give_back(payload, out);
        leave(true, "the peer does not keep up: too much is outstanding", 0, out);
        return;
    }
    if (outbox_.empty()) last_progress_ = now;
    Outgoing outgoing;
    outgoing.sequence = next_sequence_++;
    outgoing.type = frame_type(message);
    encode_message(message, outgoing.body);
    outgoing.payload = payload;
    outgoing.payload_bytes = payload_bytes(message);
    outgoing.payload_crc = payload_crc;
    INVARIANT((outgoing.payload_bytes == 0) == (payload == kNoPayload),
              "a payload comes with the messages that have one");
    outbox_.push_back(std::move(outgoing));
    transmit(now, outbox_.back(), out);
}

Session::Connection* Session::best_connection() {
    Connection* best = nullptr;
    for (Connection& connection : connections_) {
        if (!bound_to_current(connection)) continue;
        if (best == nullptr || connection.bytes_outstanding < best->bytes_outstanding) best = &connection;
    }
    return best;
}

void Session::transmit(Instant now, Outgoing& outgoing, SessionOutputs& out) {
    Connection* connection = best_connection();
    if (connection == nullptr) return;
    FrameHeader header;
    header.type = outgoing.type;
    header.payload_bytes = outgoing.payload_bytes;
    header.sequence = outgoing.sequence;
    header.acknowledged = next_expected_ - 1;
    header.payload_crc = outgoing.payload_crc;
    acknowledged_to_peer_ = next_expected_ - 1;
    outgoing.connection = connection->id;
    connection->bytes_outstanding += outgoing.payload_bytes + outgoing.body.size();
    connection->last_sent = now;
    out.emplace_back(SendFrame{connection->id, frame_head(header, outgoing.body), outgoing.payload,
                               outgoing.payload_bytes});
}

void Session::transmit_waiting(Instant now, SessionOutputs& out) {
    if (!current_) return;
    for (Outgoing& outgoing : outbox_) {
        if (outgoing.connection == 0) transmit(now, outgoing, out);
    }
}

void Session::send_progress(Instant now, Connection& connection, SessionOutputs& out) {
    FrameHeader header;
    header.type = FrameType::progress;
    header.acknowledged = next_expected_ - 1;
    acknowledged_to_peer_ = next_expected_ - 1;
    connection.last_sent = now;
    out.emplace_back(SendFrame{connection.id, frame_head(header, {}), kNoPayload, 0});
}

void Session::drop(Instant, SessionId session, const std::string& reason, bool stay_away,
                   SessionOutputs& out) {
    if (current_ && current_->id != session) return;  // the engine speaks of a session that is over
    if (stay_away) stay_away_ = true;
    leave(true, reason, 0, out);
    if (!stay_away) return;
    problem_ = reason;
    const std::vector<Connection> before = connections_;
    for (const Connection& connection : before) close(connection.id, reason, out);
}

void Session::allow() {
    stay_away_ = false;
}

void Session::tick(Instant now, SessionOutputs& out) {
    const std::vector<Connection> before = connections_;
    for (const Connection& connection : before) {
        if (now - connection.last_received >= config_.link_loss)
            close(connection.id, "no frame came over it in time", out);
    }
    if (current_ && now - last_received_ >= config_.link_loss) {
        leave(true, "no frame came from the peer in time", 0, out);
        return;
    }
    if (current_ && !outbox_.empty() && now - last_progress_ >= config_.link_loss) {
        leave(true, "the peer acknowledged nothing in time", 0, out);
        return;
    }
    transmit_waiting(now, out);
    for (Connection& connection : connections_) {
        if (bound_to_current(connection) && now - connection.last_sent >= config_.heartbeat)
            send_progress(now, connection, out);
    }
}

Instant Session::next_deadline() const {
    Instant deadline = Instant::never();
    for (const Connection& connection : connections_) {
        deadline = std::min(deadline, connection.last_received + config_.link_loss);
        if (bound_to_current(connection))
            deadline = std::min(deadline, connection.last_sent + config_.heartbeat);
    }
    if (current_) {
        deadline = std::min(deadline, last_received_ + config_.link_loss);
        if (!outbox_.empty()) deadline = std::min(deadline, last_progress_ + config_.link_loss);
    }
    return deadline;
}

void Session::give_back(PayloadHandle payload, SessionOutputs& out) {
    if (payload != kNoPayload) out.emplace_back(PayloadSent{payload});
}

}  // namespace gemel::link
