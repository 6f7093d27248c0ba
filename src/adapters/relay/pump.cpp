#include "adapters/relay/pump.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "adapters/system/unix_address.hpp"
#include "adapters/tcp/address.hpp"

namespace gemel::relay {
namespace {

constexpr Duration kUserTimeout = seconds(10);
constexpr std::size_t kChunk = std::size_t{1} << 20;

Result<OwnedFd> unix_socket(const std::string& path, sockaddr_un& address) {
    if (!unix_address(path, address))
        return fail(ErrorCode::invalid_argument, "the path of a socket is too long: " + path);
    OwnedFd made(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!made.is_open()) return fail(ErrorCode::unavailable, fmt::format("socket: {}", std::strerror(errno)));
    return made;
}

}  // namespace

Pump::Pump(OwnedFd left, OwnedFd right)
    : left_(std::move(left)),
      right_(std::move(right)),
      forth_([this] { run(left_.get(), right_.get()); }),
      back_([this] { run(right_.get(), left_.get()); }) {}

Pump::~Pump() {
    stop();
    forth_.join();
    back_.join();
}

void Pump::stop() {
    ::shutdown(left_.get(), SHUT_RDWR);
    ::shutdown(right_.get(), SHUT_RDWR);
}

void Pump::run(int from, int to) {
    std::array<int, 2> pipe{-1, -1};
    bool whole = ::pipe2(pipe.data(), O_CLOEXEC) == 0;
    if (whole) ::fcntl(pipe[1], F_SETPIPE_SZ, static_cast<int>(kChunk));
    while (whole) {
        ssize_t got = ::splice(from, nullptr, pipe[1], nullptr, kChunk, SPLICE_F_MOVE);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) break;
        whole = got > 0;
        while (whole && got > 0) {
            const ssize_t put =
                ::splice(pipe[0], nullptr, to, nullptr, static_cast<std::size_t>(got), SPLICE_F_MOVE);
            if (put < 0 && errno == EINTR) continue;
            whole = put > 0;
            got -= put;
        }
    }
    if (whole) {
        ::shutdown(to, SHUT_WR);
        ::shutdown(from, SHUT_RD);
    } else {
        stop();
    }
    for (const int end : pipe) {
        if (end >= 0) ::close(end);
    }
    --running_;
}

Result<OwnedFd> connect_unix(const std::string& path) {
    sockaddr_un address;
    auto made = unix_socket(path, address);
    if (!made) return made;
    if (::connect(made->get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return fail(ErrorCode::unavailable, fmt::format("connecting to {}: {}", path, std::strerror(errno)));
    return made;
}

Result<OwnedFd> listen_unix(const std::string& path) {
    sockaddr_un address;
    auto made = unix_socket(path, address);
    if (!made) return made;
    ::unlink(path.c_str());  // of a process before this one
    if (::bind(made->get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(made->get(), 8) != 0)
        return fail(ErrorCode::unavailable, fmt::format("listening on {}: {}", path, std::strerror(errno)));
    return made;
}

void tune_tcp(int fd) {
    tcp::tune(fd, kUserTimeout);
    const auto set = [fd](int level, int option, int value) {
        ::setsockopt(fd, level, option, &value, sizeof value);
    };
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, 3);
    set(IPPROTO_TCP, TCP_KEEPINTVL, 2);
    set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

Result<OwnedFd> connect_tcp(const std::string& address, std::chrono::milliseconds timeout) {
    const auto to = tcp::resolve(address, false);
    if (!to) return tl::unexpected<Error>(to.error());
    OwnedFd made(::socket(to->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto failed = [&address](int error) {
        return fail(ErrorCode::unavailable,
                    fmt::format("connecting to {}: {}", address, std::strerror(error)));
    };
    if (!made.is_open()) return failed(errno);
    if (::connect(made.get(), &to->generic(), to->length) != 0) {
        if (errno != EINPROGRESS) return failed(errno);
        pollfd writable{made.get(), POLLOUT, 0};
        if (::poll(&writable, 1, static_cast<int>(timeout.count())) <= 0) return failed(ETIMEDOUT);
        int error = 0;
        socklen_t size = sizeof error;
        ::getsockopt(made.get(), SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0) return failed(error);
    }
    ::fcntl(made.get(), F_SETFL, ::fcntl(made.get(), F_GETFL) & ~O_NONBLOCK);
    tune_tcp(made.get());
    return made;
}

bool write_all(int fd, const std::string& text) {
    std::size_t done = 0;
    while (done < text.size()) {
        const ssize_t put = ::send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return false;
        done += static_cast<std::size_t>(put);
    }
    return true;
}

Result<std::string> read_line(int fd, std::size_t limit, std::chrono::milliseconds timeout) {
    const auto end = std::chrono::steady_clock::now() + timeout;
    std::string line;
    while (line.size() <= limit) {
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        pollfd readable{fd, POLLIN, 0};
        if (left.count() <= 0 || ::poll(&readable, 1, static_cast<int>(left.count())) == 0)
            return fail(ErrorCode::timed_out, "it said nothing in time");
        char byte = 0;
        const ssize_t got = ::recv(fd, &byte, 1, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return fail(ErrorCode::unavailable, "it ended the connection");
        if (byte == '\n') return line;
        line += byte;
    }
    return fail(ErrorCode::invalid_argument, fmt::format("expected a line of at most {} bytes", limit));
}

}  // namespace gemel::relay
