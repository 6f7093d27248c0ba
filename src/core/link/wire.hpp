// Wire format between two engines (docs/formats/wire.md): frame header, hello, and the messages of
// core/replication. A frame is header (48 bytes), body (an encoded message, at most kMaxBodyBytes) and
// payload (at most kMaxPayloadBytes). Each of the three has its own CRC32C, so that a payload can be received
// straight into its final buffer. Decoders accept any bytes and either return exactly what an encoder could
// have written or an error. Not in here: connections, order, resending (session.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/ids.hpp"
#include "core/replication/messages.hpp"

namespace gemel::link {

inline constexpr std::uint32_t kFrameMagic = 0x314c4d47;  // "GML1"
inline constexpr std::size_t kHeaderBytes = 48;
inline constexpr std::size_t kMaxBodyBytes = 64U << 10;
inline constexpr std::size_t kMaxPayloadBytes = 32U << 20;
inline constexpr std::size_t kMaxTextBytes = 1024;
inline constexpr std::size_t kMaxBitmapWords = 4096;
inline constexpr std::size_t kMaxAncestorsOnWire = VolumeRecord::kMaxAncestors;

// Range of protocol versions spoken here; one line each.
// 1: the first
inline constexpr std::uint16_t kProtocolMin = 1;
inline constexpr std::uint16_t kProtocolMax = 1;

// Features, one bit each, in Hello::features_offered. Never reuse a bit.
// bit 0: answers read (17) with read reply (18)
inline constexpr std::uint64_t kFeatureReads = 1;
inline constexpr std::uint64_t kFeaturesKnown = kFeatureReads;

// Never reuse a number.
enum class FrameType : std::uint8_t {
    state = 1,
    verdict = 2,
    bitmap = 3,
    write = 4,
    zero = 5,
    flush = 6,
    ack = 7,
    heartbeat = 8,
    heartbeat_ack = 9,
    resync_ready = 10,
    resync_write = 11,
    resync_compare = 12,
    resync_ack = 13,
    join = 14,
    join_ready = 15,
    record_hint = 16,
    read = 17,
    read_reply = 18,
    // of the link itself: no sequence number of their own
    hello = 240,
    progress = 241,  // carries only the cumulative acknowledgement, and shows life
    refuse = 242,
};

struct FrameHeader {
    FrameType type = FrameType::progress;
    std::uint32_t body_bytes = 0;
    std::uint32_t payload_bytes = 0;
    std::uint64_t sequence = 0;      // 1, 2, 3 … within a session; 0 for frames of the link itself
    std::uint64_t acknowledged = 0;  // every sequence up to this one was received
    std::uint32_t body_crc = 0;
    std::uint32_t payload_crc = 0;
};

void encode_header(const FrameHeader& header, std::span<std::byte, kHeaderBytes> out);
Result<FrameHeader> decode_header(std::span<const std::byte, kHeaderBytes> bytes);

// First frame in both directions of every connection.
struct Hello {
    std::uint16_t protocol_min = kProtocolMin;
    std::uint16_t protocol_max = kProtocolMax;
    std::uint64_t features_offered = 0;
    std::uint64_t features_required = 0;  // not understood: refuse
    ClusterId cluster;
    VolumeId volume;
    ReplicaId replica;
    std::string node;       // sender
    std::string peer_node;  // whom the sender means to talk to
    Incarnation incarnation;
    SessionId process;          // life of the sending process
    std::uint64_t counter = 0;  // raised when the sender leaves a session by its own decision
    bool in_session = false;    // the sender is in the session of (process, counter) x the two fields below
    SessionId session_process;  // the peer's process in that session
    std::uint64_t session_counter = 0;
    std::uint64_t next_expected = 1;  // in that session, by the sender

    bool operator==(const Hello&) const = default;
};

std::vector<std::byte> encode_hello(const Hello& hello);
Result<Hello> decode_hello(std::span<const std::byte> body);

FrameType frame_type(const replication::PeerMessage& message);
// payload bytes that follow a message of this kind; 0 for most
std::uint32_t payload_bytes(const replication::PeerMessage& message);
// appends the encoded body
void encode_message(const replication::PeerMessage& message, std::vector<std::byte>& out);
Result<replication::PeerMessage> decode_message(FrameType type, std::span<const std::byte> body);

}  // namespace gemel::link
