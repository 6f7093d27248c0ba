// What two engines of one volume say to each other. Order, sequence numbers, resending and checksums belong
// to the link (core/link); these are the contents. Byte layout: docs/formats/wire.md. Numbers of message
// types are never reused.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "core/formats/volume_record.hpp"

namespace gemel::replication {

// Everything the handshake verdict needs from one side; see docs/design/0002.
struct HandshakeState {
    ReplicaId replica;
    Incarnation incarnation;
    SessionId process;
    std::uint64_t size_bytes = 0;
    bool metadata_readable = true;                    // false: unknown, never clean
    ReplicaState state = ReplicaState::inconsistent;  // what the superblock says
    Generation generation;                            // superblock's
    std::vector<GenerationId> ancestors;              // newest first
    bool in_own_ack_set = false;                      // superblock's ack set names this side
    bool peer_in_own_ack_set = false;                 // ... and the other
    bool join_pending = false;          // a join of the peer was written and its outcome is not known
    ReplicaId tracked_peer;             // the replica whose differences the bitmap tracks; nil: none
    GenerationId tracked_since;         // generation at which that tracking began
    std::uint64_t dirty_bytes = 0;      // bits set in the bitmap (crashed extents are whole in it)
    std::uint64_t unsettled_bytes = 0;  // written, not known to be stable on both sides, not in the bitmap
    bool writer_crashed = false;        // active extents were found: it was Primary and did not close
    bool outlived_process = false;      // blockd restarted in the boot in which it was complete
    std::uint64_t epoch_floor = 0;      // highest epoch refused for good
    std::uint64_t granted_epoch = 0;    // highest epoch accepted here, durable
    // The peer's incarnation and process at the last completed handshake of this process; nil: none yet.
    Incarnation known_peer_incarnation;
    SessionId known_peer_process;
    std::uint64_t record_revision = 0;  // newest committed record known here
    LineageId record_lineage;

    bool operator==(const HandshakeState&) const = default;
};

struct StateMessage {
    HandshakeState state;
};
// Both sides announce the verdict each reached and on which record; data moves only when they match.
struct VerdictMessage {
    std::uint8_t verdict = 0;  // replication::Verdict
    std::uint64_t record_revision = 0;
};
// A page of dirty bits (4 KiB blocks, least significant bit first), target to source before a bitmap resync.
struct BitmapMessage {
    std::uint64_t first_block = 0;
    std::vector<std::uint64_t> words;
    bool last = false;
};

struct WriteMessage {  // payload: length bytes
    std::uint64_t request = 0;
    std::uint64_t epoch = 0;
    std::uint64_t generation_counter = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    bool stable = false;  // acknowledge only when stable (FUA, or ack mode stable)
};
struct ZeroMessage {  // write_zeroes and discard: reads return zero on both sides afterwards
    std::uint64_t request = 0;
    std::uint64_t epoch = 0;
    std::uint64_t generation_counter = 0;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    bool unmap = false;
    bool stable = false;
};
// Everything acknowledged before it was sent becomes stable. Epoch 0: from a former owner that only retires
// its intent extents; it is answered whatever epoch is granted, because making stable destroys nothing.
struct FlushMessage {
    std::uint64_t request = 0;
    std::uint64_t epoch = 0;
    std::uint64_t generation_counter = 0;
};
enum class AckStatus : std::uint8_t { ok, io_error, refused_epoch, refused_generation };
struct AckMessage {  // answers Write, Zero and Flush
    std::uint64_t request = 0;
    std::uint64_t epoch = 0;
    AckStatus status = AckStatus::ok;
};

struct HeartbeatMessage {  // sent by the Primary; the answer renews its lease from the sending
    std::uint64_t number = 0;
    std::uint64_t epoch = 0;
};
struct HeartbeatAckMessage {
    std::uint64_t number = 0;
    std::uint64_t epoch = 0;
    bool refused = false;  // the epoch is refused here: no renewal
};

struct ResyncReadyMessage {};  // target: Inconsistent is stable, send
struct ResyncWriteMessage {    // payload: length bytes
    std::uint64_t chunk = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
};
struct ResyncCompareMessage {  // target answers ResyncAck with same = true when its hash is equal
    std::uint64_t chunk = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
    std::uint64_t hash_high = 0;
    std::uint64_t hash_low = 0;
};
struct ResyncAckMessage {
    std::uint64_t chunk = 0;
    bool same = false;
    AckStatus status = AckStatus::ok;
};
// Source to target: all blocks sent and stable; adopt generation and write the join intent.
struct JoinMessage {
    Generation generation;
    std::vector<GenerationId> ancestors;
};
struct JoinReadyMessage {
    GenerationId generation;
};
// Either side: the committed record at this revision matters to you; read it if yours is older.
struct RecordHintMessage {
    std::uint64_t revision = 0;
};

// Of the Primary whose own disk cannot read (or is gone), to a replica that is UpToDate. Epoch and generation
// are checked as for a write. The reply's payload: length bytes when ok, none otherwise.
struct ReadMessage {
    std::uint64_t request = 0;
    std::uint64_t epoch = 0;
    std::uint64_t generation_counter = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;
};
struct ReadReplyMessage {
    std::uint64_t request = 0;
    std::uint32_t length = 0;
    AckStatus status = AckStatus::ok;
};

using PeerMessage =
    std::variant<StateMessage, VerdictMessage, BitmapMessage, WriteMessage, ZeroMessage, FlushMessage,
                 AckMessage, HeartbeatMessage, HeartbeatAckMessage, ResyncReadyMessage, ResyncWriteMessage,
                 ResyncCompareMessage, ResyncAckMessage, JoinMessage, JoinReadyMessage, RecordHintMessage,
                 ReadMessage, ReadReplyMessage>;

}  // namespace gemel::replication
