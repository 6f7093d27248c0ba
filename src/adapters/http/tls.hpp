// OpenSSL contexts of the cluster: TLS 1.3 only, both sides present a certificate of the cluster's own CA.
// The identity of a peer is its certificate's common name (the node's name); addresses are not part of it.
#pragma once

#include <memory>
#include <string>

#include <openssl/ssl.h>

#include "adapters/http/address.hpp"
#include "base/error.hpp"

namespace gemel::http {

struct SslContextFree {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using SslContext = std::unique_ptr<SSL_CTX, SslContextFree>;

enum class TlsRole { client, server };
Result<SslContext> make_tls_context(const TlsFiles& files, TlsRole role);
// Common name of the peer's verified certificate; empty if there is none.
std::string peer_common_name(const SSL* connection);

}  // namespace gemel::http
