// Metadata on disk: torn, misdirected, damaged and old pages are told apart (M1, M6, M7, promise D17).
#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/checksum.hpp"
#include "base/prng.hpp"
#include "core/formats/bitmap.hpp"
#include "core/formats/format_replica.hpp"
#include "core/formats/inspect.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"
#include "core/formats/superblock.hpp"

namespace gemel::formats {
namespace {

using Page = std::array<std::byte, kPageBytes>;

ReplicaId replica_id(std::uint64_t n) {
    return ReplicaId::from_random(n, n + 1);
}

Superblock example(std::uint64_t sequence) {
    Superblock s;
    s.sequence = sequence;
    s.cluster = ClusterId::from_random(1, 2);
    s.volume = VolumeId::from_random(3, 4);
    s.replica = replica_id(5);
    s.size_bytes = 1ULL << 30;
    s.generation = {GenerationId::from_random(6, 7), GenerationId::from_random(8, 9), 3};
    s.ancestors = {GenerationId::from_random(8, 9), GenerationId::from_random(10, 11)};
    s.state = ReplicaState::up_to_date;
    s.peer = replica_id(12);
    s.in_ack_set = true;
    s.join_pending = true;
    s.refused_epoch = 4;
    s.granted_epoch = 5;
    s.tracked_peer = s.peer;
    s.tracked_since = s.generation.id;
    s.primary = true;
    return s;
}

Page superblock_page(std::uint64_t sequence) {
    Page page;
    encode_superblock(example(sequence), page);
    return page;
}

// What is on disk when a write was cut after `sectors` sectors.
Page torn(const Page& before, const Page& after, std::size_t sectors) {
    Page mixed = before;
    std::copy_n(after.begin(), sectors * kSectorBytes, mixed.begin());
    return mixed;
}

TEST(Layout, data_starts_at_64_mib_up_to_one_tebibyte_and_doubles_after) {
    EXPECT_EQ(Layout::for_size(4096).data_offset, 64ULL << 20);
    EXPECT_EQ(Layout::for_size(1ULL << 40).data_offset, 64ULL << 20);
    EXPECT_EQ(Layout::for_size(4ULL << 40).data_offset, 256ULL << 20);
    EXPECT_EQ(Layout::for_size(120ULL << 20).bitmap_pages, 1U);
    EXPECT_EQ(Layout::for_size((120ULL << 20) + 4096).bitmap_pages, 2U);
    EXPECT_FALSE(Layout::valid_size(0));
    EXPECT_FALSE(Layout::valid_size(4097));
}

TEST(SuperblockFormat, comes_back_as_it_was_written) {
    for (std::uint64_t sequence : {1ULL, 2ULL}) {
        const Page page = superblock_page(sequence);
        const auto decoded = decode_superblock(page, Layout::superblock_offset(sequence));
        ASSERT_TRUE(decoded.has_value()) << decoded.error().message;
        EXPECT_EQ(*decoded, example(sequence));
    }
}

TEST(SuperblockFormat, every_flipped_bit_is_noticed) {
    const Page sound = superblock_page(2);
    for (std::size_t bit = 0; bit < kPageBytes * 8; bit += 7) {
        Page page = sound;
        page[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        EXPECT_FALSE(decode_superblock(page, kSuperblockA).has_value()) << "bit " << bit;
    }
}

TEST(SuperblockFormat, newest_of_two_wins) {
    const auto chosen = choose_superblock(superblock_page(8), superblock_page(7));
    ASSERT_TRUE(chosen.has_value());
    EXPECT_EQ(chosen->superblock.sequence, 8U);
    EXPECT_TRUE(chosen->newest);
}

TEST(SuperblockFormat, torn_newer_slot_is_passed_over_with_proof) {
    for (std::size_t sectors = 1; sectors < kSectorsPerPage; ++sectors) {
        const auto chosen =
            choose_superblock(superblock_page(8), torn(superblock_page(7), superblock_page(9), sectors));
        ASSERT_TRUE(chosen.has_value());
        EXPECT_EQ(chosen->superblock.sequence, 8U);
        EXPECT_TRUE(chosen->newest) << "a torn page is an unfinished write";
    }
}

TEST(SuperblockFormat, damaged_other_slot_makes_freshness_unknown) {  // M6
    Page damaged = superblock_page(9);
    damaged[100] ^= std::byte{1};
    const auto chosen = choose_superblock(superblock_page(8), damaged);
    ASSERT_TRUE(chosen.has_value());
    EXPECT_FALSE(chosen->newest);
    EXPECT_FALSE(choose_superblock(superblock_page(8), Page{})->newest);
}

TEST(SuperblockFormat, misdirected_slot_is_not_accepted) {  // M7
    EXPECT_FALSE(decode_superblock(superblock_page(8), kSuperblockB).has_value());
    Superblock other = example(9);
    other.replica = replica_id(99);
    Page foreign;
    encode_superblock(other, foreign);
    EXPECT_FALSE(choose_superblock(superblock_page(8), foreign).has_value());
}

TEST(SuperblockFormat, newer_format_is_refused_by_name) {
    Page page = superblock_page(8);
    for (std::size_t i = 0; i < kSectorsPerPage; ++i) {
        std::byte* sector = page.data() + i * kSectorBytes;
        sector[kSectorPayload + 5] = std::byte{9};
        const std::uint32_t crc = crc32c({sector, kSectorBytes - 4});
        for (std::size_t b = 0; b < 4; ++b)
            sector[kSectorBytes - 4 + b] = static_cast<std::byte>(crc >> (8 * b));
    }
    const auto chosen = choose_superblock(page, superblock_page(7));
    ASSERT_FALSE(chosen.has_value());
    EXPECT_EQ(chosen.error().code, ErrorCode::unsupported);
}

class Ring {
  public:
    void write(std::uint64_t sequence, std::vector<std::uint32_t> extents) {
        encode_intent(sequence, extents, id_, slot(sequence));
    }
    PageBytes slot(std::uint64_t sequence) {
        return PageBytes{std::span(bytes_).subspan(sequence % kIntentLogSlots * kPageBytes, kPageBytes)};
    }
    IntentLogContents read() const { return decode_intent_log(bytes_, id_, 1000); }

  private:
    ReplicaId id_ = replica_id(1);
    std::vector<std::byte> bytes_ = std::vector<std::byte>(kIntentLogSlots * kPageBytes);
};

TEST(IntentLogFormat, newest_transaction_is_the_truth) {
    Ring ring;
    for (std::uint32_t i = 1; i <= 40; ++i) ring.write(i, {i, i + 1});
    const auto contents = ring.read();
    EXPECT_TRUE(contents.known);
    EXPECT_EQ(contents.newest.sequence, 40U);
    EXPECT_EQ(contents.newest.extents, (std::vector<std::uint32_t>{40, 41}));
}

TEST(IntentLogFormat, torn_transaction_leaves_the_one_before) {  // M1
    for (std::size_t sectors = 1; sectors < kSectorsPerPage; ++sectors) {
        Ring ring;
        for (std::uint32_t i = 1; i <= 20; ++i) ring.write(i, {i});
        Page before;
        std::ranges::copy(ring.slot(21), before.begin());
        ring.write(21, {999});
        Page after;
        std::ranges::copy(ring.slot(21), after.begin());
        std::ranges::copy(torn(before, after, sectors), ring.slot(21).begin());
        const auto contents = ring.read();
        EXPECT_TRUE(contents.known);
        EXPECT_EQ(contents.newest.extents, (std::vector<std::uint32_t>{20}));
    }
}

TEST(IntentLogFormat, damaged_next_slot_is_unknown_never_clean) {
    Ring ring;
    for (std::uint32_t i = 1; i <= 20; ++i) ring.write(i, {i});
    ring.slot(21)[5] ^= std::byte{1};
    EXPECT_FALSE(ring.read().known);
    Ring older;
    for (std::uint32_t i = 1; i <= 20; ++i) older.write(i, {i});
    older.slot(12)[5] ^= std::byte{1};
    EXPECT_TRUE(older.read().known) << "a superseded transaction is not needed";
}

TEST(IntentLogFormat, empty_ring_is_unknown) {
    EXPECT_FALSE(Ring{}.read().known);
}

TEST(BitmapFormat, unreadable_sector_is_dirty_the_rest_is_kept) {
    std::array<std::uint64_t, kWordsPerPage> words{};
    Prng random(1);
    for (auto& word : words) word = random.next();
    Page page;
    encode_bitmap_page(3, 9, words, replica_id(1), page);
    std::array<std::uint64_t, kWordsPerPage> back{};
    EXPECT_EQ(decode_bitmap_page(page, 3, replica_id(1), back).unreadable_sectors, 0U);
    EXPECT_EQ(back, words);
    page[kSectorBytes + 7] ^= std::byte{4};
    const auto contents = decode_bitmap_page(page, 3, replica_id(1), back);
    EXPECT_EQ(contents.unreadable_sectors, 1U);
    EXPECT_EQ(contents.sequence, 9U);
    for (std::size_t i = 0; i < kWordsPerPage; ++i) {
        EXPECT_EQ(back[i], i / 60 == 1 ? ~std::uint64_t{0} : words[i]);
    }
    EXPECT_EQ(decode_bitmap_page(page, 4, replica_id(1), back).unreadable_sectors, kSectorsPerPage)
        << "another page's place";
}

std::map<std::uint64_t, std::vector<std::byte>> formatted(const Generation& generation) {
    FormatRequest request;
    request.cluster = ClusterId::from_random(1, 2);
    request.volume = VolumeId::from_random(3, 4);
    request.replica = replica_id(5);
    request.size_bytes = 300ULL << 20;
    request.generation = generation;
    request.peer = replica_id(6);
    std::map<std::uint64_t, std::vector<std::byte>> pages;
    format_replica(request, [&](std::uint64_t offset, std::span<const std::byte> page) {
        pages[offset].assign(page.begin(), page.end());
    });
    return pages;
}

TEST(FormatReplica, a_blank_one_can_only_be_a_target) {  // G7
    auto pages = formatted({});
    EXPECT_EQ(pages.size(), 2 + kIntentLogSlots + 3);
    const auto chosen =
        choose_superblock(ConstPageBytes{pages[kSuperblockA]}, ConstPageBytes{pages[kSuperblockB]});
    ASSERT_TRUE(chosen.has_value());
    EXPECT_TRUE(chosen->superblock.generation.is_blank());
    EXPECT_EQ(chosen->superblock.state, ReplicaState::inconsistent);
    EXPECT_FALSE(chosen->superblock.in_ack_set);
    EXPECT_TRUE(chosen->superblock.tracked_peer.is_nil());
}

TEST(FormatReplica, a_first_generation_is_clean_and_tracked) {
    const Generation first{GenerationId::from_random(1, 1), {}, 1};
    auto pages = formatted(first);
    const auto chosen =
        choose_superblock(ConstPageBytes{pages[kSuperblockA]}, ConstPageBytes{pages[kSuperblockB]});
    ASSERT_TRUE(chosen.has_value());
    EXPECT_EQ(chosen->superblock.generation, first);
    EXPECT_EQ(chosen->superblock.tracked_peer, replica_id(6));
    std::vector<std::byte> ring;
    for (std::uint64_t i = 0; i < kIntentLogSlots; ++i) {
        const auto& page = pages[kIntentLogOffset + i * kPageBytes];
        ring.insert(ring.end(), page.begin(), page.end());
    }
    const auto log = decode_intent_log(ring, replica_id(5), 75);
    EXPECT_TRUE(log.known);
    EXPECT_TRUE(log.newest.extents.empty());
}

std::string inspected(const std::map<std::uint64_t, std::vector<std::byte>>& pages) {
    return inspect(
        [&](std::uint64_t offset, std::span<std::byte> into) {
            for (std::size_t at = 0; at < into.size(); at += kPageBytes) {
                const auto page = pages.find(offset + at);
                if (page == pages.end()) return false;
                std::ranges::copy(page->second, into.begin() + static_cast<std::ptrdiff_t>(at));
            }
            return true;
        },
        1ULL << 20);
}

TEST(Inspect, says_what_a_human_wants_to_know) {
    auto pages = formatted({GenerationId::from_random(1, 1), {}, 1});
    EXPECT_THAT(inspected(pages), testing::HasSubstr("UpToDate"));
    EXPECT_THAT(inspected(pages), testing::HasSubstr("0 active extents"));
    EXPECT_THAT(inspected(pages), testing::HasSubstr("0 of 76800 blocks"));
    EXPECT_THAT(inspected(pages), testing::HasSubstr("at offset 67108864"));
    EXPECT_THAT(inspected(pages), testing::HasSubstr("cut short"));
    pages[kBitmapOffset][9] ^= std::byte{1};
    EXPECT_THAT(inspected(pages), testing::HasSubstr("3840 of 76800 blocks"));
}

TEST(Inspect, unreadable_metadata_is_said_to_be_unreadable) {
    EXPECT_THAT(inspected({}), testing::HasSubstr("no readable superblock"));
    auto pages = formatted({});
    pages[kSuperblockA][0] ^= std::byte{1};
    EXPECT_THAT(inspected(pages), testing::HasSubstr("freshness is unknown"));
    pages[kIntentLogOffset + kPageBytes][0] ^= std::byte{1};
    EXPECT_THAT(inspected(pages), testing::HasSubstr("intent log: unknown"));
}

}  // namespace
}  // namespace gemel::formats
