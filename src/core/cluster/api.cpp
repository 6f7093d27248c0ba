#include "core/cluster/api.hpp"

#include <algorithm>
#include <array>

namespace gemel::cluster {
namespace {

constexpr std::array<std::string_view, 19> kKinds{"cluster.start-alone",
                                                  "node.confirm-down",
                                                  "node.leave",
                                                  "volume.create",
                                                  "volume.delete",
                                                  "volume.export",
                                                  "volume.unexport",
                                                  "volume.force-uptodate",
                                                  "volume.resolve",
                                                  "vm.create",
                                                  "vm.delete",
                                                  "vm.start",
                                                  "vm.stop",
                                                  "vm.migrate",
                                                  "vm.migrate-cancel",
                                                  "node.drain",
                                                  "node.undrain",
                                                  "fence.set",
                                                  "fence.test"};

tl::unexpected<Error> invalid(std::string message) {
    return fail(ErrorCode::invalid_argument, std::move(message));
}
Status name(std::string_view what, const std::string& text) {
    if (is_valid_name(text)) return {};
    return invalid(
        std::string(what) +
        ": expected 1 to 40 lower case letters, digits or dashes, not beginning or ending with a dash");
}
Status confirmed(const std::string& typed, const std::string& wanted) {
    if (typed == wanted) return {};
    return invalid("confirm_name: expected '" + wanted + "', the object's own name");
}

Status check(const StartAlone& c) {
    if (!c.accept_loss)
        return invalid("accept_loss: expected true; starting alone may lose what the peer wrote last");
    return name("confirm_name", c.confirm_name);
}
Status check(const ConfirmDown& c) {
    if (auto ok = name("node", c.node); !ok) return ok;
    return confirmed(c.confirm_name, c.node);
}
Status check(const NodeLeave& c) {
    if (auto ok = name("node", c.node); !ok) return ok;
    return confirmed(c.confirm_name, c.node);
}
Status check(const VolumeCreate& c) {
    if (auto ok = name("name", c.name); !ok) return ok;
    if (auto ok = name("pool", c.pool); !ok) return ok;
    constexpr std::uint64_t kMin = 1U << 20;
    constexpr std::uint64_t kMax = std::uint64_t{64} << 40;
    if (c.size_bytes < kMin || c.size_bytes > kMax || c.size_bytes % 4096 != 0) {
        return invalid("size_bytes: expected 1 MiB to 64 TiB, a multiple of 4096");
    }
    if (c.nodes.size() > 2 || (c.nodes.size() == 2 && c.nodes[0] == c.nodes[1])) {
        return invalid("nodes: expected one or two different nodes");
    }
    for (const auto& node : c.nodes) {
        if (auto ok = name("nodes", node); !ok) return ok;
    }
    return {};
}
Status check(const VolumeDelete& c) {
    if (auto ok = name("name", c.name); !ok) return ok;
    return confirmed(c.confirm_name, c.name);
}
Status check(const VolumeExport& c) {
    if (c.read_only)
        return fail(ErrorCode::unsupported,
                    "read_only: exports are read-write in this version; leave it out");
    return name("name", c.name);
}
Status check(const VolumeUnexport& c) {
    return name("name", c.name);
}
Status check(const VolumeForceUpToDate& c) {
    if (auto ok = name("name", c.name); !ok) return ok;
    if (auto ok = name("node", c.node); !ok) return ok;
    return confirmed(c.confirm_name, c.name);
}
Status check(const VolumeResolve& c) {
    if (auto ok = name("name", c.name); !ok) return ok;
    if (auto ok = name("keep", c.keep); !ok) return ok;
    return confirmed(c.confirm_name, c.name);
}
Status check(const GuestCreate& c) {
    if (auto ok = name("name", c.name); !ok) return ok;
    if (c.disks.empty() || c.disks.size() > 16) return invalid("disks: expected 1 to 16 volumes");
    for (std::size_t i = 0; i < c.disks.size(); ++i) {
        if (auto ok = name("disks.volume", c.disks[i].volume); !ok) return ok;
        for (std::size_t k = 0; k < i; ++k) {
            if (c.disks[k].volume == c.disks[i].volume || c.disks[k].target == c.disks[i].target) {
                return invalid("disks: each volume and each target may be used once");
            }
        }
    }
    if (c.nics.size() > 8) return invalid("nics: expected at most 8");
    if (c.memory_bytes < (std::uint64_t{32} << 20) || c.memory_bytes > (std::uint64_t{16} << 40)) {
        return invalid("memory_bytes: expected 32 MiB to 16 TiB");
    }
    if (c.vcpus < 1 || c.vcpus > 255) return invalid("vcpus: expected 1 to 255");
    if (c.priority > 1000) return invalid("priority: expected 0 to 1000");
    if (c.template_text.size() > 262144) return invalid("domain_xml: expected at most 256 KiB");
    if (!c.preferred_node.empty()) return name("preferred_node", c.preferred_node);
    return {};
}
Status check(const GuestDelete& c) {
    if (auto ok = name("name", c.name); !ok) return ok;
    return confirmed(c.confirm_name, c.name);
}
Status check(const GuestStart& c) {
    if (!c.node.empty()) {
        if (auto ok = name("node", c.node); !ok) return ok;
    }
    return name("name", c.name);
}
Status check(const GuestStop& c) {
    if (c.timeout_ms < 1000 || c.timeout_ms > 3600000) return invalid("timeout_ms: expected 1000 to 3600000");
    return name("name", c.name);
}
Status check(const GuestMigrate& c) {
    if (!c.node.empty()) {
        if (auto ok = name("node", c.node); !ok) return ok;
    }
    if (c.bandwidth_bytes != 0 && c.bandwidth_bytes < (1U << 20))
        return invalid("bandwidth_bytes: expected 0 for no limit, or at least 1 MiB a second");
    if (c.downtime_ms < 1 || c.downtime_ms > 60000) return invalid("downtime_ms: expected 1 to 60000");
    return name("name", c.name);
}
Status check(const GuestMigrateCancel& c) {
    return name("name", c.name);
}
Status check(const NodeDrain& c) {
    return name("node", c.node);
}
Status check(const NodeUndrain& c) {
    return name("node", c.node);
}
Status check(const FenceSet& c) {
    if (auto ok = name("name", c.device.name); !ok) return ok;
    if (auto ok = name("node", c.device.node); !ok) return ok;
    const std::string& agent = c.device.agent;
    const bool path = !agent.empty() && agent[0] == '/' && agent.find("..") == std::string::npos;
    const bool plain = agent.compare(0, 6, "fence_") == 0 && agent.size() > 6 &&
                       std::all_of(agent.begin() + 6, agent.end(), [](char x) {
                           return (x >= 'a' && x <= 'z') || (x >= '0' && x <= '9') || x == '_';
                       });
    if (!path && !plain) return invalid("agent: expected fence_<name> or an absolute path");
    for (const auto& options : {c.device.options, c.device.secrets}) {
        for (const auto& [key, value] : options) {
            if (key.empty() || key.find_first_of("=\n") != std::string::npos ||
                value.find('\n') != std::string::npos) {
                return invalid("options: expected single lines, names without '='");
            }
        }
    }
    if (c.device.timeout_ms < 1000 || c.device.timeout_ms > 120000)
        return invalid("timeout_ms: expected 1000 to 120000");
    return {};
}
Status check(const FenceTest& c) {
    return name("name", c.name);
}

struct ObjectOf {
    std::string operator()(const StartAlone& c) const { return "cluster/" + c.confirm_name; }
    std::string operator()(const ConfirmDown& c) const { return "node/" + c.node; }
    std::string operator()(const NodeLeave& c) const { return "node/" + c.node; }
    std::string operator()(const VolumeCreate& c) const { return "volume/" + c.name; }
    std::string operator()(const VolumeDelete& c) const { return "volume/" + c.name; }
    std::string operator()(const VolumeExport& c) const { return "volume/" + c.name; }
    std::string operator()(const VolumeUnexport& c) const { return "volume/" + c.name; }
    std::string operator()(const VolumeForceUpToDate& c) const { return "volume/" + c.name; }
    std::string operator()(const VolumeResolve& c) const { return "volume/" + c.name; }
    std::string operator()(const GuestCreate& c) const { return "vm/" + c.name; }
    std::string operator()(const GuestDelete& c) const { return "vm/" + c.name; }
    std::string operator()(const GuestStart& c) const { return "vm/" + c.name; }
    std::string operator()(const GuestStop& c) const { return "vm/" + c.name; }
    std::string operator()(const GuestMigrate& c) const { return "vm/" + c.name; }
    std::string operator()(const GuestMigrateCancel& c) const { return "vm/" + c.name; }
    std::string operator()(const NodeDrain& c) const { return "node/" + c.node; }
    std::string operator()(const NodeUndrain& c) const { return "node/" + c.node; }
    std::string operator()(const FenceSet& c) const { return "fence/" + c.device.name; }
    std::string operator()(const FenceTest& c) const { return "fence/" + c.name; }
};

}  // namespace

std::string_view kind_of(const ApiCommand& command) {
    static_assert(std::variant_size_v<ApiCommand> == kKinds.size());
    return kKinds[command.index()];
}
std::string object_of(const ApiCommand& command) {
    return std::visit(ObjectOf{}, command);
}
Status validate(const ApiCommand& command) {
    return std::visit([](const auto& c) { return check(c); }, command);
}

}  // namespace gemel::cluster
