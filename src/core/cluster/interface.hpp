// The edges of one node's control plane: everything that can happen to it (Input) and everything it can ask
// for (Output). ClusterNode (node.hpp) is pure: step(now, input, outputs), next_deadline(), view functions.
// The same machine runs in gemel-clusterd and in the simulator. See
// docs/design/0006-seams-of-the-control-plane.md.
//
// Rules of the seam
//  * Completion is an input; outputs of one step may be executed in any order and at the same time. If B must
//  follow A,
//    B is emitted when A's completion has come in.
//  * Tags are the machine's; the driver returns them unchanged. An action without an answer after its
//  time-out is
//    answered by the driver with a failure or `unknown`; late answers are dropped by the driver or ignored
//    here.
//  * Every output may be repeated after a restart: executing one twice must do no more than once.
//  * The driver calls step() with Tick at least every 250 ms: a gap of more than a second costs the node its
//  standing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/instant.hpp"
#include "core/cluster/api.hpp"
#include "core/cluster/peer_message.hpp"
#include "core/cluster/store.hpp"
#include "core/replication/interface.hpp"

namespace gemel::cluster {

using Tag = std::uint64_t;

// ================================================== inputs
// =======================================================

struct Tick {
    std::int64_t wall_ms = 0;  // for events' times only, never compared
};

// ---- store ----
// A full linearizable read of /gemel/; the driver then watches from revision + 1. Sent again after WatchLost.
struct TableSnapshot {
    std::uint64_t revision = 0;
    std::vector<KeyValue> all;
};
struct WatchEvents {
    std::uint64_t revision = 0;
    std::vector<KeyChange> changes;
};
// Compacted, cancelled or disconnected: the tables are old until the next TableSnapshot (scenario H12).
struct WatchLost {};
struct TxnDone {
    Tag tag = 0;
    TxnOutcome outcome = TxnOutcome::unknown;
    std::uint64_t revision = 0;  // of the store after it, when known
};
struct ReadDone {  // answer to StoreRead
    Tag tag = 0;
    bool ok = false;
    Instant sent_at;
    std::uint64_t revision = 0;
    std::vector<KeyValue> values;
};
struct LeaseGranted {  // etcd lease for the election key; id 0: failed
    std::uint64_t id = 0;
};
struct LeaseLost {
    std::uint64_t id = 0;
};
struct StoreMemberView {
    std::string name;
    std::string peer_url;
    std::uint64_t id = 0;  // etcd's
    bool learner = false;
    bool answers = false;        // its client URL answered within the last second, whatever it said
    bool learner_ready = false;  // may be promoted
};
// Own store member as seen from outside, at every change and at least once a second.
struct StoreHealth {
    bool running = false;  // our member's process
    bool answers = false;
    bool rejected = false;                 // etcd said: this member was removed from the cluster
    std::string leader;                    // name, empty: none
    std::vector<StoreMemberView> members;  // as last listed
};
// What is on disk before the store is started; first input after construction.
struct BootFacts {
    bool store_present = false;  // a finished data directory
    Uuid member_nonce;           // stored beside it; nil: none
    Uuid next_member_nonce;      // a renewal that was begun and not finished; nil: none
    bool store_running = false;  // adopted: etcd outlived an earlier clusterd of this incarnation
};
// Answers to the StoreCommand outputs.
struct StoreCommandDone {
    Tag tag = 0;
    bool ok = false;
    std::string detail;
};

// ---- other nodes ----
struct PeerMessageIn {
    std::string path;  // "control" or a link's name
    PeerMessage message;
};

// ---- blockd ----
struct BlockdUp {
    SessionId process;
};
struct BlockdDown {};
struct BlockdSession {  // blockd's link to the peer's blockd, at every change
    std::string node;
    Incarnation incarnation;
    bool up = false;
    std::vector<std::string> links;  // paths that work now
};
struct BlockdVolume {  // at every change and at least once a second
    VolumeId volume;
    replication::View view;
    std::uint64_t front_sessions = 0;  // clients connected
};
struct BlockdProposal {
    VolumeId volume;
    replication::Propose propose;
};
struct BlockdNeedsRecord {
    VolumeId volume;
    std::uint64_t at_least_revision = 0;
};
struct BlockdEpochRefused {
    VolumeId volume;
    std::uint64_t epoch = 0;
};
struct BlockdDone {  // answers Format, Delete, SetAside, Release, CloseAll
    Tag tag = 0;
    bool ok = false;
    std::string error;       // one line
    std::string error_code;  // to_string(ErrorCode)
};

// ---- fence devices ----
enum class FenceOutcome : std::uint8_t { verified_off, on, failed, timed_out };
struct FenceDone {
    Tag tag = 0;
    FenceOutcome outcome = FenceOutcome::failed;  // `on`: answer of a status action, or still on after "off"
    std::string detail;
};

// ---- guests ----
enum class DomainState : std::uint8_t { running, paused, shutting_down, shut_off, crashed };
struct DomainView {
    GuestId uuid;
    std::string name;
    DomainState state = DomainState::running;
    std::string kind;  // "kvm" or "qemu"
};
// All domains of this node, complete; after every change and as the answer to ListDomains.
struct DomainList {
    std::vector<DomainView> domains;
};
struct DomainDone {  // answers StartDomain, ShutdownDomain, DestroyDomain
    Tag tag = 0;
    bool ok = false;
    std::string detail;
};
struct LibvirtDown {};

// ---- live migration ----
struct GateDone {  // answers OpenGate
    Tag tag = 0;
    bool ok = false;
    std::string address;  // address:port; with !ok: why not
};
struct MigrateDone {  // answers MigrateDomain: what libvirt says of it at the source
    Tag tag = 0;
    bool ok = false;
    std::string detail;
    std::uint32_t downtime_ms = 0;  // as QEMU measured it; 0: not known
};
// Of a MigrateDomain under way, about once a second.
struct MigrationProgress {
    GuestId uuid;
    std::uint64_t total_bytes = 0;
    std::uint64_t remaining_bytes = 0;
    std::uint64_t bytes_per_second = 0;
};

// ---- host ----
// At every change that matters and every few seconds.
struct HostFacts {
    HostResources resources;
};

// ---- operator ----
struct ApiRequest {
    Tag tag = 0;            // the driver's
    OperationId operation;  // the client's, or made by the driver
    ApiCommand command;
};
// The host is going down: leave cleanly (design brief 3.6). Answered by LeaveDone.
struct LeaveNode {};

using Input = std::variant<Tick, TableSnapshot, WatchEvents, WatchLost, TxnDone, ReadDone, LeaseGranted,
                           LeaseLost, StoreHealth, BootFacts, StoreCommandDone, PeerMessageIn, BlockdUp,
                           BlockdDown, BlockdSession, BlockdVolume, BlockdProposal, BlockdNeedsRecord,
                           BlockdEpochRefused, BlockdDone, FenceDone, DomainList, DomainDone, LibvirtDown,
                           GateDone, MigrateDone, MigrationProgress, HostFacts, ApiRequest, LeaveNode>;

// ================================================= outputs
// =======================================================

// ---- store ----
struct SubmitTxn {
    Tag tag = 0;
    Txn txn;
};
struct StoreRead {  // linearizable read of these prefixes (or exact keys when exact); answered by ReadDone
    Tag tag = 0;
    std::vector<std::string> keys;
    bool prefix = false;
    // true: whatever our own member has on its disk, without asking others: not a table (rule 2), but what a
    // claim about our store is made of, and what an operator may force
    bool serializable = false;
    // with `serializable`: whatever that other voter's member has applied, quorum or not; one attempt, a
    // second or so. Never a table either.
    std::string member{};
};
// A new TableSnapshot is wanted, and the watch from there: the store under this node has changed.
struct ReadTables {};
struct GrantLease {  // answered by LeaseGranted; the driver keeps it alive until RevokeLease or LeaseLost
    std::uint32_t ttl_s = 5;
};
struct RevokeLease {
    std::uint64_t id = 0;
};

// Store process and member commands; each answered by StoreCommandDone.
struct StartStore {};  // plain start on the present data directory, or with node.toml's initial cluster if
                       // none was ever made
struct StopStore {};
struct SetStoreAside {  // stop, rename the data directory with the reason, never delete; stable before it is
                        // done
    std::string reason;
};
struct JoinStore {  // no data directory: start as an existing cluster's new member
    std::string initial_cluster;
};
struct ForcePrepare {  // stop; copy the data directory; force the copy to a single member; run `first_commit`
                       // in
    Txn first_commit;  // it; stop it. Nothing is renamed yet. An unfinished copy is deleted at any start.
};
struct ForceActivate {};  // rename the prepared copy into place (the old one is kept), start it plainly
struct ForceAbort {};     // delete the copy, start the old one plainly
struct AddLearner {
    std::string name;
    std::string peer_url;
};
struct PromoteMember {
    std::uint64_t id = 0;
};
struct RemoveMember {
    std::uint64_t id = 0;
};
struct WriteMemberNonce {  // stable before it is done: current and next beside the data directory
    Uuid current;
    Uuid next;
};
using StoreCommandKind =
    std::variant<StartStore, StopStore, SetStoreAside, JoinStore, ForcePrepare, ForceActivate, ForceAbort,
                 AddLearner, PromoteMember, RemoveMember, WriteMemberNonce>;
struct StoreCommand {
    Tag tag = 0;
    StoreCommandKind command;
};

// ---- other nodes ----
struct PeerSend {
    std::string to;    // node
    std::string path;  // empty: every path
    PeerMessage message;
};

// ---- blockd ----
struct BlockdRecord {  // attach the replica this node holds, if it is not attached, and take this record
    CommittedVolume committed;
};
struct BlockdDetach {  // the volume is gone or no longer here
    VolumeId volume;
};
struct BlockdRenew {
    VolumeId volume;
    replication::StoreRenewal renewal;
    // The same answer shows this life as the owner, not revoking: the guard hears of it too, so that a guest
    // whose blockd is away is neither paused nor killed while nobody else can be granted its disk (H40).
    std::optional<Instant> guard_until;
};
struct BlockdProposalDone {
    VolumeId volume;
    replication::ProposalDone done;
};
struct BlockdRefuseEpoch {  // durable; answered by BlockdEpochRefused
    VolumeId volume;
    std::uint64_t epoch = 0;
};
struct BlockdPeerProvenDown {
    std::string node;
    Incarnation incarnation;
};
// Make this node's backing file of the volume: blank, `replica` as its id, the record's generation, `state`
// and ack set as in the record's row of this node. Existing with the same replica id: ok. Answered by
// BlockdDone.
struct BlockdFormat {
    Tag tag = 0;
    VolumeRecord record;
};
struct BlockdDelete {  // not there: ok
    Tag tag = 0;
    VolumeId volume;
    std::string name;
    std::string pool;
    ReplicaId replica;
};
// Detach, rename the backing of `old` and keep it, then format a new one as BlockdFormat does. Already new:
// ok.
struct BlockdSetAside {
    Tag tag = 0;
    ReplicaId old;
    VolumeRecord record;  // its row of this node has the new replica id
};
// The epoch is refused durably, and its front end is closed before that is answered. Not serving it: ok. No
// flush is owed: what a guest was told is stable already is, on every replica; what is merely completed is on
// every replica too and stays tracked until it is stable (docs/formats/control.md).
struct BlockdRelease {
    Tag tag = 0;
    VolumeId volume;
    std::uint64_t epoch = 0;
};
struct BlockdCloseAll {  // before a clean leave
    Tag tag = 0;
};

// ---- fence devices ----
enum class FenceAction : std::uint8_t { off, on, status };
struct Fence {  // `off` is answered verified_off only when a status action said so after it; term checked
                // before this
    Tag tag = 0;
    FenceAction action = FenceAction::status;
    FenceDeviceRecord device;
};

// ---- guests ----
struct ListDomains {};
struct DomainDisk {
    std::string target;
    std::string volume;
    VolumeId id;
    std::uint64_t epoch = 0;
    std::string secret;
    std::uint64_t size_bytes = 0;
};
struct StartDomain {
    Tag tag = 0;
    GuestRecord guest;
    std::vector<DomainDisk> disks;
};
struct ShutdownDomain {
    Tag tag = 0;
    GuestId uuid;
};
struct DestroyDomain {
    Tag tag = 0;
    GuestId uuid;
    std::string reason;
};

// ---- live migration ---- (docs/design/0011)
// Destination: take connections for this guest that know the secret. Open already: its address again.
struct OpenGate {
    Tag tag = 0;
    GuestId uuid;
    std::string secret;
};
struct CloseGate {  // not open: nothing
    GuestId uuid;
};
// Source: libvirt moves the domain, peer to peer, through a tunnel to the destination's gate. `disks`: of the
// handover. Takes as long as it takes; ended early by CancelMigration.
struct MigrateDomain {
    Tag tag = 0;
    GuestRecord guest;
    std::vector<DomainDisk> disks;
    MigrationRecord migration;
};
struct CancelMigration {  // none under way: nothing
    GuestId uuid;
};

// ---- guard ---- (the daemon forwards these to gemel-guard; ha/guard.hpp)
struct GuardedVolume {
    std::string name;
    VolumeId id;
    std::uint64_t epoch = 0;
};
struct GuardRegister {  // before the domain is started
    GuestId uuid;
    std::string name;
    std::vector<GuardedVolume> volumes;
    bool regrant_possible = false;  // another node could be granted while this one is cut off
    bool incoming = false;          // it moves here while it runs; its leases follow it
};
struct GuardRevoked {  // ownership is lost by a committed record: kill the guests of that epoch
    VolumeId volume;
    std::uint64_t epoch = 0;
};
struct GuardForget {
    GuestId uuid;
};

// ---- operator, log ----
struct ApiAnswer {
    Tag tag = 0;
    Result<OperationRecord> operation;
};
struct Log {  // every decision; severity as in EventRecord
    std::string severity;
    std::string text;
};
struct LeaveDone {
    bool ok = false;
    std::string detail;
};

using Output = std::variant<SubmitTxn, StoreRead, ReadTables, GrantLease, RevokeLease, StoreCommand, PeerSend,
                            BlockdRecord, BlockdDetach, BlockdRenew, BlockdProposalDone, BlockdRefuseEpoch,
                            BlockdPeerProvenDown, BlockdFormat, BlockdDelete, BlockdSetAside, BlockdRelease,
                            BlockdCloseAll, Fence, ListDomains, StartDomain, ShutdownDomain, DestroyDomain,
                            OpenGate, CloseGate, MigrateDomain, CancelMigration, GuardRegister, GuardRevoked,
                            GuardForget, ApiAnswer, Log, LeaveDone>;
using Outputs = std::vector<Output>;

// ============================================== configuration
// ====================================================

struct PeerConfig {
    std::string name;
    NodeId id;
    std::string control;
    std::map<std::string, std::string> links;
};
struct NodeConfig {
    ClusterId cluster;
    std::string cluster_name;
    std::string name;
    NodeId id;
    Incarnation incarnation;
    bool voter = true;
    std::vector<VoterRecord> initial_voters;  // incl. witness
    std::string control;
    std::map<std::string, std::string> links;
    std::vector<PeerConfig> peers;
    std::vector<PoolRecord> pools;
    TimingRecord timing;
    std::string version;
    std::uint64_t memory_bytes = 0;
    std::uint64_t random_seed = 0;  // from the kernel in daemons, from the seed in the simulator
};

}  // namespace gemel::cluster
