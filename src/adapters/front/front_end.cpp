#include "adapters/front/front_end.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "adapters/system/unix_address.hpp"
#include "base/invariant.hpp"

namespace gemel::front {
namespace {

Result<int> listen_on_path(const std::string& path) {
    sockaddr_un address;
    if (!unix_address(path, address)) {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format(
                "{} is too long for a socket ({} bytes at most): use a shorter run_dir or volume name", path,
                sizeof address.sun_path - 1));
    }
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

Result<std::unique_ptr<FrontEnd>> FrontEnd::open(ring::Reactor& reactor, FrontEndOptions options) {
    std::unique_ptr<FrontEnd> front(new FrontEnd(reactor, std::move(options)));
    if (auto ready = front->listen(); !ready) return tl::unexpected<Error>(ready.error());
    for (const Entrance& entrance : front->entrances_) entrance.acceptor->start();
    return front;
}

FrontEnd::FrontEnd(ring::Reactor& reactor, FrontEndOptions options)
    : reactor_(reactor),
      options_(std::move(options)),
      binding_(path_of(options_.doors.front()) + ".client", options_.successors) {}

FrontEnd::~FrontEnd() {
    INVARIANT(!in_use(), "a front end is destroyed after it closed");
}

std::string FrontEnd::path_of(const Door& door) const {
    return fmt::format("{}/{}/{}-{}-{}.sock", options_.run_dir, door.protocol, options_.volume,
                       options_.epoch, options_.secret);
}

Status FrontEnd::listen() {
    for (std::size_t i = 0; i < options_.doors.size(); ++i) {
        const std::string directory = options_.run_dir + "/" + options_.doors[i].protocol;
        if (::mkdir(directory.c_str(), 0711) != 0 && errno != EEXIST) {
            return fail(ErrorCode::io_error,
                        fmt::format("cannot make {}: {}", directory, std::strerror(errno)));
        }
        std::string path = path_of(options_.doors[i]);
        const auto listener = listen_on_path(path);
        if (!listener) return tl::unexpected<Error>(listener.error());
        auto acceptor =
            std::make_unique<tcp::Acceptor>(reactor_, *listener, [this, i](int fd) { accepted(i, fd); });
        Entrance& entrance = entrances_.emplace_back();
        entrance.path = std::move(path);
        entrance.acceptor = std::move(acceptor);
    }
    return {};
}

bool FrontEnd::in_use() const {
    return std::ranges::any_of(entrances_, [](const Entrance& each) { return !each.connections.empty(); });
}

Status FrontEnd::admit(std::size_t door, int fd) {
    const auto process = peer_process(fd);
    if (!process) return tl::unexpected<Error>(process.error());
    if (auto admitted = binding_.admit(*process, in_use()); !admitted) return admitted;
    if (entrances_[door].connections.size() >= options_.doors[door].connections) {
        return fail(
            ErrorCode::unavailable,
            fmt::format("process {} has {} connection(s) by {} already, or its last one has not ended "
                        "yet; it may try again",
                        process->pid, entrances_[door].connections.size(), options_.doors[door].protocol));
    }
    if (!in_use() && options_.bound) options_.bound(process->pid);
    return {};
}

void FrontEnd::accepted(std::size_t door, int fd) {
    if (auto admitted = admit(door, fd); !admitted) {
        options_.log(fmt::format("volume {}, epoch {}: {}", options_.volume, options_.epoch,
                                 admitted.error().message));
        ::close(fd);
        return;
    }
    Connection::Handlers handlers{[this](const std::string& line) {
                                      options_.log(fmt::format("volume {}: {}", options_.volume, line));
                                  },
                                  [this, door](Connection& connection) { ended(door, connection); }};
    auto& connections = entrances_[door].connections;
    connections.push_back(options_.doors[door].connect(fd, std::move(handlers)));
    connections.back()->start();
}

void FrontEnd::ended(std::size_t door, Connection& connection) {
    // not from inside the connection's own call
    reactor_.post([this, door, &connection] {
        std::erase_if(entrances_[door].connections,
                      [&](const auto& each) { return each.get() == &connection; });
        closed_if_idle();
    });
}

void FrontEnd::close(bool forget, std::function<void()> closed) {
    INVARIANT(!closing_, "a front end is closed once");
    closing_ = true;
    closed_ = std::move(closed);
    if (forget) binding_.remove_file();
    for (const Entrance& entrance : entrances_) {
        if (forget) ::unlink(entrance.path.c_str());
        entrance.acceptor->stop([this] { closed_if_idle(); });
        for (const auto& connection : entrance.connections) connection->close();
    }
}

void FrontEnd::closed_if_idle() {
    const bool stopped =
        std::ranges::all_of(entrances_, [](const Entrance& each) { return each.acceptor->stopped(); });
    if (!closing_ || in_use() || !stopped || !closed_) return;
    // the callback may destroy this
    reactor_.post(std::exchange(closed_, nullptr));
}

}  // namespace gemel::front
