#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/vhost/session.hpp"
#include "core/vhost/tests/message_numbers.hpp"

namespace gemel::vhost {
namespace {

constexpr std::uint32_t kPlain = 1;
constexpr std::uint32_t kNeedReply = 9;

class Bytes {
  public:
    template <typename... T>
    explicit Bytes(T... values) {
        (add(values), ...);
    }
    template <typename T>
    Bytes& add(T value) {
        bytes_.resize(bytes_.size() + sizeof value);
        std::memcpy(bytes_.data() + bytes_.size() - sizeof value, &value, sizeof value);
        return *this;
    }
    std::vector<std::byte> bytes_;
};

std::array<std::byte, kHeaderBytes> header(std::uint32_t request, std::uint32_t flags, std::size_t size) {
    const std::uint32_t words[] = {request, flags, static_cast<std::uint32_t>(size)};
    std::array<std::byte, kHeaderBytes> bytes{};
    std::memcpy(bytes.data(), words, sizeof words);
    return bytes;
}

struct Front {
    explicit Front(std::uint16_t queues = 2) : session({1U << 30, 512, 4096, queues, false}) {}

    Action say(std::uint32_t request, const Bytes& payload = Bytes(), std::size_t descriptors = 0,
               std::uint32_t flags = kPlain) {
        return session.message(header(request, flags, payload.bytes_.size()), payload.bytes_, descriptors);
    }
    std::uint64_t ask(std::uint32_t request) {
        EXPECT_TRUE(std::holds_alternative<Nothing>(say(request)));
        return number();
    }
    std::uint64_t number() const {
        std::uint64_t value = ~std::uint64_t{0};
        EXPECT_EQ(session.reply().size(), kHeaderBytes + 8);
        if (session.reply().size() == kHeaderBytes + 8)
            std::memcpy(&value, session.reply().data() + kHeaderBytes, sizeof value);
        return value;
    }
    std::uint32_t field(std::size_t at) const {
        std::uint32_t value = 0;
        EXPECT_LE(at + 4, session.reply().size());
        std::memcpy(&value, session.reply().data() + at, sizeof value);
        return value;
    }
    bool closes(std::uint32_t request, const Bytes& payload = Bytes(), std::size_t descriptors = 0) {
        const Action action = say(request, payload, descriptors);
        const bool closed = std::holds_alternative<Close>(action);
        EXPECT_TRUE(!closed || !std::get<Close>(action).reason.empty());
        if (!closed && session.owes()) session.done(true);
        return closed;
    }
    // as QEMU begins
    void agree(std::uint64_t without = 0) {
        const std::uint64_t features = ask(kGetFeatures);
        const std::uint64_t protocol = ask(kGetProtocolFeatures);
        say(kSetProtocolFeatures, Bytes(protocol));
        say(kSetOwner);
        say(kSetFeatures, Bytes(features & ~without & ~kFeatureLogAll));
    }
    Bytes ring_addresses(std::uint32_t queue, std::uint32_t flags) {
        return Bytes(queue, flags, std::uint64_t{0x1000}, std::uint64_t{0x3000}, std::uint64_t{0x2000},
                     std::uint64_t{0x4000});
    }
    void start(std::uint32_t queue) {
        say(kSetVringNum, Bytes(queue, 128U));
        say(kSetVringBase, Bytes(queue, 5U));
        say(kSetVringAddr, ring_addresses(queue, 0));
        EXPECT_TRUE(std::holds_alternative<SetEvent>(say(kSetVringKick, Bytes(std::uint64_t{queue}), 1)));
        session.done(true);
        say(kSetVringCall, Bytes(std::uint64_t{queue}), 1);
        session.done(true);
    }

    Session session;
};

TEST(VhostSession, a_queue_runs_once_it_is_told_all) {
    Front front;
    front.agree();
    front.start(1);
    EXPECT_FALSE(front.session.queue(1).runs());
    front.say(kSetVringEnable, Bytes(1U, 1U));
    EXPECT_TRUE(front.session.queue(1).runs());
    EXPECT_FALSE(front.session.queue(0).runs());
    const RingSetup& setup = front.session.queue(1).setup;
    EXPECT_EQ(setup.size, 128);
    EXPECT_EQ(setup.base, 5U);
    EXPECT_EQ(setup.descriptors, 0x1000U);
    EXPECT_EQ(setup.available, 0x2000U);
    EXPECT_EQ(setup.used, 0x3000U);
    EXPECT_TRUE(setup.event_index);
    EXPECT_TRUE(setup.indirect);
    EXPECT_TRUE(front.session.packed());
    front.say(kSetVringEnable, Bytes(1U, 0U));
    EXPECT_FALSE(front.session.queue(1).runs());
}

TEST(VhostSession, without_protocol_features_a_queue_is_enabled_from_the_start) {
    Front front;
    front.agree(kFeatureProtocol);
    front.start(0);
    EXPECT_TRUE(front.session.queue(0).runs());
    EXPECT_TRUE(front.closes(kSetVringEnable, Bytes(0U, 1U)));
}

TEST(VhostSession, a_queue_stops_when_it_is_drained) {
    Front front;
    front.agree();
    front.start(0);
    const Action action = front.say(kGetVringBase, Bytes(0U, 0U));
    ASSERT_TRUE(std::holds_alternative<StopQueue>(action));
    EXPECT_TRUE(front.session.reply().empty());
    EXPECT_TRUE(front.session.owes());
    front.session.queue_stopped(0, 77);
    EXPECT_EQ(front.field(kHeaderBytes), 0U);
    EXPECT_EQ(front.field(kHeaderBytes + 4), 77U);
    EXPECT_FALSE(front.session.queue(0).started);
    EXPECT_FALSE(front.closes(kSetVringNum, Bytes(0U, 64U))) << "now it may be changed";
}

TEST(VhostSession, answers_only_when_asked) {
    Front front;
    front.agree();
    front.say(kSetVringNum, Bytes(0U, 64U));
    EXPECT_TRUE(front.session.reply().empty());
    front.say(kSetVringNum, Bytes(0U, 64U), 0, kNeedReply);
    EXPECT_EQ(front.number(), 0U);
    front.say(kSetVringKick, Bytes(std::uint64_t{0}), 1, kNeedReply);
    EXPECT_TRUE(front.session.reply().empty()) << "not before it is done";
    front.session.done(false);
    EXPECT_EQ(front.number(), 1U);
    EXPECT_TRUE(front.session.failed().empty());
    front.say(kSetVringCall, Bytes(std::uint64_t{0}), 1);
    front.session.done(false);
    EXPECT_FALSE(front.session.failed().empty()) << "nobody would be told";
}

TEST(VhostSession, memory_comes_with_its_descriptors) {
    Front front;
    front.agree();
    Bytes table(2U, 0U);
    for (std::uint64_t i = 0; i < 8; ++i) table.add((i + 1) << 20);
    const Action action = front.say(kSetMemTable, table, 2);
    ASSERT_TRUE(std::holds_alternative<MapMemory>(action));
    const auto regions = std::get<MapMemory>(action).regions;
    ASSERT_EQ(regions.size(), 2U);
    EXPECT_EQ(regions[1], (MemoryRegion{5U << 20, 6U << 20, 7U << 20, 8U << 20}));
    front.session.done(true);
    EXPECT_TRUE(front.closes(kSetMemTable, table, 1));
    EXPECT_TRUE(front.closes(kSetMemTable, Bytes(9U, 0U), 8));
    EXPECT_TRUE(front.closes(kSetMemTable, Bytes(1U, 0U), 1)) << "cut short";
    const Bytes one(std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{3}, std::uint64_t{4});
    ASSERT_TRUE(std::holds_alternative<AddMemory>(front.say(kAddMemReg, one, 1)));
    front.session.done(true);
    ASSERT_TRUE(std::holds_alternative<RemoveMemory>(front.say(kRemMemReg, one)));
    front.session.done(true);
    EXPECT_TRUE(front.closes(kAddMemReg, one));
}

TEST(VhostSession, logging_begins_while_queues_run) {
    Front front;
    front.agree();
    front.start(0);
    front.say(kSetVringEnable, Bytes(0U, 1U));
    const Action action = front.say(kSetLogBase, Bytes(std::uint64_t{4096}, std::uint64_t{0}), 1);
    ASSERT_TRUE(std::holds_alternative<MapLog>(action));
    front.session.done(true);
    EXPECT_EQ(front.number(), 0U);
    front.say(kSetFeatures, Bytes(front.ask(kGetFeatures)));
    EXPECT_TRUE(front.session.logs());
    front.say(kSetVringAddr, front.ring_addresses(0, 1));
    EXPECT_TRUE(front.session.queue(0).setup.log_used);
    EXPECT_EQ(front.session.queue(0).setup.used_log, 0x4000U);
    EXPECT_TRUE(front.session.queue(0).runs());
    Bytes moved(0U, 1U, std::uint64_t{0x9000}, std::uint64_t{0x3000}, std::uint64_t{0x2000},
                std::uint64_t{0});
    EXPECT_TRUE(front.closes(kSetVringAddr, moved)) << "a running queue does not move";
}

TEST(VhostSession, the_configuration_and_its_write_cache) {
    Front front;
    front.agree();
    Bytes ask(0U, 72U, 0U);
    ask.bytes_.resize(12 + 72);
    EXPECT_TRUE(std::holds_alternative<Nothing>(front.say(kGetConfig, ask)));
    ASSERT_EQ(front.session.reply().size(), kHeaderBytes + 12 + 72);
    EXPECT_EQ(front.field(kHeaderBytes + 12), (1U << 30) / 512);
    EXPECT_EQ(front.session.reply()[kHeaderBytes + 12 + kConfigWritebackAt], std::byte{1});
    EXPECT_FALSE(front.session.write_through());
    front.say(kSetConfig, Bytes(std::uint32_t{kConfigWritebackAt}, 1U, 0U, std::uint8_t{0}));
    EXPECT_TRUE(front.session.write_through());
    EXPECT_TRUE(front.closes(kSetConfig, Bytes(0U, 8U, 0U, std::uint64_t{5})))
        << "the size is not the guest's";
    EXPECT_TRUE(front.closes(kGetConfig, Bytes(0U, 300U, 0U)));
    EXPECT_TRUE(front.closes(kGetConfig, Bytes(0U, 8U, 0U)));
}

TEST(VhostSession, a_guest_that_knows_no_flush_gets_stable_writes) {
    Front front;
    front.agree(kFeatureFlush);
    EXPECT_TRUE(front.session.write_through());
}

TEST(VhostSession, in_flight_records_are_made_once_and_brought_back) {
    for (const bool packed : {false, true}) {
        Front front(4);
        front.agree(packed ? 0 : kFeaturePacked);
        const Bytes ask(std::uint64_t{0}, std::uint64_t{0}, std::uint16_t{4}, std::uint16_t{128});
        const Action action = front.say(kGetInflightFd, ask);
        ASSERT_TRUE(std::holds_alternative<MakeInFlight>(action));
        const std::uint64_t bytes = std::get<MakeInFlight>(action).bytes;
        EXPECT_EQ(bytes, 4 * in_flight_bytes(packed, 128));
        front.session.in_flight_made(true);
        EXPECT_EQ(front.field(kHeaderBytes), bytes);
        EXPECT_EQ(front.session.reply().size(), kHeaderBytes + 20) << "as long as the question";
        EXPECT_EQ(front.session.records(3).bytes, 0U) << "a queue of that size is not known yet";
        front.start(3);
        EXPECT_EQ(front.session.records(3).bytes, bytes / 4);
        EXPECT_EQ(front.session.records(3).offset, bytes / 4 * 3);

        Front qemu(4);
        qemu.agree(packed ? 0 : kFeaturePacked);
        const Bytes padded(std::uint64_t{0}, std::uint64_t{0}, std::uint16_t{4}, std::uint16_t{128},
                           std::uint32_t{0});
        ASSERT_TRUE(std::holds_alternative<MakeInFlight>(qemu.say(kGetInflightFd, padded)));
        qemu.session.in_flight_made(true);
        EXPECT_EQ(qemu.session.reply().size(), kHeaderBytes + 24) << "QEMU wants its padding back";

        Front next(4);
        next.agree(packed ? 0 : kFeaturePacked);
        const Bytes back(bytes, std::uint64_t{0}, std::uint16_t{4}, std::uint16_t{128});
        ASSERT_TRUE(std::holds_alternative<MapInFlight>(next.say(kSetInflightFd, back, 1)));
        next.session.done(true);
        next.start(3);
        EXPECT_EQ(next.session.records(3).bytes, bytes / 4);
        EXPECT_TRUE(next.closes(kSetInflightFd, back)) << "no descriptor";
        const Bytes small(bytes - 1, std::uint64_t{0}, std::uint16_t{4}, std::uint16_t{128});
        EXPECT_TRUE(next.closes(kSetInflightFd, small, 1));
        const Bytes many(bytes, std::uint64_t{0}, std::uint16_t{5}, std::uint16_t{128});
        EXPECT_TRUE(next.closes(kSetInflightFd, many, 1));
    }
}

TEST(VhostSession, messages_that_make_no_sense) {
    Front front;
    front.agree();
    EXPECT_TRUE(front.closes(99));
    EXPECT_TRUE(front.closes(kSetFeatures, Bytes(std::uint64_t{1} << 63)));
    EXPECT_TRUE(front.closes(kSetProtocolFeatures, Bytes(std::uint64_t{1} << 8)));
    EXPECT_TRUE(front.closes(kSetVringNum, Bytes(2U, 128U))) << "there are two queues";
    EXPECT_TRUE(front.closes(kSetVringNum, Bytes(0U, 2048U)));
    EXPECT_TRUE(front.closes(kSetVringNum, Bytes(0U, 0U)));
    EXPECT_TRUE(front.closes(kSetVringNum, Bytes(0U)));
    EXPECT_TRUE(front.closes(kSetVringKick, Bytes(std::uint64_t{0})));
    EXPECT_TRUE(front.closes(kSetVringKick, Bytes(std::uint64_t{0x100}))) << "polling was not offered";
    EXPECT_TRUE(front.closes(kSetVringCall, Bytes(std::uint64_t{7}), 1));
    front.start(0);
    EXPECT_TRUE(front.closes(kSetVringNum, Bytes(0U, 64U))) << "while it runs";
    EXPECT_FALSE(Session::payload_bytes(header(1, kPlain, kMaxPayloadBytes + 1)));
    EXPECT_FALSE(Session::payload_bytes(header(1, 2, 0))) << "another version";
    EXPECT_EQ(Session::payload_bytes(header(1, kNeedReply, 8)), 8U);
}

}  // namespace
}  // namespace gemel::vhost
