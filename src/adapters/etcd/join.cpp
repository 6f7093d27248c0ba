#include "adapters/etcd/join.hpp"

#include <chrono>
#include <thread>

#include "adapters/etcd/client.hpp"

namespace gemel::etcd {

Status join_store(const StoreDirectory& directory, const ProcessConfig& config,
                  const std::string& initial_cluster) {
    using Clock = std::chrono::steady_clock;
    const Membership joining{initial_cluster, true};
    Process process(config, directory.data(), directory.log());
    if (auto ok = process.start(joining); !ok) return ok;
    const auto address = http::Address::parse(config.client_url);
    if (!address) return tl::unexpected<Error>(address.error());
    Client client(ClientOptions{{*address}, config.tls});
    const auto deadline = Clock::now() + std::chrono::seconds(5);
    while (Clock::now() < deadline && !client.status(milliseconds(200))) {
        if (has_snapshot(directory.data())) {
            if (auto ok = process.stop(seconds(2)); !ok) return ok;
            return process.start(joining);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return {};
}

}  // namespace gemel::etcd
