// The edges of the replication engine: everything that can happen to it (Input) and everything it can ask for
// (Output). One engine is one replica of one volume on one node. It is pure: step(now, input, outputs),
// next_deadline(), view(). The same engine runs in gemel-blockd (reactor, disk, link, NBD) and in the
// simulator.
//
// Rules of the seam
//  * Completion is an input. Two outputs of one step may be executed in any order and at the same time; if B
//  must follow
//    A, the engine emits B only when A's completion has come in.
//  * Payload travels by handle. A buffer is written once (by the front end, the link or a disk read) and then
//  immutable
//    until the engine lets go; the same handle feeds disk and wire (promise D11). A front-end request's
//    buffer is let go by FrontComplete, a peer message's buffer by ReleasePayload.
//  * Tags are the engine's; the driver returns them unchanged in completions. Every
//  DiskRead/DiskWrite/DiskFlush/... is completed
//    exactly once, unless the driver is destroyed.
//  * Metadata travels as spans into memory of the engine that stay unchanged until the completion of that
//  output.
//  * What the engine may not do by itself (be current, acknowledge alone, serve) comes in as CommittedRecord
//  and leaves
//    as Propose.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/instant.hpp"
#include "core/formats/volume_record.hpp"
#include "core/replication/messages.hpp"

namespace gemel::replication {

// ---- small words
// -----------------------------------------------------------------------------------------------------

enum class Role : std::uint8_t { secondary, primary };

enum class ConnectionState : std::uint8_t {
    standalone,  // refuses the peer (split brain, foreign disk): needs an operator
    connecting,  // no session
    handshake,   // session up, states being compared
    connected,
};

enum class SyncState : std::uint8_t { off, sync_source, sync_target };

// Why an engine holds requests back; several may hold at once.
enum class FreezeReason : std::uint8_t {
    none,
    not_primary,
    lease_lapsed,  // renewals ended; a fresh one resumes
    peer_lost,     // waiting for the committed permission to acknowledge alone
    handshake,     // peer just (re)connected, verdict not yet reached
    metadata,      // generation or epoch being made stable
    local_failed,  // own disk failed, waiting for the commit that says so
    disk_lost,  // and the only current copy may have forgotten what was answered: errors until the epoch ends
};

using PayloadHandle = std::uint32_t;
inline constexpr PayloadHandle kNoPayload = 0xffffffffU;

using FrontTag = std::uint64_t;  // the front end's name for a request
using DiskTag = std::uint64_t;   // the engine's name for a disk operation

enum class FrontOperation : std::uint8_t { read, write, flush, discard, write_zeroes };

enum class IoStatus : std::uint8_t { ok, io_error, out_of_space, refused };

// ---- inputs
// ------------------------------------------------------------------------------------------------------------

// A request of the front end bound to one lease epoch. offset/length: bytes, multiples of 512 inside the
// volume; length <= kMaxRequestBytes (discard and write_zeroes: the whole volume). Reads bring a buffer to
// fill.
struct FrontRequest {
    FrontTag tag = 0;
    std::uint64_t epoch = 0;
    FrontOperation operation = FrontOperation::read;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    bool fua = false;
    PayloadHandle payload = kNoPayload;
};

struct DiskDone {
    DiskTag tag = 0;
    IoStatus status = IoStatus::ok;
};
// As DiskDone for metadata reads: the bytes are valid during the step only.
struct MetadataRead {
    DiskTag tag = 0;
    IoStatus status = IoStatus::ok;
    std::span<const std::byte> bytes;
};
// Hash of a data range the engine asked for (resync compare).
struct HashDone {
    DiskTag tag = 0;
    IoStatus status = IoStatus::ok;
    std::uint64_t hash_high = 0;
    std::uint64_t hash_low = 0;
};
// A range the engine asked for with DiskFetch. payload: with ok only; owned by the engine from then on.
struct FetchDone {
    DiskTag tag = 0;
    IoStatus status = IoStatus::ok;
    PayloadHandle payload = kNoPayload;
};

// The link to the peer's engine is up: a pair of process lives. Messages of an earlier session never arrive
// after this.
struct PeerUp {
    SessionId session;  // same on both sides
    std::string node;
    ReplicaId replica;          // what the peer's hello claimed
    Incarnation incarnation;    // host boot + nonce
    SessionId process;          // peer's blockd process life
    bool serves_reads = false;  // it knows ReadMessage (feature of its hello)
};
struct PeerDown {
    SessionId session;
};
// In order, each exactly once within a session.
struct PeerMessageIn {
    SessionId session;
    PeerMessage message;
    PayloadHandle payload =
        kNoPayload;  // for messages with payload; owned by the engine until ReleasePayload
};

// The newest committed record this node knows, from a linearizable read, a watch or the answer to a proposal.
struct CommittedRecordIn {
    CommittedVolume committed;
};
// A linearizable read of the store, *sent* at that instant, showed this record (lease renewal, design brief
// 4).
struct StoreRenewal {
    Instant sent_at;
    CommittedVolume committed;
};
enum class ProposalOutcome : std::uint8_t { committed, refused, unknown };
struct ProposalDone {
    std::uint64_t proposal = 0;
    ProposalOutcome outcome = ProposalOutcome::unknown;
    std::optional<CommittedVolume> current;  // what the store says now, when it could be read
};
// Durably stop acknowledging epochs <= epoch (the first half of a regrant). Answered by EpochRefused.
struct RefuseEpoch {
    std::uint64_t epoch = 0;
};
// The peer (that incarnation) is proven down or released: do not wait for its link any more.
struct PeerProvenDown {
    Incarnation incarnation;
};
struct Tick {};

using Input =
    std::variant<FrontRequest, DiskDone, MetadataRead, HashDone, FetchDone, PeerUp, PeerDown, PeerMessageIn,
                 CommittedRecordIn, StoreRenewal, ProposalDone, RefuseEpoch, PeerProvenDown, Tick>;

// ---- outputs
// -----------------------------------------------------------------------------------------------------------

enum class Area : std::uint8_t { metadata, data };  // offsets are relative to the area

struct DiskRead {
    DiskTag tag = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    PayloadHandle payload = kNoPayload;  // data area: buffer to fill
};
struct DiskWrite {
    DiskTag tag = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    PayloadHandle payload = kNoPayload;
    bool stable = false;  // the completion means "survives power loss"
};
// Data area, into a buffer that the driver finds (waiting for one if it must); answered by FetchDone.
struct DiskFetch {
    DiskTag tag = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
};
struct DiskZero {  // data area; reads of the range return zero afterwards; may deallocate when `unmap`
    DiskTag tag = 0;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    bool unmap = false;
};
// Everything (data and metadata) whose completion was delivered before this output is stable when it
// completes.
struct DiskFlush {
    DiskTag tag = 0;
};
struct DiskHash {
    DiskTag tag = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
};
struct ReadMetadata {
    DiskTag tag = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
};
// stable: the completion means "survives power loss" (write + flush, or FUA)
struct WriteMetadata {
    DiskTag tag = 0;
    std::uint64_t offset = 0;
    std::span<const std::byte> bytes;
    bool stable = true;
};

struct PeerSend {
    SessionId session;
    PeerMessage message;
    PayloadHandle payload = kNoPayload;  // stays valid until ReleasePayload
    bool last_use = false;               // the driver lets go of it itself: there will be no ReleasePayload
};
struct PeerDrop {  // close the session; reason for the log and for the peer
    SessionId session;
    std::string reason;
    bool stay_away = false;  // standalone: do not reconnect until the committed record changes
};

// data_from: what was read came from the peer and lies there; the driver copies it into the request's own
// buffer and lets go of it.
struct FrontComplete {
    FrontTag tag = 0;
    IoStatus status = IoStatus::ok;
    PayloadHandle data_from = kNoPayload;
};
// The front end of `epoch` may be opened (socket <volume>-<epoch>-<secret>) or must be closed. It may be that
// of a handover to this node: then requests are taken and wait until the epoch is granted. Closing fails what
// is still queued only when the epoch is over for good; a lapsed lease freezes and keeps the socket.
struct ServeFront {
    std::uint64_t epoch = 0;
    std::string secret;
};
struct StopFront {
    std::uint64_t epoch = 0;
};
struct ReleasePayload {
    PayloadHandle payload = kNoPayload;
};

enum class ProposalKind : std::uint8_t {
    peer_left,     // ack set = {me}, peer Outdated (Inconsistent stays so), a new generation; permission to
                   // acknowledge alone
    peer_joined,   // ack set = {me, peer}, peer UpToDate
    local_failed,  // ack set = {peer}, me Failed, a new generation
};
// To the owner's clusterd (or, without an owner, the source's): one transaction that compares the volume's
// revision, owner, epoch and lineage. Answered by ProposalDone with the same number.
struct Propose {
    std::uint64_t proposal = 0;
    ProposalKind kind = ProposalKind::peer_left;
    std::uint64_t expected_revision = 0;
    LineageId expected_lineage;
    VolumeRecord next;  // the whole record to be stored
};
// The record known here is older than what the peer or the disk has seen: read it again (linearizable).
struct NeedRecord {
    std::uint64_t at_least_revision = 0;
};
struct EpochRefused {
    std::uint64_t epoch = 0;
};
// The right to serve now lasts until then (for the guard); emitted whenever it grows by more than a
// heartbeat.
struct LeaseExtended {
    std::uint64_t epoch = 0;
    Instant until;
};
// One line for the log and the event list; state changes are reported through here and nowhere else.
enum class NoticeKind : std::uint8_t {
    attached,
    role_changed,
    connection_changed,
    sync_changed,
    replica_state_changed,
    frozen,
    thawed,
    verdict,
    resync_finished,
    split_brain,
    refused,
    disk_error,
    lease_lapsed,
    lease_resumed,
    handover,
    metadata_unknown,
    over_network,  // own disk failed and that is committed: the guest is served from the peer's
    block_repaired,
};
struct Notice {
    NoticeKind kind = NoticeKind::attached;
    std::string text;
};

using Output = std::variant<DiskRead, DiskWrite, DiskZero, DiskFlush, DiskHash, DiskFetch, ReadMetadata,
                            WriteMetadata, PeerSend, PeerDrop, FrontComplete, ServeFront, StopFront,
                            ReleasePayload, Propose, NeedRecord, EpochRefused, LeaseExtended, Notice>;
using Outputs = std::vector<Output>;  // reused by the driver: cleared, never shrunk

// ---- view and configuration
// ----------------------------------------------------------------------------------------------

struct View {
    bool attached = false;
    Role role = Role::secondary;
    ReplicaState local_state = ReplicaState::diskless;
    ReplicaState peer_state = ReplicaState::diskless;
    ConnectionState connection = ConnectionState::connecting;
    SyncState sync = SyncState::off;
    FreezeReason frozen = FreezeReason::none;
    Generation generation;
    std::uint64_t epoch = 0;           // epoch being served, 0 when none
    std::uint64_t epoch_floor = 0;     // durable: epochs <= floor are refused unless it is the one granted
    std::uint64_t refused_epoch = 0;   // durable: epochs up to this one are never served again
    std::uint64_t incoming_epoch = 0;  // the front end open for a handover to this node, 0 when none
    std::uint32_t early_requests = 0;  // what it was asked, and waits until that epoch is granted
    std::uint64_t record_revision = 0;
    Instant lease_until;
    std::uint64_t dirty_bytes = 0;  // out of sync with the peer
    std::uint64_t resync_done_bytes = 0;
    std::uint64_t resync_total_bytes = 0;
    std::uint32_t active_extents = 0;
    std::uint32_t requests_in_flight = 0;
    std::uint32_t media_errors = 0;  // reads that failed here, since the process began
    std::string problem;             // empty, or why it is standalone / refused
};

inline constexpr std::uint32_t kBlockBytes = 4096;       // one dirty bit
inline constexpr std::uint32_t kExtentBytes = 4U << 20;  // one intent-log extent
inline constexpr std::uint32_t kMaxRequestBytes = 32U << 20;
inline constexpr std::uint32_t kResyncChunkBytes = 128U << 10;

struct EngineConfig {
    std::string node;  // own name, as in the record's replicas
    ClusterId cluster;
    VolumeId volume;
    ReplicaId replica;        // expected identity of the backing; nil accepts what the superblock says
    Incarnation incarnation;  // of this host boot
    SessionId process;        // of this process
    bool outlived_io_possible =
        false;  // a former process of this incarnation may have died with I/O in flight
    Duration heartbeat = milliseconds(250);
    Duration lease = seconds(10);
    std::uint32_t max_requests = 1024;   // in flight; more are refused by the front end's own queue bound
    std::uint32_t active_extents = 896;  // at most formats' kMaxIntentExtents (952)
    std::uint32_t intent_group = 4;      // extents named in the log together; 1: only what is written
    std::uint32_t resync_chunks = 4;  // in flight, kResyncChunkBytes each; memory is taken when one is read
    std::uint64_t random_seed =
        0;  // for generation ids; from the kernel in daemons, from the seed in the simulator
};

}  // namespace gemel::replication
