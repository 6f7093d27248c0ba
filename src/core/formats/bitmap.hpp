// Bitmap page: dirty bits of 30720 blocks (120 MiB), one bit a block, least significant bit first, as 480
// words of 64 bits in the payload of a metadata page; 60 words (15 MiB of volume) to a sector. A sector that
// cannot be read means all its blocks are dirty. A torn page needs no more care: where an older sector shows,
// bits set since are covered by the intent log (an extent leaves it only after its page was stable) and bits
// cleared since cost only time.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/ids.hpp"
#include "core/formats/layout.hpp"
#include "core/formats/metadata_page.hpp"

namespace gemel::formats {

using BitmapWords = std::span<std::uint64_t, kWordsPerPage>;
using ConstBitmapWords = std::span<const std::uint64_t, kWordsPerPage>;

void encode_bitmap_page(std::uint64_t page, std::uint64_t sequence, ConstBitmapWords words,
                        const ReplicaId& replica, PageBytes out);

struct BitmapPageContents {
    std::uint64_t sequence = 0;            // highest found
    std::uint32_t unreadable_sectors = 0;  // their bits are all set
};
// Fills `words`; bits past the end of the volume are the caller's to mask.
BitmapPageContents decode_bitmap_page(ConstPageBytes bytes, std::uint64_t page, const ReplicaId& replica,
                                      BitmapWords words);

}  // namespace gemel::formats
