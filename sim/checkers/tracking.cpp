#include "sim/checkers/tracking.hpp"

#include <algorithm>
#include <array>
#include <span>

#include <fmt/format.h>

#include "core/formats/bitmap.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"
#include "core/formats/superblock.hpp"

namespace gemel::sim {
namespace {

using formats::ConstPageBytes;
using Page = std::array<std::byte, formats::kPageBytes>;

Page page_at(const Image& image, std::uint64_t offset) {
    Page page;
    image.metadata.read(offset, page);
    return page;
}

Result<formats::ChosenSuperblock> superblock_of(const Image& image) {
    const Page a = page_at(image, formats::kSuperblockA);
    const Page b = page_at(image, formats::kSuperblockB);
    return formats::choose_superblock(ConstPageBytes(a), ConstPageBytes(b));
}

}  // namespace

TrackingChecker::TrackingChecker(std::uint64_t data_bytes) : data_bytes_(data_bytes) {}

bool TrackingChecker::Tracked::covers(std::uint64_t block) const {
    if (everything) return true;
    if (extents[block / formats::kBlocksPerExtent]) return true;
    return (words[block / 64] >> (block % 64) & 1U) != 0;
}

TrackingChecker::Tracked TrackingChecker::tracked_by(const Image& image, const ReplicaId& other) {
    Tracked tracked;
    const auto chosen = superblock_of(image);
    const formats::Layout layout = formats::Layout::for_size(data_bytes_);
    tracked.extents.assign(layout.extents, false);
    tracked.words.assign(layout.bitmap_pages * formats::kWordsPerPage, 0);
    if (!chosen || !chosen->newest || chosen->superblock.state != ReplicaState::up_to_date ||
        chosen->superblock.tracked_peer != other) {
        tracked.everything = true;
        return tracked;
    }
    std::vector<std::byte> ring(formats::kIntentLogSlots * formats::kPageBytes);
    image.metadata.read(formats::kIntentLogOffset, ring);
    const auto log = formats::decode_intent_log(ring, chosen->superblock.replica, layout.extents);
    tracked.everything = !log.known;
    for (const std::uint32_t extent : log.newest.extents) tracked.extents[extent] = true;
    for (std::uint64_t page = 0; page < layout.bitmap_pages; ++page) {
        const Page bytes = page_at(image, formats::Layout::bitmap_offset(page));
        std::array<std::uint64_t, formats::kWordsPerPage> words{};
        formats::decode_bitmap_page(ConstPageBytes(bytes), page, chosen->superblock.replica, words);
        std::copy(words.begin(), words.end(),
                  tracked.words.begin() + static_cast<std::ptrdiff_t>(page * formats::kWordsPerPage));
    }
    return tracked;
}

std::string TrackingChecker::check(const Image& a, const Image& b) {
    const auto block_a = superblock_of(a);
    const auto block_b = superblock_of(b);
    if (!block_a || !block_b) return {};  // unknown metadata is never clean
    const Tracked by_a = tracked_by(a, block_b->superblock.replica);
    const Tracked by_b = tracked_by(b, block_a->superblock.replica);
    std::string lost;
    const auto compare = [&](const Image& left, const Image& right) {
        left.data.for_each_page([&](std::uint64_t first, const std::array<Stamp, kSectorsPerBlock>& page) {
            const std::uint64_t block = first / kSectorsPerBlock;
            if (!lost.empty() || by_a.covers(block) || by_b.covers(block)) return;
            for (std::uint64_t i = 0; i < page.size(); ++i) {
                if (page[i] == right.data.get(first + i)) continue;
                lost = fmt::format(
                    "sector {} (block {}, extent {}) differs on stable storage, {} and {}, and neither "
                    "side's stable metadata says so",
                    first + i, block, block / formats::kBlocksPerExtent, page[i], right.data.get(first + i));
                return;
            }
        });
    };
    compare(a, b);
    if (lost.empty()) compare(b, a);
    return lost;
}

}  // namespace gemel::sim
