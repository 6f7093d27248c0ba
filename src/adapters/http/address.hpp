// Where an HTTP server listens or a client connects: a unix socket, or a TCP host and port with or without
// mutual TLS. Host names are not resolved: addresses of a cluster are literal IPv4 or IPv6.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace gemel::http {

struct Address {
    std::string unix_path;  // non-empty: a unix socket, the other members are unused
    std::string host;       // literal IP address
    std::uint16_t port = 0;
    bool tls = false;

    bool operator==(const Address&) const = default;
    std::string to_string() const;
    // The value of an HTTP Host header.
    std::string authority() const;
    // "unix:/run/x.sock", "/run/x.sock", "https://10.0.0.1:2379", "http://...", "10.0.0.1:7700" (no TLS)
    static Result<Address> parse(std::string_view text);
    static Address unix_socket(std::string path) { return {std::move(path), "", 0, false}; }
    static Address tls_at(std::string host, std::uint16_t port) { return {"", std::move(host), port, true}; }
};

// Files in PEM form. Both sides present `certificate`; the other side's must be signed by `ca`.
struct TlsFiles {
    std::string ca;
    std::string certificate;
    std::string key;
};

}  // namespace gemel::http
