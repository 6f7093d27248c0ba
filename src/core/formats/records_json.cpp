#include "core/formats/records_json.hpp"

#include <array>

#include "core/formats/json_fields.hpp"

namespace gemel::json_fields {

template <>
struct Words<ReplicaState> {
    static constexpr std::array<const char*, 6> kList{"Diskless", "Failed",     "Inconsistent",
                                                      "Outdated", "Consistent", "UpToDate"};
};
template <>
struct Words<AckMode> {
    static constexpr std::array<const char*, 2> kList{"writeback", "stable"};
};
template <>
struct Words<NodeState> {
    static constexpr std::array<const char*, 3> kList{"member", "leaving", "left"};
};
template <>
struct Words<FenceState> {
    static constexpr std::array<const char*, 4> kList{"none", "requested", "verified", "confirmed-down"};
};
template <>
struct Words<GuestWish> {
    static constexpr std::array<const char*, 2> kList{"stopped", "running"};
};
template <>
struct Words<GuestPhase> {
    static constexpr std::array<const char*, 3> kList{"starting", "running", "stopping"};
};
template <>
struct Words<MigrationPhase> {
    static constexpr std::array<const char*, 2> kList{"preparing", "prepared"};
};
template <>
struct Words<OperationState> {
    static constexpr std::array<const char*, 4> kList{"pending", "running", "succeeded", "failed"};
};

}  // namespace gemel::json_fields

namespace gemel {
namespace {

template <typename T, typename Plain>
concept Is = std::is_same_v<std::remove_const_t<T>, Plain>;

}  // namespace

// One function per struct, found by argument-dependent lookup from Writer and Reader. T is const or not.
template <typename V, Is<Generation> T>
void fields(V& v, T& r) {
    v("id", r.id);
    v("parent", r.parent);
    v("counter", r.counter);
}
template <typename V, Is<ReplicaRecord> T>
void fields(V& v, T& r) {
    v("node", r.node);
    v("replica", r.replica);
    v("pool", r.pool);
    v("state", r.state);
    v("in_ack_set", r.in_ack_set);
}
template <typename V, Is<OwnerRecord> T>
void fields(V& v, T& r) {
    v("node", r.node);
    v("incarnation", r.incarnation);
    v("epoch", r.epoch);
    v("secret", r.secret);
    v("revoking", r.revoking);
    v("purpose", r.purpose);
}
template <typename V, Is<HandoverRecord> T>
void fields(V& v, T& r) {
    v("node", r.node);
    v("incarnation", r.incarnation);
    v("epoch", r.epoch);
    v("secret", r.secret);
}
template <typename V, Is<VolumeRecord> T>
void fields(V& v, T& r) {
    v("id", r.id);
    v("name", r.name);
    v("size_bytes", r.size_bytes);
    v("ack_mode", r.ack_mode);
    v("generation", r.generation);
    v("ancestors", r.ancestors);
    v("replicas", r.replicas);
    v("owner", r.owner);
    v("epoch", r.epoch);
    v("handover", r.handover);
}
template <typename V, Is<FeatureRange> T>
void fields(V& v, T& r) {
    v("low", r.low);
    v("high", r.high);
}
template <typename V, Is<VoterRecord> T>
void fields(V& v, T& r) {
    v("name", r.name);
    v("peer_url", r.peer_url);
    v("client_url", r.client_url);
    v("witness", r.witness);
}
template <typename V, Is<TimingRecord> T>
void fields(V& v, T& r) {
    v("heartbeat_ms", r.heartbeat_ms);
    v("suspicion_ms", r.suspicion_ms);
    v("link_loss_ms", r.link_loss_ms);
    v("lease_ms", r.lease_ms);
    v("watchdog_ms", r.watchdog_ms);
    v("margin_ms", r.margin_ms);
    v("fence_bound_ms", r.fence_bound_ms);
    v("ask_ms", r.ask_ms);
    v("restart_grace_ms", r.restart_grace_ms);
    v("witness_absent_ms", r.witness_absent_ms);
}
template <typename V, Is<ClusterRecord> T>
void fields(V& v, T& r) {
    v("id", r.id);
    v("name", r.name);
    v("features", r.features);
    v("voters", r.voters);
    v("adding_voter", r.adding_voter);
    v("removing_voter", r.removing_voter);
    v("timing", r.timing);
}
template <typename V, Is<LineageRecord> T>
void fields(V& v, T& r) {
    v("id", r.id);
    v("ancestors", r.ancestors);
    v("forced_by", r.forced_by);
    v("reason", r.reason);
}
template <typename V, Is<FenceRecord> T>
void fields(V& v, T& r) {
    v("state", r.state);
    v("incarnation", r.incarnation);
    v("by", r.by);
    v("device", r.device);
    v("attempt", r.attempt);
    v("power_on_done", r.power_on_done);
}
template <typename V, Is<NodeRecord> T>
void fields(V& v, T& r) {
    v("id", r.id);
    v("name", r.name);
    v("control", r.control);
    v("links", r.links);
    v("incarnation", r.incarnation);
    v("member_nonce", r.member_nonce);
    v("former_nonces", r.former_nonces);
    v("state", r.state);
    v("left_incarnation", r.left_incarnation);
    v("fence", r.fence);
    v("feature_level", r.feature_level);
    v("version", r.version);
    v("memory_bytes", r.memory_bytes);
    v("watchdog_armed", r.watchdog_armed);
    v("drained", r.drained);
}
template <typename V, Is<PoolRecord> T>
void fields(V& v, T& r) {
    v("node", r.node);
    v("name", r.name);
    v("path", r.path);
    v("total_bytes", r.total_bytes);
}
template <typename V, Is<PlacementRecord> T>
void fields(V& v, T& r) {
    v("node", r.node);
    v("incarnation", r.incarnation);
    v("epochs", r.epochs);
    v("phase", r.phase);
}
template <typename V, Is<MigrationRecord> T>
void fields(V& v, T& r) {
    v("node", r.node);
    v("incarnation", r.incarnation);
    v("phase", r.phase);
    v("gate", r.gate);
    v("secret", r.secret);
    v("bandwidth_bytes", r.bandwidth_bytes);
    v("downtime_ms", r.downtime_ms);
    v("auto_converge", r.auto_converge);
    v("cancel", r.cancel);
    v("operation", r.operation);
}
template <typename V, Is<GuestDisk> T>
void fields(V& v, T& r) {
    v("target", r.target);
    v("volume", r.volume);
}
template <typename V, Is<GuestNic> T>
void fields(V& v, T& r) {
    v("bridge", r.bridge);
    v("mac", r.mac);
}
template <typename V, Is<GuestRecord> T>
void fields(V& v, T& r) {
    v("name", r.name);
    v("uuid", r.uuid);
    v("template_text", r.template_text);
    v("memory_bytes", r.memory_bytes);
    v("vcpus", r.vcpus);
    v("disks", r.disks);
    v("nics", r.nics);
    v("priority", r.priority);
    v("preferred_node", r.preferred_node);
    v("wish", r.wish);
    v("power_off", r.power_off);
    v("placement", r.placement);
    v("restarts", r.restarts);
    v("host_losses", r.host_losses);
    v("last_error", r.last_error);
    v("pinned_node", r.pinned_node);
    v("migration", r.migration);
}
template <typename V, Is<FenceDeviceRecord> T>
void fields(V& v, T& r) {
    v("name", r.name);
    v("node", r.node);
    v("agent", r.agent);
    v("options", r.options);
    v("secrets", r.secrets);
    v("timeout_ms", r.timeout_ms);
}
template <typename V, Is<OperationRecord> T>
void fields(V& v, T& r) {
    v("id", r.id);
    v("kind", r.kind);
    v("object", r.object);
    v("node", r.node);
    v("state", r.state);
    v("step", r.step);
    v("arguments", r.arguments);
    v("done", r.done);
    v("error_code", r.error_code);
    v("error", r.error);
    v("result", r.result);
}
template <typename V, Is<EventRecord> T>
void fields(V& v, T& r) {
    v("severity", r.severity);
    v("kind", r.kind);
    v("object", r.object);
    v("node", r.node);
    v("message", r.message);
    v("wall_ms", r.wall_ms);
}
template <typename V, Is<EventBatchRecord> T>
void fields(V& v, T& r) {
    v("events", r.events);
}
template <typename V, Is<CoordinatorRecord> T>
void fields(V& v, T& r) {
    v("node", r.node);
    v("incarnation", r.incarnation);
}
template <typename V, Is<AppliedRecord> T>
void fields(V& v, T& r) {
    v("operation", r.operation);
    v("kind", r.kind);
}

namespace {

template <typename Record>
std::string encode_any(const Record& record) {
    json_fields::Json object = json_fields::Json::object();
    object["schema"] = kRecordSchema;
    json_fields::Writer writer(object);
    fields(writer, record);
    // Text that is not UTF-8 cannot come in through decode(); it is replaced rather than thrown at us.
    return object.dump(-1, ' ', false, json_fields::Json::error_handler_t::replace);
}

// What the field list cannot say: relations between fields. Empty: fine.
template <typename Record>
std::string contradiction(const Record&) {
    return {};
}
template <>
std::string contradiction(const VolumeRecord& r) {
    if (!is_valid_name(r.name)) return "the name is not a valid one";
    if (r.size_bytes == 0 || r.size_bytes % 4096 != 0) return "size_bytes must be a multiple of 4096";
    if (r.replicas.empty() || r.replicas.size() > 2) return "expected one or two replicas";
    if (r.replicas.size() == 2 && r.replicas[0].node == r.replicas[1].node) return "two replicas on one node";
    if (r.ancestors.size() > VolumeRecord::kMaxAncestors) return "too many ancestors";
    if (r.owner && r.owner->epoch != r.epoch) return "the owner's epoch must be the highest one";
    if (r.handover && (!r.owner || r.owner->node == r.handover->node))
        return "a handover is from an owner to another node";
    if (r.handover && r.handover->epoch <= r.epoch) return "a handover's epoch is above all granted ones";
    return {};
}
template <>
std::string contradiction(const GuestRecord& r) {
    if (r.migration && (!r.placement || r.placement->node == r.migration->node))
        return "a migration is from where the guest is placed to another node";
    return {};
}
template <>
std::string contradiction(const ClusterRecord& r) {
    if (r.voters.empty()) return "a cluster has at least one voter";
    if (r.features.low > r.features.high) return "the feature range is empty";
    if (auto chain = check_time_chain(r.timing); !chain) return chain.error().message;
    return {};
}
template <>
std::string contradiction(const LineageRecord& r) {
    if (r.id.is_nil()) return "a lineage has an id";
    return r.ancestors.size() > LineageRecord::kMaxAncestors ? "too many ancestors" : "";
}
template <>
std::string contradiction(const EventBatchRecord& r) {
    return r.events.size() > EventBatchRecord::kSlotEvents ? "too many events in a batch" : "";
}

template <typename Record>
Result<Record> decode_any(std::string_view text) {
    if (text.size() > kMaxRecordBytes) return fail(ErrorCode::corrupt, "store record: longer than 1 MiB");
    const auto json = json_fields::Json::parse(text.begin(), text.end(), nullptr, false);
    if (!json.is_object()) return fail(ErrorCode::corrupt, "store record: expected one JSON object");
    const auto schema = json.find("schema");
    if (schema == json.end() || !schema->is_number_unsigned()) {
        return fail(ErrorCode::corrupt, "store record: field 'schema' is missing");
    }
    if (schema->template get<std::uint64_t>() != kRecordSchema) {
        return fail(ErrorCode::unsupported, "store record: schema " + schema->dump() +
                                                ", this program knows " + std::to_string(kRecordSchema) +
                                                "; upgrade gemel on this node");
    }
    Record record;
    std::string error;
    json_fields::Reader reader(json, error, "store record");
    std::uint32_t number = 0;
    reader("schema", number);
    fields(reader, record);
    reader.finish();
    if (!error.empty()) return fail(ErrorCode::corrupt, error);
    if (auto why = contradiction(record); !why.empty())
        return fail(ErrorCode::corrupt, "store record: " + why);
    return record;
}

}  // namespace

std::string encode(const VolumeRecord& record) {
    return encode_any(record);
}
std::string encode(const ClusterRecord& record) {
    return encode_any(record);
}
std::string encode(const LineageRecord& record) {
    return encode_any(record);
}
std::string encode(const NodeRecord& record) {
    return encode_any(record);
}
std::string encode(const PoolRecord& record) {
    return encode_any(record);
}
std::string encode(const GuestRecord& record) {
    return encode_any(record);
}
std::string encode(const FenceDeviceRecord& record) {
    return encode_any(record);
}
std::string encode(const OperationRecord& record) {
    return encode_any(record);
}
std::string encode(const EventBatchRecord& record) {
    return encode_any(record);
}
std::string encode(const CoordinatorRecord& record) {
    return encode_any(record);
}
std::string encode(const AppliedRecord& record) {
    return encode_any(record);
}

template <>
Result<VolumeRecord> decode(std::string_view text) {
    return decode_any<VolumeRecord>(text);
}
template <>
Result<ClusterRecord> decode(std::string_view text) {
    return decode_any<ClusterRecord>(text);
}
template <>
Result<LineageRecord> decode(std::string_view text) {
    return decode_any<LineageRecord>(text);
}
template <>
Result<NodeRecord> decode(std::string_view text) {
    return decode_any<NodeRecord>(text);
}
template <>
Result<PoolRecord> decode(std::string_view text) {
    return decode_any<PoolRecord>(text);
}
template <>
Result<GuestRecord> decode(std::string_view text) {
    return decode_any<GuestRecord>(text);
}
template <>
Result<FenceDeviceRecord> decode(std::string_view text) {
    return decode_any<FenceDeviceRecord>(text);
}
template <>
Result<OperationRecord> decode(std::string_view text) {
    return decode_any<OperationRecord>(text);
}
template <>
Result<EventBatchRecord> decode(std::string_view text) {
    return decode_any<EventBatchRecord>(text);
}
template <>
Result<CoordinatorRecord> decode(std::string_view text) {
    return decode_any<CoordinatorRecord>(text);
}
template <>
Result<AppliedRecord> decode(std::string_view text) {
    return decode_any<AppliedRecord>(text);
}

}  // namespace gemel
