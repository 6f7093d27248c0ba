// A small HTTP/1.1 server: unix sockets and TCP with mutual TLS, one thread for all connections. Handlers run
// on that thread and must not block: what takes time is posted elsewhere and answered through the Responder.
// Bounds: connections, header and body sizes, idle time, and what a slow reader of a stream may leave unread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "adapters/http/address.hpp"
#include "adapters/http/router.hpp"
#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::http {

struct ServerOptions {
    std::size_t max_connections = 256;
    std::size_t header_limit = 16 << 10;
    std::size_t body_limit = 1 << 20;
    std::size_t stream_queue_limit = 4 << 20;  // bytes a streaming client may be behind
    Duration idle_timeout = seconds(60);       // between requests, and while one is being received
};

class Server {
  public:
    Server(Router router, ServerOptions options);
    ~Server();  // stops
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Before start(). A left-over socket file of a dead process is replaced; one that somebody answers on is
    // an error (already_exists).
    Status listen_unix(const std::string& path, unsigned mode);
    // Port 0 picks a free one; returns the port. Clients must present a certificate signed by the CA.
    Result<std::uint16_t> listen_tls(const std::string& host, std::uint16_t port, const TlsFiles& tls);
    void start();
    // Closes everything and joins the thread. Responders that outlive the server do nothing.
    void stop();

  private:
    struct Impl;
    std::shared_ptr<Impl> impl_;
};

}  // namespace gemel::http
