// What node.toml says, in the words of the control plane's machine; and the paths that follow from it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "adapters/config/node_config.hpp"
#include "adapters/http/address.hpp"
#include "base/error.hpp"
#include "core/cluster/interface.hpp"

namespace gemel::clusterd {

struct Settings {
    NodeConfig file;
    cluster::NodeConfig node;
    http::TlsFiles tls;

    std::string run(const std::string& name) const { return file.run_dir + "/" + name; }
    std::string state(const std::string& name) const { return file.state_dir + "/" + name; }
    std::string bootstrap_pending() const { return state("bootstrap-pending"); }
    // backing file of a volume in a pool of this node
    std::string volume_path(const std::string& pool, const std::string& volume) const;
    // protocol: nbd, vhost
    std::string front_socket(std::string_view protocol, const std::string& volume, std::uint64_t epoch,
                             const std::string& secret) const;
    // name=peer_url,... of the voters node.toml begins with
    std::string initial_cluster() const;
};

// error: a broken time chain, an address that is none, no incarnation.
Result<Settings> make_settings(NodeConfig file, const std::string& version);

struct HostPort {
    std::string host;
    std::uint16_t port = 0;
};
Result<HostPort> split_address(const std::string& address);

}  // namespace gemel::clusterd
