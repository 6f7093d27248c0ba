// Views: what status, list, show, explain and plan answer, as plain data in the words of api/openapi.yaml;
// made by pure functions from the tables and the node's facts. Turning them into JSON is the daemon's.
// nullopt is null ("not known").
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/cluster/store.hpp"

namespace gemel::cluster {

struct VoterView {
    std::string name;
    std::string kind;   // node, witness
    std::string state;  // up, down, unknown, rejected
};
struct StoreView {
    std::string state;  // quorate, waiting-for-peer, no-quorum, forcing, old, split-brain, unknown
    std::optional<std::string> lineage;
    std::optional<std::uint64_t> revision;
    std::vector<VoterView> voters;
};
struct LinkView {
    std::string name;
    std::string address;
    std::string state;  // up, down, unknown
};
struct RungView {
    std::string kind;   // clean-leave, fence-device, watchdog, confirm-down
    std::string state;  // ok, failing, untested, absent
    std::optional<std::string> device;
    std::optional<std::int64_t> tested_wall_ms;
    std::optional<std::uint32_t> bound_ms;
    std::optional<std::string> detail;
};
struct PoolView {
    std::string name;
    std::optional<std::uint64_t> total_bytes;
    std::optional<std::uint64_t> free_bytes;
};
struct NodeView {
    std::string name;
    std::string id;
    std::string state;  // online, suspected, releasing, fencing, fenced, confirmed-down, left, joining,
                        // offline, unknown
    std::vector<std::string> roles;
    bool voter = false;
    bool drained = false;
    std::optional<std::string> incarnation;
    std::optional<bool> standing;
    std::optional<std::string> version;
    std::vector<std::string> addresses;
    std::vector<LinkView> links;
    bool is_protected = false;
    std::vector<RungView> rungs;
    std::optional<std::uint64_t> memory_total_bytes;
    std::optional<std::uint64_t> memory_free_bytes;
    std::vector<PoolView> pools;
};
struct ReplicaView {
    std::string node;
    std::string disk;        // UpToDate ...
    std::string role;        // Primary, Secondary, Unknown
    std::string connection;  // Connected, Connecting, StandAlone, SyncSource, SyncTarget, Unknown
    std::optional<std::uint64_t> resync_done_bytes;
    std::optional<std::uint64_t> resync_total_bytes;
};
struct OwnerView {
    std::string node;
    std::uint64_t epoch = 0;
    std::string lease;  // held, lapsed, revoking, unknown
    std::optional<std::string> front_end;
};
struct ExportView {
    std::string node;
    std::uint64_t epoch = 0;
    std::string secret;  // for the creator's answer only; the daemon makes the path of the socket
    bool read_only = false;
};
struct VolumeView {
    std::string name;
    std::string id;
    std::uint64_t size_bytes = 0;
    std::string pool;
    std::string ack_mode;
    std::string state;  // ok, resync, degraded, frozen, split-brain, unavailable, creating, deleting, unknown
    std::optional<std::uint64_t> generation;
    std::optional<std::uint64_t> revision;
    std::vector<std::string> ack_set;
    std::optional<OwnerView> owner;
    std::vector<ReplicaView> replicas;
    std::optional<std::string> vm;
    std::optional<ExportView> exported;
};
struct GuestView {
    std::string name;
    std::string uuid;
    std::string state;                 // libvirt's words
    std::string desired;               // running, stopped
    std::optional<std::string> phase;  // starting, stopping, recovering, waiting, blocked
    std::optional<std::string> why;
    std::optional<std::string> node;
    std::optional<std::string> type;  // kvm, qemu
    std::string template_text;        // opaque here, as in the record
    std::uint64_t memory_bytes = 0;
    std::uint32_t vcpus = 0;
    std::vector<GuestDisk> disks;
    std::vector<GuestNic> nics;
    std::uint32_t priority = 0;
    std::optional<std::string> preferred_node;
    std::uint32_t restarts = 0;
    std::optional<MigrationRecord> migration;  // its secret is never shown
};
struct FenceDeviceView {
    FenceDeviceRecord device;          // secrets: names only may be shown
    std::string state;                 // ok, failing, untested
    std::optional<std::string> power;  // on, off, unknown
    std::optional<std::int64_t> tested_wall_ms;
    std::optional<std::string> detail;
};
struct ProblemView {
    std::string severity;  // critical, error, warning
    std::string object;    // "node/node2"
    std::string what;      // at most 70 characters
    std::string why;
    std::optional<std::string> next_command;
};
struct EventView {
    std::uint64_t sequence = 0;
    EventRecord event;
};
struct StatusView {
    std::string cluster_name;
    std::string cluster_id;
    std::string mode;  // one-node, two-nodes, two-nodes-witness
    std::string node;  // who answers
    bool stale = true;
    StoreView store;
    std::optional<std::string> coordinator;
    std::uint64_t term = 0;
    std::vector<NodeView> nodes;
    std::vector<VolumeView> volumes;
    std::vector<GuestView> guests;
    std::vector<OperationRecord> operations;  // unfinished
    std::vector<ProblemView> problems;        // worst first
};
struct NextView {
    std::string when;
    std::string then;
    std::optional<std::string> next_command;
};
struct ExplainView {
    std::string object;
    std::string now;
    std::vector<std::string> because;
    std::vector<NextView> next;
};
struct PlanView {
    std::string action;
    std::string object;
    bool allowed = false;
    std::optional<std::string> refusal;
    std::vector<std::string> will_do;
    std::vector<std::string> may_lose;
    std::optional<std::uint32_t> wait_ms;
    std::string confirm_name;
};

// Events of all nodes in order of commit, only sequences greater than `after`, the newest `limit` of them.
std::vector<EventView> list_events(const Tables& tables, std::uint64_t after, std::size_t limit);

}  // namespace gemel::cluster
