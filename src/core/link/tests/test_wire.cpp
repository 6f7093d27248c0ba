#include <array>

#include <gtest/gtest.h>

#include "base/prng.hpp"
#include "core/link/wire.hpp"

namespace gemel::link {
namespace {

using namespace replication;

std::vector<PeerMessage> one_of_each() {
    HandshakeState state;
    state.replica = ReplicaId::from_random(1, 2);
    state.state = ReplicaState::up_to_date;
    state.generation = {GenerationId::from_random(3, 4), GenerationId::from_random(5, 6), 7};
    state.ancestors = {GenerationId::from_random(5, 6), GenerationId::from_random(8, 9)};
    state.join_pending = true;
    state.granted_epoch = 11;
    state.dirty_bytes = 4096;
    state.unsettled_bytes = 8192;
    state.known_peer_process = SessionId::from_random(1, 9);
    return {StateMessage{state},
            VerdictMessage{3, 99},
            BitmapMessage{4096, {1, 2, 3}, true},
            WriteMessage{1, 2, 3, 4096, 8192, true},
            ZeroMessage{1, 2, 3, 4096, 1ULL << 40, true, false},
            FlushMessage{5, 6, 7},
            AckMessage{8, 9, AckStatus::refused_generation},
            HeartbeatMessage{10, 11},
            HeartbeatAckMessage{10, 11, true},
            ResyncReadyMessage{},
            ResyncWriteMessage{12, 4096, 131072},
            ResyncCompareMessage{13, 4096, 131072, 14, 15},
            ResyncAckMessage{16, true, AckStatus::io_error},
            JoinMessage{state.generation, state.ancestors},
            JoinReadyMessage{state.generation.id},
            RecordHintMessage{17},
            ReadMessage{5, 6, 7, 4096, 8192},
            ReadReplyMessage{5, 8192, AckStatus::ok},
            ReadReplyMessage{6, 0, AckStatus::io_error}};
}

TEST(Wire, EveryMessageSurvivesTheRoundTrip) {
    for (const PeerMessage& message : one_of_each()) {
        std::vector<std::byte> body;
        encode_message(message, body);
        const auto decoded = decode_message(frame_type(message), body);
        ASSERT_TRUE(decoded) << message.index();
        std::vector<std::byte> again;
        encode_message(*decoded, again);
        EXPECT_EQ(decoded->index(), message.index());
        EXPECT_EQ(again, body) << message.index();
    }
}

TEST(Wire, ShortenedAndLengthenedMessagesAreRefused) {
    for (const PeerMessage& message : one_of_each()) {
        std::vector<std::byte> body;
        encode_message(message, body);
        std::vector<std::byte> longer = body;
        longer.push_back(std::byte{0});
        EXPECT_FALSE(decode_message(frame_type(message), longer)) << message.index();
        if (body.empty()) continue;
        body.pop_back();
        EXPECT_FALSE(decode_message(frame_type(message), body)) << message.index();
    }
}

TEST(Wire, AnyDamagedHeaderByteIsNoticed) {
    FrameHeader header;
    header.type = FrameType::write;
    header.body_bytes = 40;
    header.payload_bytes = 4096;
    header.sequence = 12;
    header.acknowledged = 11;
    std::array<std::byte, kHeaderBytes> bytes{};
    encode_header(header, bytes);
    const auto decoded = decode_header(bytes);
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->sequence, 12U);
    EXPECT_EQ(decoded->payload_bytes, 4096U);
    for (auto& byte : bytes) {
        byte ^= std::byte{0x10};
        EXPECT_FALSE(decode_header(bytes));
        byte ^= std::byte{0x10};
    }
}

TEST(Wire, LengthsAboveTheLimitAreRefusedBeforeAnythingIsAllocated) {
    FrameHeader header;
    header.payload_bytes = kMaxPayloadBytes + 1;
    std::array<std::byte, kHeaderBytes> bytes{};
    encode_header(header, bytes);
    EXPECT_FALSE(decode_header(bytes));
}

TEST(Wire, HelloRoundTripAndANewerVersionMayAppend) {
    Hello hello;
    hello.cluster = ClusterId::from_random(1, 2);
    hello.node = "node1";
    hello.peer_node = "node2";
    hello.counter = 5;
    hello.in_session = true;
    hello.next_expected = 77;
    auto body = encode_hello(hello);
    ASSERT_TRUE(decode_hello(body));
    EXPECT_EQ(*decode_hello(body), hello);
    body.push_back(std::byte{1});
    EXPECT_FALSE(decode_hello(body));
    hello.protocol_max = kProtocolMax + 1;
    body = encode_hello(hello);
    body.push_back(std::byte{1});
    EXPECT_TRUE(decode_hello(body));
}

}  // namespace
}  // namespace gemel::link
