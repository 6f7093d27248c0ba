// Records: the values of the cluster store besides VolumeRecord. Plain data, committed facts or wishes as the
// comments say; nothing here is an observation. One record is one key; keys are made by the functions at the
// end. Encoding: records_json.hpp; layout and rules: docs/formats/store.md,
// docs/design/0005-what-the-store-holds.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "core/formats/volume_record.hpp"

namespace gemel {

// Every value starts with {"schema":N}. A number this program does not know is refused, never skipped
// (promise C8).
inline constexpr std::uint32_t kRecordSchema = 1;
// The feature level of this program; a node acts only while it lies inside the committed range.
inline constexpr std::uint32_t kFeatureLevel = 1;

struct FeatureRange {
    std::uint32_t low = 1;
    std::uint32_t high = 1;
    auto operator<=>(const FeatureRange&) const = default;
    bool holds(std::uint32_t level) const { return low <= level && level <= high; }
};

// A voter of the store. A witness is a voter without a node record.
struct VoterRecord {
    std::string name;
    std::string peer_url;
    std::string client_url;
    bool witness = false;
    auto operator<=>(const VoterRecord&) const = default;
};

// All in milliseconds of CLOCK_BOOTTIME; the chain is checked by check_time_chain() before anything starts.
struct TimingRecord {
    std::uint32_t heartbeat_ms = 250;
    std::uint32_t suspicion_ms = 1000;
    std::uint32_t link_loss_ms = 2000;
    std::uint32_t lease_ms = 10000;     // L
    std::uint32_t watchdog_ms = 15000;  // W
    std::uint32_t margin_ms = 5000;
    std::uint32_t fence_bound_ms = 60000;  // a fence proves a loss only within this time of it
    std::uint32_t ask_ms = 3000;           // a node asked to release has this long to answer
    std::uint32_t restart_grace_ms =
        15000;  // daemons may be silent this long while their store member answers
    std::uint32_t witness_absent_ms = 600000;  // after this the nodes commit the removal of a silent witness
    auto operator<=>(const TimingRecord&) const = default;
    // regrant without a verified fence: L x 1.01 + W + margin
    std::uint32_t regrant_ms() const { return lease_ms + lease_ms / 100 + watchdog_ms + margin_ms; }
};
// error: one line naming the two values that contradict each other
Status check_time_chain(const TimingRecord& timing);

struct ClusterRecord {
    ClusterId id;
    std::string name;
    FeatureRange features;
    std::vector<VoterRecord> voters;
    // A member change in progress (one at a time): committed before etcd's own member call, cleared after it.
    std::string adding_voter;    // empty: none
    std::string removing_voter;  // empty: none
    TimingRecord timing;
    bool operator==(const ClusterRecord&) const = default;
};

// Key "lineage": compared by value in every transaction. A new one is made whenever a single member is
// forced.
struct LineageRecord {
    static constexpr std::size_t kMaxAncestors = 32;
    LineageId id;
    std::vector<LineageId> ancestors;  // newest first
    std::string forced_by;             // node; empty for the first
    std::string reason;
    bool operator==(const LineageRecord&) const = default;
};

enum class NodeState : std::uint8_t {
    member,   // takes part
    leaving,  // a clean leave has begun: nothing is placed here any more
    left,     // clean leave committed: guests stopped or moved, leases released, blockd closed
};

enum class FenceState : std::uint8_t {
    none,
    requested,       // committed before the agent runs
    verified,        // an agent verified the node off
    confirmed_down,  // the operator vouched and the regrant bound was waited out
};

// What is committed about the end of one incarnation of a node.
struct FenceRecord {
    FenceState state = FenceState::none;
    Incarnation incarnation;  // the life that was lost; proves nothing about any other
    std::string by;           // node that fenced
    std::string device;       // fence device, or empty
    std::uint32_t attempt = 0;
    bool power_on_done = false;  // committed before the victim is powered on, so that it happens once
    auto operator<=>(const FenceRecord&) const = default;
};

struct NodeRecord {
    NodeId id;
    std::string name;
    std::string control;                       // address:port of clusterd
    std::map<std::string, std::string> links;  // link name -> address:port of blockd
    Incarnation incarnation;  // the life that registered last; a node does nothing before this is its own
    Uuid member_nonce;        // of its store member's data directory; renewed at each start
    // The ones before it, newest first. A directory that still has one of these is an old image, whoever
    // says so and however old his own knowledge is (H8, H39).
    std::vector<Uuid> former_nonces;
    static constexpr std::size_t kMaxFormerNonces = 16;
    NodeState state = NodeState::member;
    Incarnation left_incarnation;  // the life that left cleanly (nil: none)
    FenceRecord fence;
    std::uint32_t feature_level = kFeatureLevel;
    std::string version;
    std::uint64_t memory_bytes = 0;
    bool watchdog_armed = false;  // armed and read back
    bool drained = false;         // guests move away and none is placed here until it is undrained
    bool operator==(const NodeRecord&) const = default;
};

struct PoolRecord {
    std::string node;
    std::string name;
    std::string path;
    std::uint64_t total_bytes = 0;
    bool operator==(const PoolRecord&) const = default;
};

enum class GuestWish : std::uint8_t { stopped, running };
enum class GuestPhase : std::uint8_t {
    starting,  // leases granted, domain being started
    running,
    stopping,  // being shut down; leases still held
};

// Where a guest is: present exactly while its volumes' leases are granted for it.
struct PlacementRecord {
    std::string node;
    Incarnation incarnation;
    std::map<std::string, std::uint64_t> epochs;  // volume name -> lease epoch of this start
    GuestPhase phase = GuestPhase::starting;
    bool operator==(const PlacementRecord&) const = default;
};

enum class MigrationPhase : std::uint8_t {
    preparing,  // the destination opens its front ends and its gate
    prepared,   // libvirt may move the guest
};

// A live migration: from its request until the placement names the destination, or it was given up. The
// volumes' handover grants begin and end in the same transactions.
struct MigrationRecord {
    std::string node;         // destination
    Incarnation incarnation;  // its life
    MigrationPhase phase = MigrationPhase::preparing;
    std::string gate;    // address:port where the destination takes the guest's memory; empty: not yet known
    std::string secret;  // 32 hex digits: what the gate asks for
    std::uint64_t bandwidth_bytes = 0;  // a second; 0: as fast as the link
    std::uint32_t downtime_ms = 300;    // the pause to aim at
    bool auto_converge = true;          // slow the guest down where it writes faster than the link
    bool cancel = false;                // the operator's wish
    OperationId operation;
    bool operator==(const MigrationRecord&) const = default;
};

struct GuestDisk {
    std::string target;  // vda ...
    std::string volume;
    auto operator<=>(const GuestDisk&) const = default;
};
struct GuestNic {
    std::string bridge;
    std::string mac;
    auto operator<=>(const GuestNic&) const = default;
};

struct GuestRecord {
    // Then blocked until an operator starts it (promise C10): tried so often, or so many hosts ended with it
    // (the first may be chance, and a pair has two).
    static constexpr std::uint32_t kMaxRestarts = 5;
    static constexpr std::uint32_t kMaxHostLosses = 2;
    std::string name;
    GuestId uuid;
    std::string template_text;  // libvirt domain template, opaque here (core/guest)
    std::uint64_t memory_bytes = 0;
    std::uint32_t vcpus = 0;
    std::vector<GuestDisk> disks;
    std::vector<GuestNic> nics;
    std::uint32_t priority = 100;  // higher starts first
    std::string preferred_node;
    GuestWish wish = GuestWish::stopped;
    bool power_off = false;  // how to stop: pull the plug instead of asking
    std::optional<PlacementRecord> placement;
    std::uint32_t restarts = 0;     // attempts since the operator last started it
    std::uint32_t host_losses = 0;  // of those, ended by the loss of the node
    std::string last_error;
    std::string pinned_node;                   // the operator's choice for this start only
    std::optional<MigrationRecord> migration;  // only while placed, on another node than its destination
    bool operator==(const GuestRecord&) const = default;
};

struct FenceDeviceRecord {
    std::string name;
    std::string node;   // the node it can power off
    std::string agent;  // fence_ipmilan, or an absolute path
    std::map<std::string, std::string> options;
    std::map<std::string, std::string> secrets;  // never given out
    std::uint32_t timeout_ms = 20000;
    bool operator==(const FenceDeviceRecord&) const = default;
};

enum class OperationState : std::uint8_t { pending, running, succeeded, failed };
// A request of an operator, its progress and its outcome. Each step is committed before it is acted on; a
// step may be executed twice. Kept until it falls out of the ring of finished ones.
struct OperationRecord {
    static constexpr std::size_t kMaxFinished = 100;
    OperationId id;
    std::string kind;    // "volume.create", "vm.start", ... as in api/openapi.yaml
    std::string object;  // "volume/web1-root"
    std::string node;    // where the request came in, or where the thing shall happen
    OperationState state = OperationState::pending;
    std::string step;
    std::map<std::string, std::string> arguments;
    std::map<std::string, std::string> done;  // node -> "ok" or the error, for steps that several nodes take
    std::string error_code;                   // to_string(ErrorCode)
    std::string error;
    std::map<std::string, std::string> result;
    bool operator==(const OperationRecord&) const = default;
};

struct EventRecord {
    std::string severity;  // info, warning, error, critical
    std::string kind;      // "node.fenced"
    std::string object;    // "node/node2"
    std::string node;      // who saw or did it
    std::string message;
    std::int64_t wall_ms = 0;  // for human eyes only
    bool operator==(const EventRecord&) const = default;
};
// One slot of a node's ring. Sequence of events()[i] = mod_revision * kSlotEvents + i: order of commit,
// unique.
struct EventBatchRecord {
    static constexpr std::size_t kSlotEvents = 16;
    static constexpr std::uint32_t kSlots = 32;  // per node
    std::vector<EventRecord> events;
    bool operator==(const EventBatchRecord&) const = default;
};

// Election key; lives under an etcd lease. Its create_revision is the term.
struct CoordinatorRecord {
    std::string node;
    Incarnation incarnation;
    bool operator==(const CoordinatorRecord&) const = default;
};

// The last link of a node's chain of transactions: which operation it wrote last. See
// core/cluster/txn_queue.hpp.
struct AppliedRecord {
    OperationId operation;
    std::string kind;  // "txn", "barrier", "seal"
    bool operator==(const AppliedRecord&) const = default;
};

// ---- keys
// ------------------------------------------------------------------------------------------------------
namespace keys {
inline constexpr std::string_view kRoot = "/gemel/";
inline constexpr std::string_view kCluster = "/gemel/cluster";
inline constexpr std::string_view kLineage = "/gemel/lineage";
inline constexpr std::string_view kCoordinator = "/gemel/coordinator";
inline constexpr std::string_view kNodes = "/gemel/nodes/";
inline constexpr std::string_view kPools = "/gemel/pools/";  // <node>/<pool>
inline constexpr std::string_view kVolumes = "/gemel/volumes/";
inline constexpr std::string_view kGuests = "/gemel/guests/";
inline constexpr std::string_view kFence = "/gemel/fence/";
inline constexpr std::string_view kOperations = "/gemel/operations/";
inline constexpr std::string_view kEvents = "/gemel/events/";    // <node>/<slot>
inline constexpr std::string_view kApplied = "/gemel/applied/";  // <node>
std::string node(std::string_view name);
std::string pool(std::string_view node, std::string_view name);
std::string volume(std::string_view name);
std::string guest(std::string_view name);
std::string fence(std::string_view name);
std::string operation(const OperationId& id);
std::string events(std::string_view node, std::uint32_t slot);
std::string applied(std::string_view node);
}  // namespace keys

// Lower case letters, digits and dashes, 1..40, begins and ends with a letter or digit.
bool is_valid_name(std::string_view name);

// DRBD's and the API's words
std::string_view to_string(ReplicaState state);
std::string_view to_string(AckMode mode);
std::string_view to_string(NodeState state);
std::string_view to_string(FenceState state);
std::string_view to_string(GuestWish wish);
std::string_view to_string(GuestPhase phase);
std::string_view to_string(MigrationPhase phase);
std::string_view to_string(OperationState state);

}  // namespace gemel
