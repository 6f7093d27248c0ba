// TCP addresses "host:port" ("[v6]:port") and sockets made for a replication link: no delay, and a bound on
// how long the kernel keeps trying with data that nobody acknowledges. Blocking name resolution happens here
// only; links are configured by number. TLS is a later issue: links are private networks until then.
#pragma once

#include <string>
#include <sys/socket.h>

#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::tcp {

struct Address {
    sockaddr_storage storage{};
    socklen_t length = 0;
    const sockaddr& generic() const { return reinterpret_cast<const sockaddr&>(storage); }
};

Result<Address> resolve(const std::string& host_and_port, bool to_listen);
// an unconnected socket for that address, without pacing (accepted connections inherit that)
Result<int> make_socket(const Address& address);
// listening, SO_REUSEADDR
Result<int> listen_on(const std::string& host_and_port);
// TCP_NODELAY, TCP_USER_TIMEOUT
void tune(int fd, Duration user_timeout);

}  // namespace gemel::tcp
