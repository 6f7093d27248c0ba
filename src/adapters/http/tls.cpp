#include "adapters/http/tls.hpp"

#include <array>

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/x509.h>

namespace gemel::http {
namespace {

std::string last_error() {
    std::array<char, 256> text{};
    const unsigned long code = ERR_get_error();
    ERR_clear_error();
    if (code == 0) return "unknown reason";
    ERR_error_string_n(code, text.data(), text.size());
    return text.data();
}

}  // namespace

Result<SslContext> make_tls_context(const TlsFiles& files, TlsRole role) {
    SslContext context(SSL_CTX_new(role == TlsRole::client ? TLS_client_method() : TLS_server_method()));
    if (!context) return fail(ErrorCode::internal, "no TLS context: " + last_error());
    SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
    const auto broken = [&](const std::string& file, const char* what) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} is not usable as {} ({}); a PEM file of this cluster is expected", file,
                                what, last_error()));
    };
    if (SSL_CTX_load_verify_locations(context.get(), files.ca.c_str(), nullptr) != 1)
        return broken(files.ca, "certificate authority");
    if (SSL_CTX_use_certificate_chain_file(context.get(), files.certificate.c_str()) != 1)
        return broken(files.certificate, "certificate");
    if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context.get()) != 1)
        return broken(files.key, "private key of the certificate");
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    // Resumed sessions would skip looking at the certificate; connections are kept, so nothing is lost.
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
    if (role == TlsRole::server) SSL_CTX_set_num_tickets(context.get(), 0);
    return context;
}

std::string peer_common_name(const SSL* connection) {
    X509* certificate = SSL_get1_peer_certificate(connection);
    if (certificate == nullptr) return "";
    std::array<char, 256> name{};
    const int length = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName,
                                                 name.data(), static_cast<int>(name.size()));
    X509_free(certificate);
    return length > 0 ? std::string(name.data(), static_cast<std::size_t>(length)) : "";
}

}  // namespace gemel::http
