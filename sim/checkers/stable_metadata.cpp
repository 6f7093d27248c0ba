#include "sim/checkers/stable_metadata.hpp"

#include <algorithm>
#include <array>
#include <span>

#include "core/formats/bitmap.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"

namespace gemel::sim {
namespace {

using formats::ConstPageBytes;
using Page = std::array<std::byte, formats::kPageBytes>;

Page page_at(const Image& image, std::uint64_t offset) {
    Page page;
    image.metadata.read(offset, page);
    return page;
}

bool contains(const formats::Superblock& history, const GenerationId& id) {
    return history.generation.id == id || std::ranges::find(history.ancestors, id) != history.ancestors.end();
}

}  // namespace

StableMetadata::StableMetadata(std::uint64_t data_bytes) : data_bytes_(data_bytes) {
    const formats::Layout layout = formats::Layout::for_size(data_bytes_);
    bits_.resize(layout.bitmap_pages * formats::kWordsPerPage);
    in_extents_.resize(bits_.size());
    ring_.resize(formats::kIntentLogSlots * formats::kPageBytes);
}

void StableMetadata::read_superblock(const Image& image) {
    const Page a = page_at(image, formats::kSuperblockA);
    const Page b = page_at(image, formats::kSuperblockB);
    const auto chosen = formats::choose_superblock(ConstPageBytes(a), ConstPageBytes(b));
    superblock_.reset();
    identity_.reset();
    if (!chosen) return;
    identity_ = chosen->superblock;
    if (chosen->newest) superblock_ = chosen->superblock;
}

void StableMetadata::read(const Image& image, std::uint64_t version) {
    if (version_ == version) return;
    version_ = version;
    read_superblock(image);
    if (!superblock_) return;
    const formats::Layout layout = formats::Layout::for_size(data_bytes_);
    image.metadata.read(formats::kIntentLogOffset, ring_);
    const auto log = formats::decode_intent_log(ring_, superblock_->replica, layout.extents);
    log_known_ = log.known;
    std::ranges::fill(in_extents_, 0);
    constexpr std::uint64_t kWordsPerExtent = formats::kBlocksPerExtent / 64;
    for (const std::uint32_t extent : log.newest.extents) {
        for (std::uint64_t w = extent * kWordsPerExtent; w < (extent + 1) * kWordsPerExtent; ++w) {
            if (w < in_extents_.size()) in_extents_[w] = ~std::uint64_t{0};
        }
    }
    for (std::uint64_t page = 0; page < layout.bitmap_pages; ++page) {
        const Page bytes = page_at(image, formats::Layout::bitmap_offset(page));
        const auto words =
            std::span(bits_).subspan(page * formats::kWordsPerPage).first<formats::kWordsPerPage>();
        formats::decode_bitmap_page(ConstPageBytes(bytes), page, superblock_->replica, words);
    }
}

// A bitmap speaks of one replica, and of it only since a generation which that one has.
bool StableMetadata::everything(const std::optional<formats::Superblock>& other) const {
    if (!superblock_ || !other || !log_known_) return true;
    if (superblock_->state != ReplicaState::up_to_date) return true;
    return superblock_->tracked_peer != other->replica || !contains(*other, superblock_->tracked_since);
}

bool StableMetadata::names(std::uint64_t block) const {
    return (word(block / 64) >> (block % 64) & 1U) != 0;
}

}  // namespace gemel::sim
