#include "core/link/wire.hpp"

#include <array>

#include "base/bytes.hpp"
#include "base/checksum.hpp"
#include "base/invariant.hpp"

namespace gemel::link {
namespace {

bool known_type(std::uint8_t type) {
    return (type >= 1 && type <= 18) || (type >= 240 && type <= 242);
}

tl::unexpected<Error> bad(const char* what) {
    return fail(ErrorCode::corrupt, std::string("peer sent a frame with ") + what +
                                        ": the connection is closed; both nodes must run the same version");
}

}  // namespace

void encode_header(const FrameHeader& header, std::span<std::byte, kHeaderBytes> out) {
    ByteWriter writer(out);
    writer.u32(kFrameMagic);
    writer.u8(static_cast<std::uint8_t>(header.type));
    writer.zeroes(3);
    writer.u32(header.body_bytes);
    writer.u32(header.payload_bytes);
    writer.u64(header.sequence);
    writer.u64(header.acknowledged);
    writer.u32(header.body_crc);
    writer.u32(header.payload_crc);
    writer.zeroes(4);
    writer.u32(crc32c(std::span<const std::byte>(out).first(kHeaderBytes - 4)));
}

Result<FrameHeader> decode_header(std::span<const std::byte, kHeaderBytes> bytes) {
    ByteReader reader(bytes);
    if (reader.u32() != kFrameMagic) return bad("another magic number");
    const std::uint8_t type = reader.u8();
    const auto padding = reader.raw(3);
    FrameHeader header;
    header.body_bytes = reader.u32();
    header.payload_bytes = reader.u32();
    header.sequence = reader.u64();
    header.acknowledged = reader.u64();
    header.body_crc = reader.u32();
    header.payload_crc = reader.u32();
    const std::uint32_t reserved = reader.u32();
    if (reader.u32() != crc32c(bytes.first(kHeaderBytes - 4)))
        return bad("a header checksum that does not match");
    if (!known_type(type)) return bad("an unknown type");
    if (header.body_bytes > kMaxBodyBytes || header.payload_bytes > kMaxPayloadBytes)
        return bad("a length above the limit");
    if (reserved != 0 || padding[0] != std::byte{0} || padding[1] != std::byte{0} ||
        padding[2] != std::byte{0}) {
        return bad("reserved bytes that are not zero");
    }
    header.type = static_cast<FrameType>(type);
    return header;
}

std::vector<std::byte> encode_hello(const Hello& hello) {
    INVARIANT(hello.node.size() <= kMaxTextBytes && hello.peer_node.size() <= kMaxTextBytes,
              "node names are short");
    std::array<std::byte, 2 * kMaxTextBytes + 256> buffer{};
    ByteWriter writer(buffer);
    writer.u16(hello.protocol_min);
    writer.u16(hello.protocol_max);
    writer.u64(hello.features_offered);
    writer.u64(hello.features_required);
    writer.id(hello.cluster);
    writer.id(hello.volume);
    writer.id(hello.replica);
    writer.text(hello.node);
    writer.text(hello.peer_node);
    writer.uuid(hello.incarnation.boot);
    writer.uuid(hello.incarnation.nonce);
    writer.id(hello.process);
    writer.u64(hello.counter);
    writer.u8(hello.in_session ? 1 : 0);
    writer.id(hello.session_process);
    writer.u64(hello.session_counter);
    writer.u64(hello.next_expected);
    return {buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(writer.position())};
}

Result<Hello> decode_hello(std::span<const std::byte> body) {
    ByteReader reader(body);
    Hello hello;
    hello.protocol_min = reader.u16();
    hello.protocol_max = reader.u16();
    hello.features_offered = reader.u64();
    hello.features_required = reader.u64();
    hello.cluster = reader.id<ClusterId>();
    hello.volume = reader.id<VolumeId>();
    hello.replica = reader.id<ReplicaId>();
    hello.node = reader.text();
    hello.peer_node = reader.text();
    hello.incarnation.boot = reader.uuid();
    hello.incarnation.nonce = reader.uuid();
    hello.process = reader.id<SessionId>();
    hello.counter = reader.u64();
    const std::uint8_t in_session = reader.u8();
    hello.in_session = in_session == 1;
    hello.session_process = reader.id<SessionId>();
    hello.session_counter = reader.u64();
    hello.next_expected = reader.u64();
    if (!reader.ok() || in_session > 1) return bad("a hello that is too short");
    // A newer version may append fields: what follows is ignored only when its range is above ours.
    if (!reader.at_end() && hello.protocol_max <= kProtocolMax) return bad("a hello that is too long");
    if (hello.node.size() > kMaxTextBytes || hello.peer_node.size() > kMaxTextBytes)
        return bad("a name above the limit");
    return hello;
}

}  // namespace gemel::link
