#include "adapters/etcd/join.hpp"

#include "adapters/etcd/client.hpp"
#include "adapters/etcd/poll.hpp"

namespace gemel::etcd {

Status join_store(const StoreDirectory& directory, const ProcessConfig& config,
                  const std::string& initial_cluster) {
    const Membership joining{initial_cluster, true};
    Process process(config, directory.data(), directory.log());
    if (auto ok = process.start(joining); !ok) return ok;
    const auto address = http::Address::parse(config.client_url);
    if (!address) return tl::unexpected<Error>(address.error());
    Client client(ClientOptions{{*address}, config.tls});
    bool installed = false;
    poll_until(seconds(5), [&] {
        return client.status(milliseconds(200)) || (installed = has_snapshot(directory.data()));
    });
    if (!installed) return {};
    if (auto ok = process.stop(seconds(2)); !ok) return ok;
    return process.start(joining);
}

}  // namespace gemel::etcd
