// FileUndo: what a file's stable content was, for every sector changed since its last fsync.
//
// The backing file always holds the newest content (reads need no merging); this object remembers how to take
// back what was never synced. At a power cut a seeded part of the unsynced 512-byte sectors is taken back:
// all, none, or each by chance, so that writes are lost, torn and reordered as a disk's volatile cache does.
// A fsync forgets. Not in it: names and directories (journal.hpp). One owner; the caller serialises.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "base/prng.hpp"

namespace gemel::lossyfs {

constexpr std::uint64_t kSectorBytes = 512;
constexpr std::uint64_t kPageBytes = 4096;

struct LossReport {
    std::uint64_t unsynced_sectors = 0;
    std::uint64_t lost_sectors = 0;
    std::uint64_t size_before_bytes = 0;
    std::uint64_t size_after_bytes = 0;
};

class FileUndo {
  public:
    explicit FileUndo(std::uint64_t stable_size_bytes) : stable_size_bytes_(stable_size_bytes) {}

    // Before [offset, offset + length) of the backing file changes: keeps the stable content of the sectors
    // that are still unchanged. Errors of reading the backing file are fatal (a disk that cannot be read
    // tests nothing).
    void before_change(int fd, std::uint64_t offset, std::uint64_t length);

    // [offset, offset + length) was written and is stable (O_DSYNC): its sectors are, earlier unsynced ones
    // are not.
    void settle(int fd, std::uint64_t offset, std::uint64_t length);

    // Takes back a seeded part of the unsynced changes in the backing file. The object is spent afterwards.
    LossReport lose(int fd, Prng& random);

    bool clean(std::uint64_t current_size_bytes) const {
        return pages_.empty() && current_size_bytes == stable_size_bytes_;
    }
    // Everything up to now is stable.
    void forget(std::uint64_t current_size_bytes);
    std::uint64_t held_bytes() const { return held_bytes_; }
    std::uint64_t stable_size_bytes() const { return stable_size_bytes_; }

  private:
    using Content = std::array<std::byte, kPageBytes>;
    struct Page {
        std::uint8_t changed_sectors = 0;  // bit i: sector i of the page differs from the stable content
        std::unique_ptr<Content> stable;   // null: all zero, or beyond the stable end
    };

    void keep_page(int fd, std::uint64_t index, Page& page);
    void restore_sector(int fd, std::uint64_t offset, const Page& page) const;
    std::uint64_t size_after(std::uint64_t current, std::uint64_t kept_end, bool all_lost,
                             Prng& random) const;

    std::uint64_t stable_size_bytes_;
    std::map<std::uint64_t, Page> pages_;  // page index -> what it held
    std::uint64_t held_bytes_ = 0;
};

}  // namespace gemel::lossyfs
