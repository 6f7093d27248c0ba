#include "daemons/blockd/peer_link.hpp"

#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "adapters/tcp/address.hpp"
#include "base/checksum.hpp"
#include "base/invariant.hpp"

namespace gemel::blockd {
namespace {

constexpr Duration kReconnect = milliseconds(200);

}  // namespace

PeerLink::PeerLink(ring::Reactor& reactor, PeerLinkOptions options)
    : reactor_(reactor),
      options_(std::move(options)),
      session_(options_.session),
      timer_(reactor, [this] { tick(); }) {}

PeerLink::~PeerLink() {
    INVARIANT(connections_.empty(), "a link is destroyed after it stopped");
}

bool PeerLink::connects() const {
    return options_.session.node < options_.session.peer_node;
}

void PeerLink::start() {
    if (connects()) {
        for (const auto& [name, address] : options_.links) {
            const std::size_t index = links_.size();
            const std::string title = name;
            links_.push_back(Link{name,
                                  std::make_unique<tcp::Connector>(
                                      reactor_, address, [this, index](int fd) { add_connection(fd, index); },
                                      [this, title](const std::string& why) {
                                          options_.log(fmt::format("link {}: {}; trying on", title, why));
                                      }),
                                  0});
            links_.back().connector->start(Duration{});
        }
        connectors_open_ = links_.size();
    }
    arm();
}

void PeerLink::accepted(int fd) {
    if (stopping_ || !session_.wants_connections()) {
        ::close(fd);
        return;
    }
    add_connection(fd, kNoLink);
}

void PeerLink::add_connection(int fd, std::size_t link_index) {
    tcp::tune(fd, options_.session.link_loss);
    const link::ConnectionId id = next_id_++;
    if (link_index != kNoLink) links_[link_index].connection = id;
    tcp::FrameConnection::Handlers handlers;
    handlers.frame = [this, id](const link::FrameHeader& header, std::span<const std::byte> body,
                                tcp::FrameConnection::Handle payload) {
        session_.received(reactor_.now(), id, header, body, payload, outputs_);
        run(outputs_);
    };
    handlers.broken = [this, id](const std::string&) {
        session_.disconnected(reactor_.now(), id, outputs_);
        run(outputs_);
    };
    handlers.closed = [this, id] { reactor_.post([this, id] { connection_closed(id); }); };
    auto& connection =
        connections_.emplace(id, std::make_unique<tcp::FrameConnection>(reactor_, fd, std::move(handlers)))
            .first->second;
    connection->start();
    session_.connected(reactor_.now(), id, outputs_);
    run(outputs_);
}

void PeerLink::connection_closed(link::ConnectionId id) {
    connections_.erase(id);
    for (auto& each : links_) {
        if (each.connection != id) continue;
        each.connection = 0;
        if (!stopping_ && session_.wants_connections()) each.connector->start(kReconnect);
    }
    stopped_if_idle();
}

void PeerLink::reconnect() {
    for (auto& each : links_) {
        if (each.connection == 0 && each.connector->resting()) each.connector->start(Duration{});
    }
}

void PeerLink::run(link::SessionOutputs& outputs) {
    if (running_) return;  // the outermost call takes what comes in between
    running_ = true;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        // moved out: what is done here may append
        auto output = std::move(outputs[i]);
        if (auto* send = std::get_if<link::SendFrame>(&output)) {
            const auto found = connections_.find(send->connection);
            if (found != connections_.end())
                found->second->send(std::move(send->head), send->payload, send->payload_bytes);
        } else if (const auto* close = std::get_if<link::CloseConnection>(&output)) {
            const auto found = connections_.find(close->connection);
            if (found != connections_.end()) found->second->close_after_sending();
            // said once, not at every attempt
            if (close->reason != told_reason_) options_.log("link: " + close->reason);
            told_reason_ = close->reason;
        } else if (const auto* sent = std::get_if<link::PayloadSent>(&output)) {
            reactor_.buffers().release(sent->payload);
        } else if (const auto* up = std::get_if<replication::PeerUp>(&output)) {
            session_id_ = up->session;
            told_reason_.clear();
            options_.log(fmt::format("peer {} is connected", up->node));
            options_.input(*up);
        } else if (const auto* down = std::get_if<replication::PeerDown>(&output)) {
            options_.log(fmt::format("peer {} is lost: {}", options_.session.peer_node, session_.problem()));
            options_.input(*down);
        } else if (auto* message = std::get_if<replication::PeerMessageIn>(&output)) {
            options_.input(std::move(*message));
        }
    }
    outputs.clear();
    running_ = false;
    arm();
}

void PeerLink::send(const replication::PeerSend& output) {
    std::uint32_t crc = 0;
    if (output.payload != replication::kNoPayload) {
        const auto bytes = link::payload_bytes(output.message);
        crc = crc32c(reactor_.buffers().memory(output.payload).first(bytes));
        reactor_.buffers().retain(output.payload);
    }
    session_.send(reactor_.now(), output.session, output.message, output.payload, crc, outputs_);
    if (output.last_use) reactor_.buffers().release(output.payload);
    run(outputs_);
}

void PeerLink::drop(const replication::PeerDrop& output) {
    options_.log(fmt::format("peer {} is sent away: {}", options_.session.peer_node, output.reason));
    session_.drop(reactor_.now(), output.session, output.reason, output.stay_away, outputs_);
    run(outputs_);
}

void PeerLink::allow() {
    if (session_.wants_connections()) return;
    session_.allow();
    reconnect();
}

void PeerLink::tick() {
    session_.tick(reactor_.now(), outputs_);
    run(outputs_);
}

void PeerLink::arm() {
    timer_.arm(stopping_ ? Instant::never() : session_.next_deadline());
}

void PeerLink::stop(std::function<void()> stopped) {
    stopping_ = true;
    stopped_ = std::move(stopped);
    timer_.disarm();
    for (auto& each : links_) {
        each.connector->stop([this] {
            --connectors_open_;
            stopped_if_idle();
        });
    }
    // gives back the payload of what was not acknowledged
    session_.drop(reactor_.now(), session_id_, "this volume is being closed", false, outputs_);
    run(outputs_);
    for (auto& [id, connection] : connections_) connection->close();
    stopped_if_idle();
}

void PeerLink::stopped_if_idle() {
    if (!stopping_ || connectors_open_ > 0 || !connections_.empty() || !stopped_) return;
    reactor_.post(std::exchange(stopped_, nullptr));
}

}  // namespace gemel::blockd
