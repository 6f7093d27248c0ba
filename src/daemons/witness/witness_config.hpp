// What gemel-witness has to know of the witness's etcd configuration (/etc/gemel/witness-etcd.yaml): a file
// of flat "key: value" lines with two indented sections of certificates. Everything else is etcd's.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "adapters/etcd/messages.hpp"
#include "adapters/http/address.hpp"
#include "base/error.hpp"

namespace gemel::witness {

struct WitnessConfig {
    std::string text;  // the whole file
    std::string name;
    std::filesystem::path data_directory;
    std::string peer_url;
    std::string client_url;
    std::vector<std::string> peer_urls;  // of the other members, from initial-cluster
    http::TlsFiles tls;

    // Where the other members answer clients: their hosts, at the port of our own client address.
    std::vector<http::Address> others() const;
    // The same file, for a member that was added to a cluster that is there.
    std::string joining(const std::vector<etcd::Member>& members) const;
};

Result<WitnessConfig> read_witness_config(const std::filesystem::path& path);
Result<WitnessConfig> parse_witness_config(const std::string& text);

}  // namespace gemel::witness
