// DirtyBitmap: one bit a 4 KiB block, set where the two replicas may differ, in memory and, page by page, on
// disk. A bit counts as stable when its page has been written stably since it was set. Bits are set before
// the data they stand for is acknowledged alone and cleared only on the peer's word that the resync data is
// stable (D4); a cleared bit that did not reach the disk costs time, never data.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.hpp"
#include "core/formats/bitmap.hpp"
#include "core/formats/layout.hpp"
#include "core/replication/interface.hpp"

namespace gemel::replication {

class DirtyBitmap {
  public:
    static constexpr std::uint32_t kWritesAtOnce = 8;
    using Version = std::uint32_t;  // of one page in memory; 0: as read from disk

    DirtyBitmap(const formats::Layout& layout, const ReplicaId& replica);

    // -- bits; ranges are bytes of the volume, every block they touch counts
    void set(std::uint64_t offset, std::uint64_t length);
    void clear(std::uint64_t offset, std::uint64_t length);
    void set_all();
    void clear_all();
    void merge(std::uint64_t first_block, std::span<const std::uint64_t> words);
    bool test(std::uint64_t block) const { return (words_[block / 64] >> (block % 64) & 1U) != 0; }
    bool any(std::uint64_t offset, std::uint64_t length) const;
    // first dirty block at or after `from`, or layout.blocks
    std::uint64_t next_dirty(std::uint64_t from) const;
    std::uint64_t dirty_blocks() const { return dirty_blocks_; }
    formats::ConstBitmapWords page_words(std::uint64_t page) const;
    std::uint64_t pages() const { return pages_.size(); }

    // -- stability
    static std::uint64_t page_of(std::uint64_t block) { return block / formats::kBlocksPerPage; }
    Version version(std::uint64_t page) const { return pages_[page].version; }
    bool is_stable(std::uint64_t page, Version version) const { return pages_[page].stable >= version; }
    bool all_stable() const;
    bool page_changed(std::uint64_t page) const { return pages_[page].stable != pages_[page].version; }
    // Ask for the page (or every changed one) to be written; pump() starts as many writes as there are
    // buffers.
    void want_stable(std::uint64_t page);
    void want_all_stable();
    void pump(Outputs& outputs);
    // A block is sent as it is in this disk's cache. Its cleared bit may become stable only when the block is
    // stable here too: a page with newer clears than the last flush is held back, and a flush is wanted.
    bool wants_flush() const { return wanted_pages_ > 0 && clears_ > flushed_clears_; }
    std::uint64_t clears() const { return clears_; }
    void flushed(std::uint64_t clears) { flushed_clears_ = std::max(flushed_clears_, clears); }
    // index: of the write, as in the tag (see tags.hpp)
    void written(std::uint32_t index);
    bool writing() const;

    // -- attach
    void load_page(std::uint64_t page, formats::ConstPageBytes bytes);
    // what was loaded may not be stable: every page is to be written again
    void distrust() {
        for (Page& page : pages_) ++page.version;
    }

  private:
    struct Page {
        std::uint64_t sequence = 0;  // on disk
        Version version = 0;
        Version stable = 0;
        std::uint64_t last_clear = 0;  // number of the newest clear() of one of its bits
        bool wanted = false;
        bool writing = false;
    };
    struct Write {
        alignas(4096) std::array<std::byte, formats::kPageBytes> bytes;
        std::uint64_t page = 0;
        Version version = 0;
        bool busy = false;
    };
    template <typename Change>
    void change(std::uint64_t first, std::uint64_t last, Change&& change);
    void changed(std::uint64_t word, std::uint64_t before);
    void mask_end();

    formats::Layout layout_;
    ReplicaId replica_;
    std::vector<std::uint64_t> words_;
    std::vector<Page> pages_;
    std::vector<Write> writes_;
    std::uint64_t dirty_blocks_ = 0;
    std::uint64_t clears_ = 0;
    std::uint64_t flushed_clears_ = 0;
    std::uint64_t wanted_pages_ = 0;
    std::uint64_t next_wanted_ = 0;  // where pump goes on looking
};

}  // namespace gemel::replication
