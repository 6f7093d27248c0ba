#include <gtest/gtest.h>

#include "core/nbd/server.hpp"
#include "core/nbd/tests/client_bytes.hpp"

namespace gemel::nbd {
namespace {

using testing::Bytes;
using testing::field;

Export volume() {
    return {.name = "web1", .description = "a mirrored volume", .size_bytes = 1 << 20};
}

// option, type, text of each option reply in `reply`
struct OptionAnswer {
    std::uint64_t option;
    std::uint64_t type;
    Bytes data;
};
std::vector<OptionAnswer> answers(std::span<const std::byte> reply) {
    std::vector<OptionAnswer> found;
    std::size_t at = 0;
    while (at < reply.size()) {
        EXPECT_EQ(field(reply, at, 8), 0x0003e889045565a9ULL);
        const auto length = static_cast<std::size_t>(field(reply, at + 16, 4));
        const auto data = reply.subspan(at + 20, length);
        found.push_back({field(reply, at + 8, 4), field(reply, at + 12, 4), Bytes(data.begin(), data.end())});
        at += 20 + length;
    }
    return found;
}

Server ready() {
    Server server(volume());
    server.greeting();
    EXPECT_TRUE(std::holds_alternative<Again>(server.step(testing::client_flags(3)).found));
    return server;
}

TEST(NbdNegotiation, GreetsWithFixedNewstyle) {
    Server server(volume());
    const auto greeting = server.greeting();
    ASSERT_EQ(greeting.size(), 18U);
    EXPECT_EQ(field(greeting, 0, 8), 0x4e42444d41474943ULL);
    EXPECT_EQ(field(greeting, 8, 8), 0x49484156454f5054ULL);
    EXPECT_EQ(field(greeting, 16, 2), 3U);
}

TEST(NbdNegotiation, ClosesOnAClientThatSpeaksSomethingElse) {
    for (const std::uint32_t flags : {0U, 2U, 4U | 1U, 0xffffffffU}) {
        Server server(volume());
        const auto step = server.step(testing::client_flags(flags));
        EXPECT_TRUE(std::holds_alternative<Close>(step.found)) << flags;
        EXPECT_TRUE(std::holds_alternative<Close>(server.step(testing::option(1, {})).found));
    }
}

TEST(NbdNegotiation, AnswersEveryOption) {
    struct Row {
        const char* what;
        std::uint32_t option;
        Bytes data;
        std::vector<std::uint64_t> types;
    };
    Bytes trailing = testing::go_data("web1");
    trailing.push_back(std::byte{0});
    const Row rows[] = {
        {"LIST", 3, {}, {2, 1}},
        {"LIST with data", 3, Bytes(4), {0x80000003}},
        {"INFO of the volume", 6, testing::go_data("web1"), {3, 3, 1}},
        {"INFO of the default export", 6, testing::go_data(""), {3, 3, 1}},
        {"INFO with name and description", 6, testing::go_data("", {1, 2, 3}), {3, 3, 3, 3, 1}},
        {"INFO of another export", 6, testing::go_data("web2"), {0x80000006}},
        {"INFO with bytes left over", 6, trailing, {0x80000003}},
        {"INFO cut short", 6, Bytes(5), {0x80000003}},
        {"INFO with a name longer than its data", 6, Bytes(6, std::byte{0xff}), {0x80000003}},
        {"STARTTLS", 5, {}, {0x80000001}},
        {"EXTENDED_HEADERS", 11, {}, {0x80000001}},
        {"an unknown option", 0xdeadbeef, Bytes(100), {0x80000001}},
        {"STRUCTURED_REPLY", 8, {}, {1}},
        {"STRUCTURED_REPLY with data", 8, Bytes(1), {0x80000003}},
        {"meta contexts before structured replies",
         10,
         testing::meta_data("", {"base:allocation"}),
         {0x80000003}},
    };
    for (const auto& row : rows) {
        Server server = ready();
        const auto bytes = testing::option(row.option, row.data);
        const auto step = server.step(bytes);
        EXPECT_EQ(step.consumed, bytes.size()) << row.what;
        EXPECT_TRUE(std::holds_alternative<Again>(step.found)) << row.what;
        std::vector<std::uint64_t> types;
        for (const auto& answer : answers(step.reply)) {
            EXPECT_EQ(answer.option, row.option) << row.what;
            types.push_back(answer.type);
        }
        EXPECT_EQ(types, row.types) << row.what;
    }
}

TEST(NbdNegotiation, MetaContexts) {
    struct Row {
        const char* what;
        std::uint32_t option;
        Bytes data;
        std::vector<std::uint64_t> types;
    };
    const Row rows[] = {
        {"list all", 9, testing::meta_data("web1", {}), {4, 1}},
        {"list a namespace", 9, testing::meta_data("web1", {"base:"}), {4, 1}},
        {"list a foreign one", 9, testing::meta_data("web1", {"qemu:dirty-bitmap:x"}), {1}},
        {"set", 10, testing::meta_data("web1", {"qemu:allocation-depth", "base:allocation"}), {4, 1}},
        {"set none", 10, testing::meta_data("web1", {}), {1}},
        {"set for another export", 10, testing::meta_data("web2", {"base:allocation"}), {0x80000006}},
        {"more queries announced than there are",
         10,
         testing::go_data("web1", {0xffff, 0xffff}),
         {0x80000003}},
    };
    for (const auto& row : rows) {
        Server server = ready();
        server.step(testing::option(8, {}));
        const auto step = server.step(testing::option(row.option, row.data));
        std::vector<std::uint64_t> types;
        for (const auto& answer : answers(step.reply)) types.push_back(answer.type);
        EXPECT_EQ(types, row.types) << row.what;
    }
}

TEST(NbdNegotiation, GoAnnouncesSizeFlagsAndBlockSizes) {
    Server server = ready();
    server.step(testing::option(8, {}));
    const auto step = server.step(testing::option(7, testing::go_data("web1")));
    ASSERT_TRUE(std::holds_alternative<Transmission>(step.found));
    const auto replies = answers(step.reply);
    ASSERT_EQ(replies.size(), 3U);
    EXPECT_EQ(field(replies[0].data, 2, 8), 1U << 20);
    // flags, flush, fua, trim, write zeroes, do not fragment, multi-conn; neither read-only nor fast zero
    EXPECT_EQ(field(replies[0].data, 10, 2), 1U + 4 + 8 + 32 + 64 + 128 + 256);
    EXPECT_EQ(field(replies[1].data, 2, 4), 512U);
    EXPECT_EQ(field(replies[1].data, 6, 4), 4096U);
    EXPECT_EQ(field(replies[1].data, 10, 4), 32U << 20);
}

TEST(NbdNegotiation, ExportNameHasItsOldReply) {
    for (const std::uint32_t flags : {1U, 3U}) {
        Server server(volume());
        server.step(testing::client_flags(flags));
        Bytes name;
        testing::put(name, "web1");
        const auto step = server.step(testing::option(1, name));
        ASSERT_TRUE(std::holds_alternative<Transmission>(step.found));
        EXPECT_EQ(step.reply.size(), flags == 1 ? 134U : 10U);
        EXPECT_EQ(field(step.reply, 0, 8), 1U << 20);
    }
    Server server = ready();
    EXPECT_TRUE(std::holds_alternative<Close>(server.step(testing::option(1, Bytes(3))).found));
}

TEST(NbdNegotiation, SkipsAnOptionThatIsTooLong) {
    Server server = ready();
    Bytes head = testing::option(6, {});
    head[12] = std::byte{0x00};
    head[13] = std::byte{0x01};  // 64 KiB of data announced
    auto step = server.step(head);
    EXPECT_EQ(step.consumed, 16U);
    ASSERT_EQ(answers(step.reply).size(), 1U);
    EXPECT_EQ(answers(step.reply)[0].type, 0x80000009U);
    std::size_t thrown_away = 0;
    while (thrown_away < 65536) {
        step = server.step(Bytes(60000));
        EXPECT_TRUE(step.reply.empty());
        ASSERT_GT(step.consumed, 0U);
        thrown_away += step.consumed;
    }
    EXPECT_EQ(thrown_away, 65536U);
    EXPECT_TRUE(
        std::holds_alternative<Transmission>(server.step(testing::option(7, testing::go_data(""))).found));
}

TEST(NbdNegotiation, BoundsTheHaggling) {
    Server server = ready();
    for (std::uint32_t i = 0; i < kMaxOptions; ++i) {
        EXPECT_TRUE(std::holds_alternative<Again>(server.step(testing::option(3, {})).found));
    }
    EXPECT_TRUE(std::holds_alternative<Close>(server.step(testing::option(3, {})).found));
}

TEST(NbdNegotiation, AsksForTheBytesItNeeds) {
    Server server = ready();
    const auto bytes = testing::option(7, testing::go_data("web1", {1, 2}));
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        const auto step = server.step(std::span(bytes).first(size));
        ASSERT_TRUE(std::holds_alternative<NeedBytes>(step.found)) << size;
        EXPECT_EQ(step.consumed, 0U);
        EXPECT_EQ(std::get<NeedBytes>(step.found).at_least, size < 16 ? 16U : bytes.size());
    }
    EXPECT_TRUE(std::holds_alternative<Transmission>(server.step(bytes).found));
}

TEST(NbdNegotiation, AbortIsAcknowledged) {
    Server server = ready();
    const auto step = server.step(testing::option(2, {}));
    ASSERT_TRUE(std::holds_alternative<Close>(step.found));
    EXPECT_TRUE(std::get<Close>(step.found).orderly);
    EXPECT_EQ(answers(step.reply).at(0).type, 1U);
}

}  // namespace
}  // namespace gemel::nbd
