#include "adapters/relay/tunnel.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace gemel::relay {
namespace {

constexpr std::chrono::milliseconds kConnect{2000};
constexpr std::chrono::milliseconds kAnswer{6000};

}  // namespace

Result<OwnedFd> MigrationTunnel::reach(const std::string& address, const char* what) const {
    auto made = connect_tcp(address, kConnect);
    if (!made) return made;
    const auto hello = fmt::format("gemel-migration {} {} {}\n", options_.guest, options_.secret, what);
    if (!write_all(made->get(), hello))
        return fail(ErrorCode::unavailable, address + " ended the connection");
    const auto answer = read_line(made->get(), 8, kAnswer);
    if (!answer || *answer != "ok")
        return fail(ErrorCode::unavailable,
                    address + " does not take this guest: " + (answer ? *answer : answer.error().message));
    return made;
}

Result<std::unique_ptr<MigrationTunnel>> MigrationTunnel::dig(TunnelOptions options) {
    auto tunnel = std::unique_ptr<MigrationTunnel>(new MigrationTunnel(std::move(options)));
    const auto& given = tunnel->options_;
    std::string why = "the destination named no address";
    for (std::size_t at = 0; at < given.gate.size() && tunnel->address_.empty();) {
        const auto comma = std::min(given.gate.find(',', at), given.gate.size());
        const std::string address = given.gate.substr(at, comma - at);
        at = comma + 1;
        if (const auto tried = tunnel->reach(address, "libvirt")) {
            tunnel->address_ = address;
        } else {
            why = tried.error().message;
        }
    }
    if (tunnel->address_.empty()) return fail(ErrorCode::unavailable, why);
    if (::mkdir(given.directory.c_str(), 0700) != 0 && errno != EEXIST)
        return fail(ErrorCode::unavailable,
                    fmt::format("making {}: {}", given.directory, std::strerror(errno)));
    for (const auto& [socket, path] : {std::pair{&tunnel->libvirt_, tunnel->libvirt_socket()},
                                       std::pair{&tunnel->qemu_, tunnel->qemu_socket()}}) {
        auto listening = listen_unix(path);
        if (!listening) return tl::unexpected<Error>(listening.error());
        *socket = std::move(*listening);
    }
    tunnel->stop_ = OwnedFd(::eventfd(0, EFD_CLOEXEC));
    tunnel->thread_ = std::thread([raw = tunnel.get()] { raw->run(); });
    return tunnel;
}

MigrationTunnel::~MigrationTunnel() {
    if (!thread_.joinable()) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof one);
    thread_.join();
    ::unlink(libvirt_socket().c_str());
    ::unlink(qemu_socket().c_str());
    ::rmdir(options_.directory.c_str());
}

void MigrationTunnel::run() {
    constexpr int kTidyEvery = 1000;
    for (;;) {
        std::array<pollfd, 3> waits{pollfd{libvirt_.get(), POLLIN, 0}, pollfd{qemu_.get(), POLLIN, 0},
                                    pollfd{stop_.get(), POLLIN, 0}};
        ::poll(waits.data(), waits.size(), kTidyEvery);
        if (waits[2].revents != 0) return;
        pumps_.remove_if([](const Pump& one) { return one.ended(); });
        if (waits[0].revents != 0) relay(libvirt_, "libvirt");
        if (waits[1].revents != 0) relay(qemu_, "qemu");
    }
}

// A gate that cannot be reached any more ends the client's connection at once.
void MigrationTunnel::relay(const OwnedFd& listening, const char* what) {
    constexpr std::size_t kMaxPumps = 8;
    OwnedFd client(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client.is_open() || pumps_.size() >= kMaxPumps) return;
    auto there = reach(address_, what);
    if (there) pumps_.emplace_back(std::move(client), std::move(*there));
}

}  // namespace gemel::relay
