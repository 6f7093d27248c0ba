#include <array>
#include <string_view>

#include <gtest/gtest.h>

#include "base/bytes.hpp"
#include "base/checksum.hpp"
#include "base/ids.hpp"
#include "base/instant.hpp"
#include "base/prng.hpp"

namespace gemel {
namespace {

TEST(Checksum, MatchesThePublishedVector) {
    const std::string_view digits = "123456789";
    EXPECT_EQ(crc32c(std::as_bytes(std::span(digits))), 0xE3069283U);
}

TEST(Checksum, ContinuesOverPieces) {
    const std::string_view digits = "123456789";
    const auto bytes = std::as_bytes(std::span(digits));
    EXPECT_EQ(crc32c(bytes.subspan(4), crc32c(bytes.first(4))), crc32c(bytes));
}

TEST(Uuid, TextRoundTrip) {
    Prng random(7);
    const Uuid id = Uuid::from_random(random.next(), random.next());
    const auto parsed = Uuid::parse(id.to_string());
    ASSERT_TRUE(parsed);
    EXPECT_EQ(*parsed, id);
    EXPECT_FALSE(Uuid::parse("12345678-1234-1234-1234-12345678901"));
    EXPECT_FALSE(Uuid::parse("12345678x1234-1234-1234-123456789012"));
    EXPECT_FALSE(Uuid::parse("1234567g-1234-1234-1234-123456789012"));
}

TEST(Incarnation, TextRoundTrip) {
    const Incarnation one{Uuid::from_random(1, 2), Uuid::from_random(3, 4)};
    const auto parsed = Incarnation::parse(one.to_string());
    ASSERT_TRUE(parsed);
    EXPECT_EQ(*parsed, one);
    EXPECT_FALSE(Incarnation::parse(one.boot.to_string()));
}

TEST(Bytes, RoundTripAndBounds) {
    std::array<std::byte, 64> buffer{};
    ByteWriter writer(buffer);
    writer.u8(1);
    writer.u16(0x1234);
    writer.u32(0xdeadbeef);
    writer.u64(0x0102030405060708ULL);
    writer.text("disk");
    writer.patch_u32(3, 0xcafef00d);
    ByteReader reader(std::span<const std::byte>(buffer).first(writer.position()));
    EXPECT_EQ(reader.u8(), 1);
    EXPECT_EQ(reader.u16(), 0x1234);
    EXPECT_EQ(reader.u32(), 0xcafef00dU);
    EXPECT_EQ(reader.u64(), 0x0102030405060708ULL);
    EXPECT_EQ(reader.text(), "disk");
    EXPECT_TRUE(reader.at_end());
    EXPECT_EQ(reader.u32(), 0U);
    EXPECT_FALSE(reader.ok());
    EXPECT_EQ(reader.u8(), 0U) << "a failed reader stays failed";
}

TEST(Prng, SameSeedSameSequence) {
    Prng a(42);
    Prng b(42);
    Prng c(43);
    bool differs = false;
    for (int i = 0; i < 1000; ++i) {
        const auto word = a.next();
        EXPECT_EQ(word, b.next());
        differs = differs || word != c.next();
    }
    EXPECT_TRUE(differs);
}

TEST(Prng, StaysInRange) {
    Prng random(1);
    std::array<int, 10> seen{};
    for (int i = 0; i < 10'000; ++i) ++seen.at(random.below(10));
    for (const int count : seen) EXPECT_GT(count, 800);
    for (int i = 0; i < 100; ++i) {
        const auto value = random.between(-3, 3);
        EXPECT_GE(value, -3);
        EXPECT_LE(value, 3);
    }
}

TEST(Instant, Arithmetic) {
    const Instant start{1'000};
    EXPECT_EQ((start + milliseconds(2)) - start, milliseconds(2));
    EXPECT_LT(start, Instant::never());
    EXPECT_EQ(seconds(2).milliseconds(), 2000);
}

}  // namespace
}  // namespace gemel
