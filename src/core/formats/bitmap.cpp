#include "core/formats/bitmap.hpp"

#include <algorithm>

#include "base/bytes.hpp"

namespace gemel::formats {
namespace {

constexpr std::size_t kWordsPerSector = kSectorPayload / 8;
static_assert(kWordsPerSector * kSectorsPerPage == kWordsPerPage);

}  // namespace

void encode_bitmap_page(std::uint64_t page, std::uint64_t sequence, ConstBitmapWords words,
                        const ReplicaId& replica, PageBytes out) {
    PagePayload payload;
    ByteWriter writer{std::span<std::byte>(payload)};
    for (const std::uint64_t word : words) writer.u64(word);
    encode_page({PageKind::bitmap, Layout::bitmap_offset(page), sequence, replica},
                std::span<const std::byte, kPagePayload>(payload), out);
}

BitmapPageContents decode_bitmap_page(ConstPageBytes bytes, std::uint64_t page, const ReplicaId& replica,
                                      BitmapWords words) {
    const DecodedPage decoded = decode_page(bytes, PageKind::bitmap, Layout::bitmap_offset(page), replica);
    BitmapPageContents contents;
    for (std::size_t i = 0; i < kSectorsPerPage; ++i) {
        const auto out = words.subspan(i * kWordsPerSector, kWordsPerSector);
        const SectorView& sector = decoded.sectors[i];
        if (!sector.sound) {
            std::fill(out.begin(), out.end(), ~std::uint64_t{0});
            ++contents.unreadable_sectors;
            continue;
        }
        contents.sequence = std::max(contents.sequence, sector.sequence);
        ByteReader reader(sector.payload);
        for (std::uint64_t& word : out) word = reader.u64();
    }
    return contents;
}

}  // namespace gemel::formats
