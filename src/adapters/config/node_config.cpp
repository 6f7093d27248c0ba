#include "adapters/config/node_config.hpp"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <set>
#include <sstream>

#include <toml++/toml.h>

namespace gemel {
namespace {

// Collects the first error; the readers below do nothing once there is one.
class Reader {
  public:
    explicit Reader(std::string file) : file_(std::move(file)) {}

    void complain(const toml::source_region& where, const std::string& what) {
        if (!error_.empty()) return;
        error_ = file_;
        if (where.begin) error_ += ":" + std::to_string(where.begin.line);
        error_ += ": " + what;
    }
    bool failed() const { return !error_.empty(); }
    Error error() const { return {ErrorCode::invalid_argument, error_}; }

    // The table, with nothing in it but the allowed keys; null (and no error) when it is absent and optional.
    const toml::table* table(const toml::table& parent, const char* key, bool required,
                             const std::set<std::string>& allowed) {
        const toml::node* node = parent.get(key);
        if (node == nullptr) {
            if (required) complain(parent.source(), std::string("expected a table [") + key + "]");
            return nullptr;
        }
        const toml::table* found = node->as_table();
        if (found == nullptr) {
            complain(node->source(), std::string("expected [") + key + "] to be a table");
            return nullptr;
        }
        only(*found, key, allowed);
        return found;
    }
    void only(const toml::table& table, const std::string& name, const std::set<std::string>& allowed) {
        for (const auto& [key, value] : table) {
            if (allowed.contains(std::string(key.str()))) continue;
            std::string list;
            for (const auto& one : allowed) list += (list.empty() ? "" : ", ") + one;
            complain(value.source(), "unknown key '" + std::string(key.str()) + "' in [" + name +
                                         "]: expected one of " + list);
        }
    }
    std::string text(const toml::table& table, const char* key, bool required, std::string fallback = {}) {
        const toml::node* node = table.get(key);
        if (node == nullptr) {
            if (required) complain(table.source(), std::string("expected ") + key + " = \"…\"");
            return fallback;
        }
        const auto value = node->value<std::string>();
        if (!value || value->empty())
            complain(node->source(), std::string(key) + " must be a text that is not empty");
        return value.value_or(std::move(fallback));
    }
    std::string name(const toml::table& table, const char* key) {
        std::string value = text(table, key, true);
        if (!value.empty() && !is_valid_name(value)) {
            complain(table.get(key)->source(),
                     std::string(key) + " = \"" + value +
                         "\" is no name: expected lower case letters, digits and dashes");
        }
        return value;
    }
    // host:port with a port from 1 to 65535
    std::string address(const toml::table& table, const char* key) {
        std::string value = text(table, key, true);
        if (!value.empty() && !is_address(value)) {
            complain(table.get(key)->source(),
                     std::string(key) + " = \"" + value + "\" is no address: expected HOST:PORT");
        }
        return value;
    }
    template <typename Id>
    Id id(const toml::table& table, const char* key) {
        const std::string value = text(table, key, true);
        if (value.empty()) return {};
        auto parsed = Id::parse(value);
        if (!parsed) {
            complain(table.get(key)->source(), std::string(key) + ": " + parsed.error().message);
            return {};
        }
        return *parsed;
    }
    void duration(const toml::table& table, const char* key, Duration& out) {
        const toml::node* node = table.get(key);
        if (node == nullptr) return;
        const auto value = node->value<std::int64_t>();
        if (!value || *value < 10 || *value > 600'000) {
            complain(node->source(),
                     std::string(key) + " must be a number of milliseconds from 10 to 600000");
            return;
        }
        out = milliseconds(*value);
    }
    static bool is_address(const std::string& value) {
        const auto colon = value.rfind(':');
        if (colon == std::string::npos || colon == 0 || colon + 1 == value.size() || value.size() - colon > 6)
            return false;
        const std::string port = value.substr(colon + 1);
        if (!std::all_of(port.begin(), port.end(), [](unsigned char c) { return std::isdigit(c) != 0; }))
            return false;
        const int number = std::stoi(port);
        return number > 0 && number < 65536;
    }

  private:
    std::string file_;
    std::string error_;
};

void read_store(Reader& in, const toml::table& store, NodeConfig& config) {
    config.voter = store["voter"].value_or(true);
    config.client_url = in.text(store, "client_url", config.voter);
    config.peer_url = in.text(store, "peer_url", config.voter);
    const toml::array* members = store["members"].as_array();
    if (members == nullptr || members->empty()) {
        in.complain(store.source(),
                    "expected members = [ { name = \"…\", peer_url = \"…\", client_url = \"…\" }, … ]");
        return;
    }
    for (const toml::node& node : *members) {
        const toml::table* member = node.as_table();
        if (member == nullptr) {
            in.complain(node.source(), "a member is { name = \"…\", peer_url = \"…\", client_url = \"…\" }");
            return;
        }
        in.only(*member, "store.members", {"name", "peer_url", "client_url"});
        config.members.push_back({in.name(*member, "name"), in.text(*member, "peer_url", true),
                                  in.text(*member, "client_url", true)});
    }
}

void read_links(Reader& in, const toml::table& root, NodeConfig& config) {
    const toml::array* links = root["link"].as_array();
    if (links == nullptr) return;
    for (const toml::node& node : *links) {
        const toml::table* link = node.as_table();
        if (link == nullptr) continue;
        in.only(*link, "link", {"name", "address"});
        config.links.push_back({in.name(*link, "name"), in.address(*link, "address")});
    }
}

void read_peers(Reader& in, const toml::table& root, NodeConfig& config) {
    const toml::array* peers = root["peer"].as_array();
    if (peers == nullptr) return;
    for (const toml::node& node : *peers) {
        const toml::table* table = node.as_table();
        if (table == nullptr) continue;
        in.only(*table, "peer", {"name", "id", "control", "links"});
        PeerConfig peer{
            in.name(*table, "name"), in.id<NodeId>(*table, "id"), in.address(*table, "control"), {}};
        if (const toml::table* links = (*table)["links"].as_table()) {
            for (const auto& [key, value] : *links) {
                const std::string link_name(key.str());
                const std::string address = value.value_or(std::string());
                const bool known = std::any_of(config.links.begin(), config.links.end(),
                                               [&](const auto& l) { return l.name == link_name; });
                if (!known)
                    in.complain(value.source(),
                                "link '" + link_name + "' has no [[link]] of this name on this node");
                if (!Reader::is_address(address))
                    in.complain(value.source(), link_name + ": expected \"HOST:PORT\"");
                peer.links[link_name] = address;
            }
        }
        if (peer.name == config.name)
            in.complain(table->source(), "a node is not its own peer: '" + peer.name + "'");
        config.peers.push_back(std::move(peer));
    }
}

void read_timing(Reader& in, const toml::table& root, NodeConfig& config) {
    const toml::table* timing = in.table(root, "timing", false,
                                         {"heartbeat_ms", "suspicion_ms", "link_loss_ms", "lease_ms",
                                          "watchdog_ms", "margin_ms", "fence_bound_ms"});
    TimingConfig& t = config.timing;
    if (timing != nullptr) {
        in.duration(*timing, "heartbeat_ms", t.heartbeat);
        in.duration(*timing, "suspicion_ms", t.suspicion);
        in.duration(*timing, "link_loss_ms", t.link_loss);
        in.duration(*timing, "lease_ms", t.lease);
        in.duration(*timing, "watchdog_ms", t.watchdog);
        in.duration(*timing, "margin_ms", t.margin);
        in.duration(*timing, "fence_bound_ms", t.fence_bound);
    }
    const bool ordered = t.heartbeat * 3 <= t.suspicion && t.suspicion <= t.link_loss &&
                         t.link_loss * 2 <= t.lease && t.margin >= seconds(1);
    if (!ordered) {
        in.complain(timing != nullptr ? timing->source() : root.source(),
                    "the time chain is broken: expected 3 x heartbeat <= suspicion <= link_loss, 2 x "
                    "link_loss <= lease, margin >= 1000");
    }
}

}  // namespace

const PeerConfig* NodeConfig::peer(const std::string& peer_name) const {
    const auto found =
        std::find_if(peers.begin(), peers.end(), [&](const PeerConfig& p) { return p.name == peer_name; });
    return found == peers.end() ? nullptr : &*found;
}

bool is_valid_name(const std::string& name) {
    if (name.empty() || name.size() > 63 || name.front() == '-' || name.back() == '-') return false;
    return std::all_of(name.begin(), name.end(),
                       [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

Result<NodeConfig> parse_node_config(const std::string& text, const std::string& file_name) {
    Reader in(file_name);
    toml::table root;
    try {
        root = toml::parse(text, file_name);
    } catch (const toml::parse_error& error) {
        in.complain(error.source(), "not valid TOML: " + std::string(error.description()));
        return tl::unexpected<Error>(in.error());
    }
    in.only(root, "the file", {"cluster", "node", "paths", "store", "control", "link", "peer", "timing"});
    NodeConfig config;
    if (const auto* cluster = in.table(root, "cluster", true, {"id", "name"})) {
        config.cluster = in.id<ClusterId>(*cluster, "id");
        config.cluster_name = in.name(*cluster, "name");
    }
    if (const auto* node = in.table(root, "node", true, {"id", "name"})) {
        config.id = in.id<NodeId>(*node, "id");
        config.name = in.name(*node, "name");
    }
    if (const auto* paths = in.table(root, "paths", false, {"config_dir", "state_dir", "run_dir"})) {
        config.config_dir = in.text(*paths, "config_dir", false, config.config_dir);
        config.state_dir = in.text(*paths, "state_dir", false, config.state_dir);
        config.run_dir = in.text(*paths, "run_dir", false, config.run_dir);
    }
    if (const auto* store = in.table(root, "store", true, {"voter", "client_url", "peer_url", "members"}))
        read_store(in, *store, config);
    if (const auto* control = in.table(root, "control", true, {"address"}))
        config.control_address = in.address(*control, "address");
    read_links(in, root, config);
    read_peers(in, root, config);
    read_timing(in, root, config);
    if (in.failed()) return tl::unexpected<Error>(in.error());
    return config;
}

Result<NodeConfig> load_node_config(const std::string& file_name) {
    std::ifstream file(file_name);
    if (!file) {
        return fail(ErrorCode::not_found,
                    "cannot read " + file_name +
                        ": expected this node's configuration there (--config names another place)");
    }
    std::ostringstream text;
    text << file.rdbuf();
    return parse_node_config(text.str(), file_name);
}

}  // namespace gemel
