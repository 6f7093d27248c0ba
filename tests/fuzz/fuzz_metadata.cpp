// Every decoder of the disk format: whatever the bytes, no crash; a superblock that is accepted encodes to
// the same again, and what cannot be read is never clean. The first byte chooses: raw bytes, or a payload in
// soundly stamped pages.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "core/formats/bitmap.hpp"
#include "core/formats/inspect.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"
#include "core/formats/superblock.hpp"

using namespace gemel;
using namespace gemel::formats;

namespace {

using Page = std::array<std::byte, kPageBytes>;

Page raw_page(std::span<const std::byte>& bytes) {
    Page page{};
    const std::size_t count = std::min(bytes.size(), page.size());
    std::copy_n(bytes.begin(), count, page.begin());
    bytes = bytes.subspan(count);
    return page;
}

Page stamped_page(std::span<const std::byte>& bytes, PageKind kind, std::uint64_t offset,
                  std::uint64_t sequence) {
    PagePayload payload{};
    const std::size_t count = std::min(bytes.size(), payload.size());
    std::copy_n(bytes.begin(), count, payload.begin());
    bytes = bytes.subspan(count);
    Page page;
    encode_page({kind, offset, sequence, ReplicaId{}}, std::span<const std::byte, kPagePayload>(payload),
                page);
    return page;
}

void check(bool holds) {
    if (!holds) std::abort();
}

void superblock(std::span<const std::byte> bytes) {
    const Page page = stamped_page(bytes, PageKind::superblock, kSuperblockA, 8);
    const auto decoded = decode_superblock(page, kSuperblockA);
    if (!decoded) return;
    Page again;
    encode_superblock(*decoded, again);
    const auto twice = decode_superblock(again, kSuperblockA);
    check(twice.has_value() && *twice == *decoded);
}

void intent_log(std::span<const std::byte> bytes, bool stamped) {
    std::vector<std::byte> ring;
    for (std::uint64_t sequence = 16; sequence < 16 + kIntentLogSlots; ++sequence) {
        const Page page =
            stamped ? stamped_page(bytes, PageKind::intent, Layout::intent_offset(sequence), sequence)
                    : raw_page(bytes);
        ring.insert(ring.end(), page.begin(), page.end());
    }
    const auto contents = decode_intent_log(ring, ReplicaId{}, 1000);
    for (const std::uint32_t extent : contents.newest.extents) check(extent < 1000);
}

void everything_raw(std::span<const std::byte> bytes) {
    Page a = raw_page(bytes);
    const Page b = raw_page(bytes);
    static_cast<void>(choose_superblock(a, b));
    std::array<std::uint64_t, kWordsPerPage> words{};
    const auto contents = decode_bitmap_page(b, 0, ReplicaId{}, words);
    check(contents.unreadable_sectors < kSectorsPerPage || std::ranges::count(words, 0U) == 0);
    const auto read = [&](std::uint64_t offset, std::span<std::byte> into) {
        std::fill(into.begin(), into.end(), std::byte{0});
        const Page& page = offset == kSuperblockA ? a : b;
        std::copy_n(page.begin(), std::min(into.size(), page.size()), into.begin());
        return offset % 3 != 1;
    };
    check(!inspect(read, 1 << 20).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const auto bytes = std::span(reinterpret_cast<const std::byte*>(data), size).subspan(1);
    switch (data[0] % 4) {
        case 0: everything_raw(bytes); break;
        case 1: superblock(bytes); break;
        case 2: intent_log(bytes, true); break;
        default: intent_log(bytes, false); break;
    }
    return 0;
}
