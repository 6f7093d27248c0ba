#include "sim/checkers/convergence.hpp"

namespace gemel::sim {

std::string_view ConvergenceChecker::missing(const VolumeRecord& record,
                                             const std::array<replication::View, 2>& engines, bool guest_runs,
                                             bool control_settled) {
    if (!record.owner) return "nobody owns the volume";
    if (!guest_runs) return "the guest does not run";
    if (!control_settled) return "the control plane has not settled";
    for (std::uint32_t node = 0; node < 2; ++node) {
        const ReplicaRecord& replica = record.replicas[node];
        if (!replica.in_ack_set || replica.state != ReplicaState::up_to_date)
            return "a replica is not UpToDate in the ack set";
        const replication::View& view = engines[node];
        if (view.connection != replication::ConnectionState::connected) return "an engine is not Connected";
        if (view.sync != replication::SyncState::off) return "a resync runs";
        if (view.role != replication::Role::primary) continue;
        if (view.dirty_bytes != 0) return "blocks are dirty";
        if (view.frozen != replication::FreezeReason::none) return "the volume is frozen";
    }
    return {};
}

std::string_view ConvergenceChecker::left_over(const std::array<replication::View, 2>& engines) {
    for (const replication::View& view : engines) {
        if (view.requests_in_flight != 0) return "requests stay in flight with an idle guest";
    }
    return {};
}

}  // namespace gemel::sim
