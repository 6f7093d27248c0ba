// PeerLink: everything between one volume's engine and the peer's engine: the session (core/link), its TCP
// connections over the declared links, and reconnecting. The node whose name sorts first connects, the other
// is connected to (link_listener.hpp hands the connections over). Emits the engine's PeerUp, PeerDown and
// PeerMessageIn. One thread. Not in it: TLS (a later issue: links are private networks until then).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "adapters/tcp/connector.hpp"
#include "adapters/tcp/frame_connection.hpp"
#include "core/link/session.hpp"
#include "core/replication/interface.hpp"

namespace gemel::blockd {

struct PeerLinkOptions {
    link::SessionConfig session;
    std::map<std::string, std::string> links;  // name -> the peer's address
    std::function<void(const replication::Input&)> input;
    std::function<void(const std::string& line)> log;
};

class PeerLink {
  public:
    PeerLink(ring::Reactor& reactor, PeerLinkOptions options);
    ~PeerLink();
    PeerLink(const PeerLink&) = delete;
    PeerLink& operator=(const PeerLink&) = delete;

    void start();
    // a connection of the peer whose hello (still unread) names this volume
    void accepted(int fd);
    void send(const replication::PeerSend& output);
    void drop(const replication::PeerDrop& output);
    // the committed record changed: a peer that was sent away may come back
    void allow();
    void stop(std::function<void()> stopped);
    const std::string& problem() const { return session_.problem(); }

  private:
    struct Link {
        std::string name;
        std::unique_ptr<tcp::Connector> connector;
        link::ConnectionId connection = 0;  // 0: none
    };

    bool connects() const;
    void add_connection(int fd, std::size_t link_index);
    void connection_closed(link::ConnectionId id);
    void run(link::SessionOutputs& outputs);
    void tick();
    void arm();
    void reconnect();
    void stopped_if_idle();

    static constexpr std::size_t kNoLink = ~std::size_t{0};

    ring::Reactor& reactor_;
    PeerLinkOptions options_;
    link::Session session_;
    link::SessionOutputs outputs_;
    bool running_ = false;
    SessionId session_id_;
    std::string told_reason_;
    std::vector<Link> links_;
    std::map<link::ConnectionId, std::unique_ptr<tcp::FrameConnection>> connections_;
    link::ConnectionId next_id_ = 1;
    ring::Timer timer_;
    bool stopping_ = false;
    std::size_t connectors_open_ = 0;
    std::function<void()> stopped_;
};

}  // namespace gemel::blockd
