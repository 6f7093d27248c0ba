#include "adapters/nbd_socket/front_end.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::nbd_socket {
namespace {

Result<int> listen_on_path(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format(
                "{} is too long for a socket ({} bytes at most): use a shorter run_dir or volume name", path,
                sizeof address.sun_path - 1));
    }
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail(ErrorCode::io_error, fmt::format("no unix socket: {}", std::strerror(errno)));
    ::unlink(path.c_str());  // of a former process: the back end's lock is held, so that process is gone
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    const bool bound = ::bind(fd, generic, sizeof address) == 0;
    // guests run as another user; who may connect is decided by the name (secret) and the process, not by the
    // mode
    if (!bound || ::chmod(path.c_str(), 0666) != 0 || ::listen(fd, 16) != 0) {
        const int error = errno;
        ::close(fd);
        return fail(ErrorCode::io_error, fmt::format("cannot listen on {}: {}", path, std::strerror(error)));
    }
    return fd;
}

}  // namespace

Result<std::unique_ptr<FrontEnd>> FrontEnd::open(ring::Reactor& reactor, BlockService& service,
                                                 FrontEndOptions options) {
    if (::mkdir(options.directory.c_str(), 0711) != 0 && errno != EEXIST) {
        return fail(ErrorCode::io_error,
                    fmt::format("cannot make {}: {}", options.directory, std::strerror(errno)));
    }
    std::string path =
        fmt::format("{}/{}-{}-{}.sock", options.directory, options.volume, options.epoch, options.secret);
    const auto listener = listen_on_path(path);
    if (!listener) return tl::unexpected<Error>(listener.error());
    std::unique_ptr<FrontEnd> front(
        new FrontEnd(reactor, service, std::move(options), std::move(path), *listener));
    front->acceptor_.start();
    return front;
}

FrontEnd::FrontEnd(ring::Reactor& reactor, BlockService& service, FrontEndOptions options, std::string path,
                   int listener)
    : reactor_(reactor),
      service_(service),
      options_(std::move(options)),
      path_(std::move(path)),
      binding_(path_ + ".client", options_.successors),
      acceptor_(reactor, listener, [this](int fd) { accepted(fd); }) {}

FrontEnd::~FrontEnd() {
    INVARIANT(connections_.empty(), "a front end is destroyed after it closed");
}

void FrontEnd::accepted(int fd) {
    const auto process = peer_process(fd);
    Status admitted = process ? binding_.admit(*process, !connections_.empty())
                              : Status(tl::unexpected<Error>(process.error()));
    if (admitted && connections_.size() >= kMaxConnections) {
        admitted =
            tl::unexpected<Error>(Error{ErrorCode::out_of_space, "too many connections of one client"});
    }
    if (!admitted) {
        options_.log(fmt::format("volume {}, epoch {}: {}", options_.volume, options_.epoch,
                                 admitted.error().message));
        ::close(fd);
        return;
    }
    if (connections_.empty() && options_.bound) options_.bound(process->pid);
    Connection::Handlers handlers{[this](const std::string& line) {
                                      options_.log(fmt::format("volume {}: {}", options_.volume, line));
                                  },
                                  [this](Connection& connection) { ended(connection); }};
    connections_.push_back(
        std::make_unique<Connection>(reactor_, fd, options_.exported, service_, std::move(handlers)));
    connections_.back()->start();
}

void FrontEnd::ended(Connection& connection) {
    // not from inside the connection's own call
    reactor_.post([this, &connection] {
        std::erase_if(connections_, [&](const auto& each) { return each.get() == &connection; });
        closed_if_idle();
    });
}

void FrontEnd::close(bool forget, std::function<void()> closed) {
    INVARIANT(!closing_, "a front end is closed once");
    closing_ = true;
    closed_ = std::move(closed);
    if (forget) {
        ::unlink(path_.c_str());
        binding_.remove_file();
    }
    acceptor_.stop([this] { closed_if_idle(); });
    for (const auto& connection : connections_) connection->close();
}

void FrontEnd::closed_if_idle() {
    if (!closing_ || !connections_.empty() || !acceptor_.stopped() || !closed_) return;
    // the callback may destroy this
    reactor_.post(std::exchange(closed_, nullptr));
}

}  // namespace gemel::nbd_socket
