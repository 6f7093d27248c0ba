#include "adapters/tcp/address.hpp"

#include <cerrno>
#include <cstring>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string_view>
#include <unistd.h>

#include <fmt/format.h>

namespace gemel::tcp {

Result<Address> resolve(const std::string& host_and_port, bool to_listen) {
    const auto colon = host_and_port.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == host_and_port.size()) {
        return fail(ErrorCode::invalid_argument, "'" + host_and_port + "' is no address: expected HOST:PORT");
    }
    std::string host = host_and_port.substr(0, colon);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
    addrinfo* found = nullptr;
    const int result = ::getaddrinfo(host.c_str(), host_and_port.c_str() + colon + 1, &hints, &found);
    if (result != 0) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' is no usable address: {}; expected HOST:PORT", host_and_port,
                                ::gai_strerror(result)));
    }
    Address address;
    std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
    address.length = found->ai_addrlen;
    ::freeaddrinfo(found);
    return address;
}

Result<int> make_socket(const Address& address) {
    const int fd = ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail(ErrorCode::io_error, fmt::format("no TCP socket: {}", std::strerror(errno)));
    // A link is short and nobody else's. Where the host's own choice is a paced one (bbr), it would spread a
    // write over a timer's ticks and hold the link back for 200 ms every ten seconds. Set before there is a
    // connection: pacing once begun stays. A kernel without it does as the host says.
    constexpr std::string_view kControl = "cubic";
    ::setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kControl.data(), kControl.size());
    return fd;
}

Result<int> listen_on(const std::string& host_and_port) {
    const auto address = resolve(host_and_port, true);
    if (!address) return tl::unexpected<Error>(address.error());
    const auto fd = make_socket(*address);
    if (!fd) return fd;
    const int on = 1;
    ::setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(*fd, &address->generic(), address->length) != 0 || ::listen(*fd, 64) != 0) {
        const int error = errno;
        ::close(*fd);
        return fail(
            error == EADDRINUSE ? ErrorCode::already_exists : ErrorCode::unavailable,
            fmt::format("cannot listen on {}: {}; is the address configured on this node, and is no other "
                        "gemel-blockd running?",
                        host_and_port, std::strerror(error)));
    }
    return fd;
}

void tune(int fd, Duration user_timeout) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const auto timeout = static_cast<unsigned>(user_timeout.milliseconds());
    ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

}  // namespace gemel::tcp
