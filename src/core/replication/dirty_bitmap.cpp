#include "core/replication/dirty_bitmap.hpp"

#include <algorithm>
#include <bit>

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {

DirtyBitmap::DirtyBitmap(const formats::Layout& layout, const ReplicaId& replica)
    : layout_(layout),
      replica_(replica),
      words_(layout.bitmap_pages * formats::kWordsPerPage),
      pages_(layout.bitmap_pages),
      writes_(std::min<std::uint64_t>(kWritesAtOnce, layout.bitmap_pages)) {}

void DirtyBitmap::changed(std::uint64_t word, std::uint64_t before) {
    const std::uint64_t now = words_[word];
    if (now == before) return;
    dirty_blocks_ += static_cast<std::uint64_t>(std::popcount(now));
    dirty_blocks_ -= static_cast<std::uint64_t>(std::popcount(before));
    ++pages_[word / formats::kWordsPerPage].version;
}

// Applies change(word, mask) to every word that holds blocks [first, last].
template <typename Change>
void DirtyBitmap::change(std::uint64_t first, std::uint64_t last, Change&& change) {
    INVARIANT(last < layout_.blocks && first <= last, "only blocks of the volume have bits");
    for (std::uint64_t word = first / 64; word <= last / 64; ++word) {
        std::uint64_t mask = ~std::uint64_t{0};
        if (word == first / 64) mask &= ~std::uint64_t{0} << (first % 64);
        if (word == last / 64) mask &= ~std::uint64_t{0} >> (63 - last % 64);
        const std::uint64_t before = words_[word];
        change(words_[word], mask);
        changed(word, before);
    }
}

void DirtyBitmap::set(std::uint64_t offset, std::uint64_t length) {
    change(offset / kBlockBytes, (offset + length - 1) / kBlockBytes,
           [](std::uint64_t& word, std::uint64_t mask) { word |= mask; });
}

void DirtyBitmap::clear(std::uint64_t offset, std::uint64_t length) {
    INVARIANT(offset % kBlockBytes == 0 && length % kBlockBytes == 0,
              "a part of a block never makes it clean");
    change(offset / kBlockBytes, (offset + length - 1) / kBlockBytes,
           [](std::uint64_t& word, std::uint64_t mask) { word &= ~mask; });
    ++clears_;
    const std::uint64_t last = page_of((offset + length - 1) / kBlockBytes);
    for (std::uint64_t page = page_of(offset / kBlockBytes); page <= last; ++page)
        pages_[page].last_clear = clears_;
}

void DirtyBitmap::set_all() {
    set(0, layout_.size_bytes);
}

void DirtyBitmap::clear_all() {
    clear(0, layout_.size_bytes);
}

void DirtyBitmap::merge(std::uint64_t first_block, std::span<const std::uint64_t> words) {
    INVARIANT(first_block % 64 == 0 && first_block / 64 + words.size() <= words_.size(),
              "checked by the receiver");
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::uint64_t word = first_block / 64 + i;
        const std::uint64_t before = words_[word];
        words_[word] |= words[i];
        if (word == (layout_.blocks - 1) / 64) mask_end();
        if (word * 64 >= layout_.blocks) words_[word] = 0;
        changed(word, before);
    }
}

bool DirtyBitmap::any(std::uint64_t offset, std::uint64_t length) const {
    return next_dirty(offset / kBlockBytes) <= (offset + length - 1) / kBlockBytes;
}

std::uint64_t DirtyBitmap::next_dirty(std::uint64_t from) const {
    if (dirty_blocks_ == 0 || from >= layout_.blocks) return layout_.blocks;
    std::uint64_t word = from / 64;
    std::uint64_t bits = words_[word] & (~std::uint64_t{0} << (from % 64));
    while (bits == 0) {
        if (++word == words_.size()) return layout_.blocks;
        bits = words_[word];
    }
    return word * 64 + static_cast<std::uint64_t>(std::countr_zero(bits));
}

formats::ConstBitmapWords DirtyBitmap::page_words(std::uint64_t page) const {
    return formats::ConstBitmapWords{
        std::span(words_).subspan(page * formats::kWordsPerPage, formats::kWordsPerPage)};
}

bool DirtyBitmap::all_stable() const {
    return std::ranges::all_of(pages_, [](const Page& page) { return page.stable == page.version; });
}

bool DirtyBitmap::writing() const {
    return std::ranges::any_of(writes_, &Write::busy);
}

void DirtyBitmap::want_stable(std::uint64_t page) {
    Page& p = pages_[page];
    if (p.wanted || p.stable == p.version) return;
    p.wanted = true;
    ++wanted_pages_;
}

void DirtyBitmap::want_all_stable() {
    for (std::uint64_t page = 0; page < pages_.size(); ++page) want_stable(page);
}

void DirtyBitmap::pump(Outputs& outputs) {
    for (std::uint32_t i = 0; i < writes_.size() && wanted_pages_ > 0; ++i) {
        Write& write = writes_[i];
        if (write.busy) continue;
        std::uint64_t looked = 0;
        const auto ready = [this](const Page& page) {
            const bool flushed = page.last_clear <= flushed_clears_ || mutant("bit_cleared_before_own_flush");
            return page.wanted && !page.writing && flushed;
        };
        while (looked < pages_.size() && !ready(pages_[next_wanted_])) {
            next_wanted_ = (next_wanted_ + 1) % pages_.size();
            ++looked;
        }
        if (looked == pages_.size()) return;
        Page& page = pages_[next_wanted_];
        page.wanted = false;
        page.writing = true;
        --wanted_pages_;
        write.busy = true;
        write.page = next_wanted_;
        write.version = page.version;
        formats::encode_bitmap_page(write.page, ++page.sequence, page_words(write.page), replica_,
                                    write.bytes);
        outputs.emplace_back(WriteMetadata{make_tag(TagKind::bitmap_write, i),
                                           formats::Layout::bitmap_offset(write.page), write.bytes, true});
    }
}

void DirtyBitmap::written(std::uint32_t index) {
    Write& write = writes_.at(index);
    INVARIANT(write.busy, "a page write completes once");
    write.busy = false;
    pages_[write.page].writing = false;
    pages_[write.page].stable = write.version;
}

void DirtyBitmap::load_page(std::uint64_t page, formats::ConstPageBytes bytes) {
    const formats::BitmapWords words{
        std::span(words_).subspan(page * formats::kWordsPerPage, formats::kWordsPerPage)};
    for (const std::uint64_t word : words) dirty_blocks_ -= static_cast<std::uint64_t>(std::popcount(word));
    const auto contents = formats::decode_bitmap_page(bytes, page, replica_, words);
    pages_[page].sequence = contents.sequence;
    if (page + 1 == pages_.size()) mask_end();
    for (const std::uint64_t word : words) dirty_blocks_ += static_cast<std::uint64_t>(std::popcount(word));
    if (contents.unreadable_sectors > 0) ++pages_[page].version;
}

// Bits past the end of the volume are no blocks.
void DirtyBitmap::mask_end() {
    const std::uint64_t last = layout_.blocks / 64;
    if (last >= words_.size()) return;
    words_[last] &= (std::uint64_t{1} << (layout_.blocks % 64)) - 1;
    std::fill(words_.begin() + static_cast<std::ptrdiff_t>(last) + 1, words_.end(), 0);
}

}  // namespace gemel::replication
