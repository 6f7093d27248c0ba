#include "daemons/clusterd/settings.hpp"

#include <filesystem>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>

#include <fmt/format.h>

#include "adapters/config/host_incarnation.hpp"

namespace gemel::clusterd {
namespace {

std::uint32_t ms(Duration duration) {
    return static_cast<std::uint32_t>(duration.milliseconds());
}

cluster::NodeConfig machine_config(const NodeConfig& file, const std::string& version) {
    cluster::NodeConfig out;
    out.cluster = file.cluster;
    out.cluster_name = file.cluster_name;
    out.name = file.name;
    out.id = file.id;
    out.voter = file.voter;
    out.control = file.control_address;
    out.version = version;
    out.random_seed = random_word();
    for (const auto& link : file.links) out.links[link.name] = link.address;
    for (const auto& peer : file.peers) out.peers.push_back({peer.name, peer.id, peer.control, peer.links});
    for (const auto& member : file.members) {
        const bool node = member.name == file.name || file.peer(member.name) != nullptr;
        out.initial_voters.push_back({member.name, member.peer_url, member.client_url, !node});
    }
    out.timing.heartbeat_ms = ms(file.timing.heartbeat);
    out.timing.suspicion_ms = ms(file.timing.suspicion);
    out.timing.link_loss_ms = ms(file.timing.link_loss);
    out.timing.lease_ms = ms(file.timing.lease);
    out.timing.watchdog_ms = ms(file.timing.watchdog);
    out.timing.margin_ms = ms(file.timing.margin);
    out.timing.fence_bound_ms = ms(file.timing.fence_bound);
    struct sysinfo memory {};
    if (::sysinfo(&memory) == 0)
        out.memory_bytes = static_cast<std::uint64_t>(memory.totalram) * memory.mem_unit;
    PoolRecord pool{file.name, "default", file.state_dir + "/pools/default", 0};
    std::error_code ignored;
    std::filesystem::create_directories(pool.path, ignored);
    struct statvfs space {};
    if (::statvfs(pool.path.c_str(), &space) == 0)
        pool.total_bytes = static_cast<std::uint64_t>(space.f_blocks) * space.f_frsize;
    out.pools.push_back(pool);
    return out;
}

}  // namespace

std::string Settings::volume_path(const std::string& pool, const std::string& volume) const {
    for (const auto& one : node.pools)
        if (one.name == pool) return one.path + "/" + volume + ".img";
    return file.state_dir + "/pools/" + pool + "/" + volume + ".img";
}

std::string Settings::front_socket(std::string_view protocol, const std::string& volume, std::uint64_t epoch,
                                   const std::string& secret) const {
    return fmt::format("{}/{}/{}-{}-{}.sock", file.run_dir, protocol, volume, epoch, secret);
}

std::string Settings::initial_cluster() const {
    std::string out;
    for (const auto& member : file.members)
        out += fmt::format("{}{}={}", out.empty() ? "" : ",", member.name, member.peer_url);
    return out;
}

Result<HostPort> split_address(const std::string& address) {
    const auto parsed = http::Address::parse(address);
    if (!parsed) return tl::unexpected<Error>(parsed.error());
    return HostPort{parsed->host, parsed->port};
}

Result<Settings> make_settings(NodeConfig file, const std::string& version) {
    Settings out;
    out.node = machine_config(file, version);
    const auto incarnation = host_incarnation(file.run_dir);
    if (!incarnation) return tl::unexpected<Error>(incarnation.error());
    out.node.incarnation = *incarnation;
    if (auto ok = check_time_chain(out.node.timing); !ok) return tl::unexpected<Error>(ok.error());
    out.tls = {file.pki("ca.crt"), file.pki("node.crt"), file.pki("node.key")};
    std::vector<std::string> addresses{file.control_address};
    for (const auto& link : file.links) addresses.push_back(link.address);
    for (const auto& peer : file.peers) addresses.push_back(peer.control);
    for (const auto& address : addresses)
        if (auto ok = split_address(address); !ok) return tl::unexpected<Error>(ok.error());
    out.file = std::move(file);
    return out;
}

}  // namespace gemel::clusterd
