#include <gtest/gtest.h>

#include "core/nbd/server.hpp"
#include "core/nbd/tests/client_bytes.hpp"

namespace gemel::nbd {
namespace {

using testing::field;
using testing::request;

constexpr std::uint64_t kSize = std::uint64_t{64} << 20;

Server serving(bool structured, bool read_only = false, bool contexts = false) {
    Server server({.name = "v", .description = "", .size_bytes = kSize, .read_only = read_only});
    server.step(testing::client_flags(3));
    if (structured) server.step(testing::option(8, {}));
    if (contexts) server.step(testing::option(10, testing::meta_data("", {"base:allocation"})));
    EXPECT_TRUE(
        std::holds_alternative<Transmission>(server.step(testing::option(7, testing::go_data(""))).found));
    return server;
}

enum class Fate { submit, payload, refused, closed };

struct Row {
    const char* what;
    std::uint16_t flags;
    std::uint16_t command;
    std::uint64_t offset;
    std::uint32_t length;
    Fate fate;
    std::uint32_t error = 0;
};

void check(Server server, const Row& row, bool structured) {
    const auto bytes = request(row.flags, row.command, 0x1122334455667788ULL, row.offset, row.length);
    const auto step = server.step(bytes);
    switch (row.fate) {
        case Fate::submit: {
            ASSERT_TRUE(std::holds_alternative<Submit>(step.found)) << row.what;
            const auto& found = std::get<Submit>(step.found).request;
            EXPECT_EQ(found.offset, row.offset);
            EXPECT_EQ(found.length, row.length);
            EXPECT_EQ(found.cookie, 0x1122334455667788ULL);
            break;
        }
        case Fate::payload:
            ASSERT_TRUE(std::holds_alternative<Payload>(step.found)) << row.what;
            EXPECT_EQ(std::get<Payload>(step.found).request.length, row.length);
            break;
        case Fate::refused: {
            ASSERT_TRUE(std::holds_alternative<Again>(step.found)) << row.what;
            const bool chunk = structured && (row.command == 0 || row.command == 7);
            ASSERT_EQ(step.reply.size(), chunk ? 26U : 16U) << row.what;
            EXPECT_EQ(field(step.reply, chunk ? 20 : 4, 4), row.error) << row.what;
            EXPECT_EQ(field(step.reply, 8, 8), 0x1122334455667788ULL) << row.what;
            break;
        }
        case Fate::closed: EXPECT_TRUE(std::holds_alternative<Close>(step.found)) << row.what; return;
    }
    EXPECT_EQ(step.consumed, kRequestBytes) << row.what;
}

TEST(NbdTransmission, ChecksEveryRequest) {
    const Row rows[] = {
        {"read", 0, 0, 0, 4096, Fate::submit},
        {"read to the end", 0, 0, kSize - 512, 512, Fate::submit},
        {"largest read", 0, 0, 0, 32U << 20, Fate::submit},
        {"read above the maximum", 0, 0, 0, (32U << 20) + 512, Fate::refused, 75},
        {"read past the end", 0, 0, kSize - 512, 1024, Fate::refused, 22},
        {"read that wraps around", 0, 0, ~std::uint64_t{511}, 1024, Fate::refused, 22},
        {"read of half a block", 0, 0, 0, 100, Fate::refused, 22},
        {"read at an odd place", 0, 0, 1, 512, Fate::refused, 22},
        {"read with an unknown flag", 32, 0, 0, 512, Fate::refused, 22},
        {"write", 0, 1, 512, 512, Fate::payload},
        {"write through", 1, 1, 512, 512, Fate::payload},
        {"write with a zeroing flag", 2, 1, 512, 512, Fate::refused, 22},
        {"write past the end", 0, 1, kSize, 512, Fate::refused, 28},
        {"empty write", 0, 1, 512, 0, Fate::submit},
        {"write above the maximum", 0, 1, 0, (32U << 20) + 512, Fate::closed},
        {"write of four GiB", 0, 1, 0, 0xffffffffU, Fate::closed},
        {"flush", 0, 3, 0, 0, Fate::submit},
        {"flush of a range", 0, 3, 0, 512, Fate::refused, 22},
        {"trim of everything", 0, 4, 0, static_cast<std::uint32_t>(kSize), Fate::submit},
        {"trim past the end", 0, 4, 512, static_cast<std::uint32_t>(kSize), Fate::refused, 28},
        {"zeroes", 3, 6, 0, 1 << 20, Fate::submit},
        {"fast zeroes, which were not announced", 16, 6, 0, 512, Fate::refused, 22},
        {"block status without a context", 0, 7, 0, 512, Fate::refused, 22},
        {"cache", 0, 5, 0, 512, Fate::refused, 22},
        {"an unknown command", 0, 99, 0, 512, Fate::refused, 22},
        {"disconnect", 0, 2, 0, 0, Fate::closed},
    };
    for (const auto& row : rows) {
        check(serving(false), row, false);
        check(serving(true), row, true);
    }
    check(serving(true), {"do not fragment", 4, 0, 0, 512, Fate::submit}, true);
    check(serving(false), {"do not fragment, simple replies", 4, 0, 0, 512, Fate::refused, 22}, false);
    check(serving(true, false, true), {"block status", 8, 7, 0, 512, Fate::submit}, true);
    check(serving(true, false, true), {"block status of nothing", 0, 7, 0, 0, Fate::refused, 22}, true);
    check(serving(false, true), {"write to a read-only export", 0, 1, 0, 512, Fate::refused, 1}, false);
}

TEST(NbdTransmission, ThrowsAwayThePayloadOfARefusedWrite) {
    Server server = serving(false);
    auto bytes = request(0, 1, 1, kSize, 1024);
    bytes.resize(bytes.size() + 1024, std::byte{0x25});
    const auto next = request(0, 3, 2, 0, 0);
    bytes.insert(bytes.end(), next.begin(), next.end());
    std::span<const std::byte> rest(bytes);
    rest = rest.subspan(server.step(rest).consumed);
    rest = rest.subspan(server.step(rest).consumed);
    const auto step = server.step(rest);
    ASSERT_TRUE(std::holds_alternative<Submit>(step.found));
    EXPECT_EQ(std::get<Submit>(step.found).request.command, Command::flush);
}

TEST(NbdTransmission, ClosesOnGarbage) {
    Server server = serving(true);
    const testing::Bytes garbage(28, std::byte{0x41});
    const auto step = server.step(garbage);
    ASSERT_TRUE(std::holds_alternative<Close>(step.found));
    EXPECT_FALSE(std::get<Close>(step.found).orderly);
}

TEST(NbdTransmission, EncodesReplies) {
    const Request read{.command = Command::read, .flags = 0, .cookie = 7, .offset = 4096, .length = 8192};
    Server simple = serving(false);
    EXPECT_EQ(simple.read_head(read, 4096, 8192, true).size, 16U);
    EXPECT_EQ(field(simple.plain_reply(read, ReplyError::io_error).view(), 4, 4), 5U);

    Server structured = serving(true);
    const auto piece = structured.read_head(read, 8192, 4096, false);
    ASSERT_EQ(piece.size, 28U);
    EXPECT_EQ(field(piece.view(), 4, 2), 0U);
    EXPECT_EQ(field(piece.view(), 6, 2), 1U);
    EXPECT_EQ(field(piece.view(), 16, 4), 4096U + 8);
    EXPECT_EQ(field(piece.view(), 20, 8), 8192U);
    EXPECT_EQ(field(structured.read_head(read, 8192, 4096, true).view(), 4, 2), 1U);
    const Request write{.command = Command::write, .flags = 0, .cookie = 7, .offset = 0, .length = 512};
    EXPECT_EQ(structured.plain_reply(write, ReplyError::none).size, 16U);
    EXPECT_EQ(structured.plain_reply(read, ReplyError::none).size, 20U);

    const Request status{
        .command = Command::block_status, .flags = 0, .cookie = 9, .offset = 0, .length = 8192};
    const auto extent = structured.block_status_reply(status, 4096, true);
    ASSERT_EQ(extent.size, 32U);
    EXPECT_EQ(field(extent.view(), 16, 4), 12U);
    EXPECT_EQ(field(extent.view(), 24, 4), 4096U);
    EXPECT_EQ(field(extent.view(), 28, 4), 3U);
}

}  // namespace
}  // namespace gemel::nbd
