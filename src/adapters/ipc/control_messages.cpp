#include "adapters/ipc/control_messages.hpp"

#include <array>

#include <nlohmann/json.hpp>

#include "core/formats/json_fields.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::json_fields {

template <>
struct Words<ReplicaState> {
    static constexpr std::array<const char*, 6> kList{"Diskless", "Failed",     "Inconsistent",
                                                      "Outdated", "Consistent", "UpToDate"};
};
template <>
struct Words<replication::Role> {
    static constexpr std::array<const char*, 2> kList{"secondary", "primary"};
};
template <>
struct Words<replication::ConnectionState> {
    static constexpr std::array<const char*, 4> kList{"StandAlone", "Connecting", "Handshake", "Connected"};
};
template <>
struct Words<replication::SyncState> {
    static constexpr std::array<const char*, 3> kList{"Off", "SyncSource", "SyncTarget"};
};
template <>
struct Words<replication::FreezeReason> {
    static constexpr std::array<const char*, 8> kList{"none",         "not_primary", "lease_lapsed",
                                                      "peer_lost",    "handshake",   "metadata",
                                                      "local_failed", "disk_lost"};
};
template <>
struct Words<replication::ProposalKind> {
    static constexpr std::array<const char*, 3> kList{"peer_left", "peer_joined", "local_failed"};
};

}  // namespace gemel::json_fields

namespace gemel {

template <typename V, typename T>
requires std::is_same_v<std::remove_const_t<T>, Generation>
void fields(V& v, T& generation) {
    v("id", generation.id);
    v("parent", generation.parent);
    v("counter", generation.counter);
}

namespace replication {

template <typename V, typename T>
requires std::is_same_v<std::remove_const_t<T>, View>
void fields(V& v, T& view) {
    v("attached", view.attached);
    v("role", view.role);
    v("local_state", view.local_state);
    v("peer_state", view.peer_state);
    v("connection", view.connection);
    v("sync", view.sync);
    v("frozen", view.frozen);
    v("generation", view.generation);
    v("epoch", view.epoch);
    v("epoch_floor", view.epoch_floor);
    v("refused_epoch", view.refused_epoch);
    v("incoming_epoch", view.incoming_epoch);
    v("early_requests", view.early_requests);
    v("record_revision", view.record_revision);
    v("lease_until_ns", view.lease_until.nanoseconds_since_boot);
    v("dirty_bytes", view.dirty_bytes);
    v("resync_done_bytes", view.resync_done_bytes);
    v("resync_total_bytes", view.resync_total_bytes);
    v("active_extents", view.active_extents);
    v("requests_in_flight", view.requests_in_flight);
    v("problem", view.problem);
}

}  // namespace replication
}  // namespace gemel

namespace gemel::ipc {
namespace {

using nlohmann::json;

struct ProposeHead {
    std::uint64_t proposal = 0;
    replication::ProposalKind kind = replication::ProposalKind::peer_left;
    std::uint64_t expected_revision = 0;
    LineageId expected_lineage;
};
template <typename V, typename T>
requires std::is_same_v<std::remove_const_t<T>, ProposeHead>
void fields(V& v, T& head) {
    v("proposal", head.proposal);
    v("kind", head.kind);
    v("expected_revision", head.expected_revision);
    v("expected_lineage", head.expected_lineage);
}

struct CommittedHead {
    std::uint64_t revision = 0;
    LineageId lineage;
};
template <typename V, typename T>
requires std::is_same_v<std::remove_const_t<T>, CommittedHead>
void fields(V& v, T& head) {
    v("revision", head.revision);
    v("lineage", head.lineage);
}

template <typename T>
Result<T> read(const json& in, const char* what) {
    T value;
    std::string error;
    json_fields::Reader reader(in, error, what);
    fields(reader, value);
    reader.finish();
    if (!error.empty()) return fail(ErrorCode::invalid_argument, error);
    return value;
}

// The object without one member, and that member as a record.
Result<VolumeRecord> split(const json& in, const char* member, json& rest) {
    if (!in.is_object() || !in.contains(member))
        return fail(ErrorCode::invalid_argument, std::string("an object with '") + member + "' is expected");
    rest = in;
    rest.erase(member);
    return decode<VolumeRecord>(in[member].dump());
}

constexpr std::array<std::string_view, 3> kOutcomes{"committed", "refused", "unknown"};

}  // namespace

json encode_view(const replication::View& view) {
    return json_fields::Writer::make(view);
}
Result<replication::View> decode_view(const json& in) {
    return read<replication::View>(in, "view");
}

json encode_generation(const Generation& generation) {
    return json_fields::Writer::make(generation);
}
Result<Generation> decode_generation(const json& in) {
    return read<Generation>(in, "generation");
}

json encode_committed(const CommittedVolume& committed) {
    json out = json_fields::Writer::make(CommittedHead{committed.revision, committed.lineage});
    out["record"] = json::parse(encode(committed.record));
    return out;
}

Result<CommittedVolume> decode_committed(const json& in) {
    json rest;
    auto record = split(in, "record", rest);
    if (!record) return tl::unexpected<Error>(record.error());
    const auto head = read<CommittedHead>(rest, "committed");
    if (!head) return tl::unexpected<Error>(head.error());
    return CommittedVolume{std::move(*record), head->revision, head->lineage};
}

json encode_propose(const replication::Propose& propose) {
    json out = json_fields::Writer::make(
        ProposeHead{propose.proposal, propose.kind, propose.expected_revision, propose.expected_lineage});
    out["next"] = json::parse(encode(propose.next));
    return out;
}

Result<replication::Propose> decode_propose(const json& in) {
    json rest;
    auto next = split(in, "next", rest);
    if (!next) return tl::unexpected<Error>(next.error());
    rest.erase("event");
    rest.erase("volume");
    rest.erase("volume_id");
    const auto head = read<ProposeHead>(rest, "propose");
    if (!head) return tl::unexpected<Error>(head.error());
    return replication::Propose{head->proposal, head->kind, head->expected_revision, head->expected_lineage,
                                std::move(*next)};
}

std::string_view to_string(replication::ProposalOutcome outcome) {
    return kOutcomes[static_cast<std::size_t>(outcome)];
}

Result<replication::ProposalOutcome> parse_outcome(std::string_view word) {
    for (std::size_t i = 0; i < kOutcomes.size(); ++i)
        if (kOutcomes[i] == word) return static_cast<replication::ProposalOutcome>(i);
    return fail(ErrorCode::invalid_argument, "committed, refused or unknown is expected");
}

}  // namespace gemel::ipc
