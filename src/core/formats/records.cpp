#include "core/formats/records.hpp"

namespace gemel {

Status check_time_chain(const TimingRecord& t) {
    const auto broken = [](const std::string& what) {
        return fail(ErrorCode::invalid_argument,
                    "timing: " + what + "; use the defaults or correct node.toml");
    };
    if (t.heartbeat_ms < 50) return broken("heartbeat_ms must be at least 50");
    if (t.suspicion_ms < 3 * t.heartbeat_ms) return broken("suspicion_ms must be at least 3 x heartbeat_ms");
    if (t.link_loss_ms < t.suspicion_ms) return broken("link_loss_ms must not be below suspicion_ms");
    if (t.lease_ms < 2 * t.link_loss_ms) return broken("lease_ms must be at least 2 x link_loss_ms");
    if (t.watchdog_ms <= t.lease_ms) return broken("watchdog_ms must be above lease_ms");
    if (t.margin_ms < 1000) return broken("margin_ms must be at least 1000");
    if (t.fence_bound_ms < t.suspicion_ms + t.ask_ms) {
        return broken("fence_bound_ms must be above suspicion_ms + ask_ms");
    }
    if (t.ask_ms < t.suspicion_ms) return broken("ask_ms must not be below suspicion_ms");
    if (t.lease_ms > 600000 || t.watchdog_ms > 600000 || t.margin_ms > 600000) {
        return broken("lease_ms, watchdog_ms and margin_ms must not be above 600000");
    }
    return {};
}

namespace keys {
namespace {
std::string join(std::string_view prefix, std::string_view name) {
    std::string key(prefix);
    key += name;
    return key;
}
}  // namespace

std::string node(std::string_view name) {
    return join(kNodes, name);
}
std::string pool(std::string_view node, std::string_view name) {
    return join(kPools, node) + "/" + std::string(name);
}
std::string volume(std::string_view name) {
    return join(kVolumes, name);
}
std::string guest(std::string_view name) {
    return join(kGuests, name);
}
std::string fence(std::string_view name) {
    return join(kFence, name);
}
std::string operation(const OperationId& id) {
    return join(kOperations, id.to_string());
}
std::string events(std::string_view node, std::uint32_t slot) {
    return join(kEvents, node) + "/" + std::to_string(slot);
}
std::string applied(std::string_view node) {
    return join(kApplied, node);
}
}  // namespace keys

bool is_valid_name(std::string_view name) {
    if (name.empty() || name.size() > 40) return false;
    for (const char c : name) {
        const bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
        if (!good) return false;
    }
    return name.front() != '-' && name.back() != '-';
}

std::string_view to_string(ReplicaState state) {
    switch (state) {
        case ReplicaState::diskless: return "Diskless";
        case ReplicaState::failed: return "Failed";
        case ReplicaState::inconsistent: return "Inconsistent";
        case ReplicaState::outdated: return "Outdated";
        case ReplicaState::consistent: return "Consistent";
        case ReplicaState::up_to_date: return "UpToDate";
    }
    return "Unknown";
}
std::string_view to_string(AckMode mode) {
    return mode == AckMode::stable ? "stable" : "writeback";
}
std::string_view to_string(NodeState state) {
    switch (state) {
        case NodeState::member: return "member";
        case NodeState::leaving: return "leaving";
        case NodeState::left: return "left";
    }
    return "unknown";
}
std::string_view to_string(FenceState state) {
    switch (state) {
        case FenceState::none: return "none";
        case FenceState::requested: return "requested";
        case FenceState::verified: return "verified";
        case FenceState::confirmed_down: return "confirmed-down";
    }
    return "unknown";
}
std::string_view to_string(GuestWish wish) {
    return wish == GuestWish::running ? "running" : "stopped";
}
std::string_view to_string(GuestPhase phase) {
    switch (phase) {
        case GuestPhase::starting: return "starting";
        case GuestPhase::running: return "running";
        case GuestPhase::stopping: return "stopping";
    }
    return "unknown";
}
std::string_view to_string(MigrationPhase phase) {
    return phase == MigrationPhase::prepared ? "prepared" : "preparing";
}
std::string_view to_string(OperationState state) {
    switch (state) {
        case OperationState::pending: return "pending";
        case OperationState::running: return "running";
        case OperationState::succeeded: return "succeeded";
        case OperationState::failed: return "failed";
    }
    return "unknown";
}

}  // namespace gemel
