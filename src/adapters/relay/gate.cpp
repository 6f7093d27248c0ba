#include "adapters/relay/gate.hpp"

#include <arpa/inet.h>
#include <chrono>
#include <netinet/in.h>
#include <poll.h>
#include <sstream>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "adapters/tcp/address.hpp"

namespace gemel::relay {
namespace {

constexpr std::chrono::milliseconds kGreeting{5000};

// In a time that does not tell where they differ.
bool same_secret(const std::string& told, const std::string& known) {
    if (told.size() != known.size() || known.empty()) return false;
    unsigned char difference = 0;
    for (std::size_t i = 0; i < known.size(); ++i)
        difference = static_cast<unsigned char>(difference | (told[i] ^ known[i]));
    return difference == 0;
}

std::string with_port(const std::string& host, int fd) {
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
    const auto port = bound.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&bound)->sin6_port
                                                  : reinterpret_cast<const sockaddr_in*>(&bound)->sin_port;
    return fmt::format("{}:{}", host, ntohs(port));
}

}  // namespace

MigrationGate::MigrationGate(std::string libvirt_socket)
    : libvirt_socket_(std::move(libvirt_socket)), stop_(::eventfd(0, EFD_CLOEXEC)) {}

Result<std::unique_ptr<MigrationGate>> MigrationGate::open_on(const std::vector<std::string>& hosts,
                                                              std::string libvirt_socket) {
    auto gate = std::unique_ptr<MigrationGate>(new MigrationGate(std::move(libvirt_socket)));
    std::string why = "no address to listen on";
    for (const auto& host : hosts) {
        const auto listening = tcp::listen_on(host + ":0");
        if (!listening) {
            why = listening.error().message;
            continue;
        }
        gate->listening_.emplace_back(*listening);
        gate->addresses_ += (gate->addresses_.empty() ? "" : ",") + with_port(host, *listening);
    }
    if (gate->listening_.empty()) return fail(ErrorCode::unavailable, "guests cannot be taken: " + why);
    gate->thread_ = std::thread([raw = gate.get()] { raw->run(); });
    return gate;
}

MigrationGate::~MigrationGate() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof one);
    if (thread_.joinable()) thread_.join();
}

void MigrationGate::open(const std::string& guest, const std::string& secret,
                         const std::string& qemu_socket) {
    const std::scoped_lock lock(mutex_);
    doors_[guest] = {secret, qemu_socket};
}

void MigrationGate::close(const std::string& guest) {
    std::list<Guest> ending;
    const std::scoped_lock lock(mutex_);
    doors_.erase(guest);
    for (auto at = guests_.begin(); at != guests_.end();) {
        const auto next = std::next(at);
        if (at->uuid == guest) ending.splice(ending.end(), guests_, at);
        at = next;
    }
}

void MigrationGate::drop_ended() {
    const std::scoped_lock lock(mutex_);
    guests_.remove_if([](const Guest& one) { return one.pump->ended(); });
}

void MigrationGate::run() {
    constexpr int kTidyEvery = 1000;
    for (;;) {
        std::vector<pollfd> waits;
        for (const auto& one : listening_) waits.push_back({one.get(), POLLIN, 0});
        waits.push_back({stop_.get(), POLLIN, 0});
        ::poll(waits.data(), waits.size(), kTidyEvery);
        if (waits.back().revents != 0) return;
        drop_ended();
        for (std::size_t i = 0; i < listening_.size(); ++i) {
            if (waits[i].revents == 0) continue;
            OwnedFd client(::accept4(listening_[i].get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (client.is_open()) greet(std::move(client));
        }
    }
}

// One after the other: who says nothing holds up others for kGreeting at most, on a port known to cluster
// members.
void MigrationGate::greet(OwnedFd client) {
    tune_tcp(client.get());
    const auto line = read_line(client.get(), kMaxLine, kGreeting);
    if (!line) return;
    std::string uuid;
    const std::string path = target(*line, uuid);
    if (path.empty()) return;
    auto there = connect_unix(path);
    if (!there || !write_all(client.get(), "ok\n")) return;
    const std::scoped_lock lock(mutex_);
    if (!doors_.contains(uuid) || guests_.size() >= kMaxConnections) return;
    guests_.push_back({uuid, std::make_unique<Pump>(std::move(client), std::move(*there))});
}

std::string MigrationGate::target(const std::string& line, std::string& uuid) {
    std::istringstream words(line);
    std::string hello;
    std::string secret;
    std::string what;
    std::string more;
    words >> hello >> uuid >> secret >> what;
    if (hello != "gemel-migration" || words >> more) return {};
    const std::scoped_lock lock(mutex_);
    const auto door = doors_.find(uuid);
    if (door == doors_.end() || !same_secret(secret, door->second.secret)) return {};
    if (what == "libvirt") return libvirt_socket_;
    return what == "qemu" ? door->second.qemu_socket : std::string();
}

}  // namespace gemel::relay
