#include "adapters/etcd/tests/harness.hpp"

#include <chrono>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::testing {
namespace {

std::uint16_t free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    INVARIANT(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "loopback has ports");
    INVARIANT(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0, "the port can be read");
    ::close(fd);
    return ntohs(address.sin_port);
}

}  // namespace

StoreMember::StoreMember(const std::filesystem::path& root, const std::string& name, http::TlsFiles tls)
    : state(root / name), directory(state) {
    std::filesystem::create_directories(state);
    config.name = name;
    config.client_url = fmt::format("https://127.0.0.1:{}", free_port());
    config.peer_url = fmt::format("https://127.0.0.1:{}", free_port());
    config.cluster_token = "test";
    config.tls = std::move(tls);
}

StoreMember::~StoreMember() {
    kill();
    etcd::Process(config, directory.forcing(), directory.log()).stop(Duration{});
}

void StoreMember::kill() const {
    process().stop(Duration{});
}

std::unique_ptr<etcd::Client> StoreMember::client() const {
    return std::make_unique<etcd::Client>(etcd::ClientOptions{{address()}, config.tls});
}

StoreCluster::StoreCluster(int members) : pki_(scratch_.path() / "pki") {
    for (int i = 1; i <= members; ++i) {
        const std::string name = fmt::format("node{}", i);
        members_.push_back(std::make_unique<StoreMember>(scratch_.path(), name, pki_.node(name)));
    }
}

std::string StoreCluster::initial_cluster() const {
    std::string out;
    for (const auto& one : members_)
        out += fmt::format("{}{}={}", out.empty() ? "" : ",", one->config.name, one->config.peer_url);
    return out;
}

std::unique_ptr<etcd::Client> StoreCluster::client() const {
    etcd::ClientOptions options;
    for (const auto& one : members_) options.endpoints.push_back(one->address());
    options.tls = members_.front()->config.tls;
    return std::make_unique<etcd::Client>(options);
}

void StoreCluster::start_all() {
    for (auto& one : members_) {
        const auto started = one->process().start({initial_cluster(), false});
        INVARIANT(started.has_value(), "etcd starts");
    }
    for (auto& one : members_) {
        const auto mine = one->client();
        INVARIANT(eventually(seconds(30), [&] { return mine->get("/", seconds(1)).has_value(); }),
                  "etcd serves");
    }
}

bool eventually_impl(Duration timeout, const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout.nanoseconds);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        ::poll(nullptr, 0, 10);  // poll interval
    }
    return true;
}

}  // namespace gemel::testing
