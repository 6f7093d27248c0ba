// A blocking HTTP/1.1 client over one kept connection (unix socket, TCP, TCP with mutual TLS), with a
// deadline on everything. One thread uses a Client at a time; cancel() may come from any thread.
//
// Errors say whether the request can have had an effect:
//   unavailable  nothing of the request was sent (no connection, handshake refused, cancelled before)
//   timed_out    sent, no whole answer in time: the outcome is unknown
//   io_error     sent, the connection broke before the whole answer: the outcome is unknown
// Nothing is ever repeated here. A kept connection that the server has closed meanwhile is noticed before
// sending and opened anew.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "adapters/http/address.hpp"
#include "adapters/http/message.hpp"
#include "base/instant.hpp"

namespace gemel::http {

struct ClientOptions {
    Address address;
    std::optional<TlsFiles> tls{};      // required when address.tls
    std::string expected_name{};        // with TLS: the common name the server's certificate must carry
    std::string local_host{};           // source IP address to bind, empty: the kernel's choice
    std::size_t body_limit = 16 << 20;  // bytes of a response, and of one line of a stream
};

class Client {
  public:
    explicit Client(ClientOptions options);
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    // `timeout` covers connecting, handshake, sending and the whole answer. Any HTTP status is a success
    // here.
    Result<Response> call(const Request& request, Duration timeout) {
        return call(request, timeout, timeout);
    }
    // The same, and connecting (with its handshake) has a shorter time of its own.
    Result<Response> call(const Request& request, Duration timeout, Duration connect_timeout);

    // Sends the request and hands out each line of the answer (without its end) as it comes, until on_line
    // returns false, the server ends the answer (success both), no byte comes for `idle_timeout` (timed_out),
    // or cancel(). A status other than 200 is an error that carries the body.
    Status stream(const Request& request, Duration connect_timeout, Duration idle_timeout,
                  const std::function<bool(std::string_view)>& on_line);

    // Any thread: the call under way, and every later one, ends with an error.
    void cancel();
    // Drops the kept connection; the next call opens a new one.
    void close();
    const Address& address() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::http
