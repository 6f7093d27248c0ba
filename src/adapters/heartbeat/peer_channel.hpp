// What two clusterds say to each other, over every path they have: the control address and each replication
// link's address (with the control port). Texts are opaque here. A message may be lost, and is dropped
// rather than delivered late: what waited longer than a second, or behind sixteen others, is not sent. Both
// sides are known by their certificates; a message is handed out with the name in the sender's certificate.
// send() never blocks: each path of each peer has its own thread, so that a dead path delays no other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/http/address.hpp"
#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::heartbeat {

struct PeerPath {
    std::string peer;        // node name, as in its certificate
    std::string path;        // "control" or a link's name
    http::Address remote;    // with TLS
    std::string local_host;  // our own address on that path; empty: the kernel's choice
};

struct ChannelOptions {
    http::TlsFiles tls;
    std::vector<std::pair<std::string, std::uint16_t>>
        listen;  // equal ones are opened once; need not exist yet
    std::vector<PeerPath> paths;
    Duration timeout = milliseconds(1000);  // of one message, with connecting
    std::size_t message_limit = 16384;      // bytes
};

// Called on the channel's own threads; must not block.
using OnMessage =
    std::function<void(const std::string& from, const std::string& path, const std::string& text)>;

class PeerChannel {
  public:
    PeerChannel(ChannelOptions options, OnMessage on_message);
    ~PeerChannel();
    PeerChannel(const PeerChannel&) = delete;
    PeerChannel& operator=(const PeerChannel&) = delete;

    Status start();
    // path empty: all paths to that peer. Unknown peers and paths, and texts over the limit, are dropped.
    void send(const std::string& peer, const std::string& path, const std::string& text);
    // Round trip of the last answered message in microseconds, -1 while the path does not answer.
    std::int64_t round_trip_us(const std::string& peer, const std::string& path) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::heartbeat
