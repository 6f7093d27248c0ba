// NodeConfig: node.toml, read and checked. One file configures all daemons of a node. An error names the
// file, the line and what was expected. Unknown keys are refused: a typing error must not silently mean a
// default.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "base/instant.hpp"

namespace gemel {

struct VoterConfig {
    std::string name;
    std::string peer_url;
    std::string client_url;
};

struct LinkConfig {
    std::string name;
    std::string address;  // host:port blockd listens on
};

struct PeerConfig {
    std::string name;
    NodeId id;
    std::string control;                       // host:port of its clusterd
    std::map<std::string, std::string> links;  // link name -> host:port of its blockd
};

// The time chain (design brief 4); refused when lease * 1.01 + watchdog + margin is not above every shorter
// bound.
struct TimingConfig {
    Duration heartbeat = milliseconds(250);
    Duration suspicion = milliseconds(1000);
    Duration link_loss = milliseconds(2000);
    Duration lease = milliseconds(10'000);
    Duration watchdog = milliseconds(15'000);
    Duration margin = milliseconds(5'000);
    Duration fence_bound = milliseconds(60'000);  // a fence proves a loss only within this time of it

    Duration regrant() const { return Duration{lease.nanoseconds / 100 * 101} + watchdog + margin; }
};

struct NodeConfig {
    ClusterId cluster;
    std::string cluster_name;
    std::string name;
    NodeId id;
    std::string config_dir = "/etc/gemel";
    std::string state_dir = "/var/lib/gemel";
    std::string run_dir = "/run/gemel";
    bool voter = true;
    std::string client_url;  // of this node's own store member; empty when it is no voter
    std::string peer_url;
    std::vector<VoterConfig> members;  // initial voters, witness included
    std::string control_address;       // host:port
    std::vector<LinkConfig> links;
    std::vector<PeerConfig> peers;
    TimingConfig timing;

    std::string pki(const std::string& file) const { return config_dir + "/pki/" + file; }
    const PeerConfig* peer(const std::string& peer_name) const;
};

Result<NodeConfig> parse_node_config(const std::string& text, const std::string& file_name);
Result<NodeConfig> load_node_config(const std::string& file_name);

// lower case letters, digits and dashes, not at an end, 1 to 63 characters (RFC 1123 label)
bool is_valid_name(const std::string& name);

}  // namespace gemel
