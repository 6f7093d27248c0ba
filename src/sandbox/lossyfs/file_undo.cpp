#include "sandbox/lossyfs/file_undo.hpp"

#include <algorithm>
#include <cstddef>
#include <sys/stat.h>
#include <unistd.h>

#include "base/invariant.hpp"

namespace gemel::lossyfs {

namespace {

std::uint64_t file_size(int fd) {
    struct stat info {};
    INVARIANT(::fstat(fd, &info) == 0, "the backing file is open");
    return static_cast<std::uint64_t>(info.st_size);
}

// Which of a page's sectors [offset, end) touches.
std::uint8_t sectors_touched(std::uint64_t page_start, std::uint64_t offset, std::uint64_t end) {
    std::uint8_t touched = 0;
    for (unsigned sector = 0; sector < kPageBytes / kSectorBytes; ++sector) {
        const std::uint64_t from = page_start + sector * kSectorBytes;
        if (from < end && from + kSectorBytes > offset) {
            touched = static_cast<std::uint8_t>(touched | (1U << sector));
        }
    }
    return touched;
}

}  // namespace

void FileUndo::before_change(int fd, std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t end = offset + length;
    for (std::uint64_t index = offset / kPageBytes; index * kPageBytes < end; ++index) {
        Page& page = pages_[index];
        if (page.changed_sectors == 0) keep_page(fd, index, page);
        page.changed_sectors = static_cast<std::uint8_t>(page.changed_sectors |
                                                         sectors_touched(index * kPageBytes, offset, end));
    }
}

void FileUndo::keep_page(int fd, std::uint64_t index, Page& page) {
    held_bytes_ += 64;  // the entry itself
    const std::uint64_t start = index * kPageBytes;
    if (start >= stable_size_bytes_) return;
    auto content = std::make_unique<Content>();
    const std::uint64_t wanted = std::min(kPageBytes, stable_size_bytes_ - start);
    const ssize_t got = ::pread(fd, content->data(), wanted, static_cast<off_t>(start));
    INVARIANT(got >= 0, "the backing file can be read");
    if (std::all_of(content->begin(), content->end(), [](std::byte b) { return b == std::byte{0}; })) return;
    page.stable = std::move(content);
    held_bytes_ += kPageBytes;
}

void FileUndo::settle(int fd, std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t end = offset + length;
    for (std::uint64_t index = offset / kPageBytes; index * kPageBytes < end; ++index) {
        const auto found = pages_.find(index);
        if (found == pages_.end()) continue;
        Page& page = found->second;
        const std::uint8_t settled = sectors_touched(index * kPageBytes, offset, end);
        page.changed_sectors = static_cast<std::uint8_t>(page.changed_sectors & ~settled);
        if (page.changed_sectors == 0) {
            held_bytes_ -= 64 + (page.stable ? kPageBytes : 0);
            pages_.erase(found);
            continue;
        }
        if (!page.stable) {
            page.stable = std::make_unique<Content>();
            held_bytes_ += kPageBytes;
        }
        for (unsigned sector = 0; sector < kPageBytes / kSectorBytes; ++sector) {
            if ((settled & (1U << sector)) == 0) continue;
            const std::uint64_t from = index * kPageBytes + sector * kSectorBytes;
            const ssize_t got = ::pread(fd, page.stable->data() + sector * kSectorBytes, kSectorBytes,
                                        static_cast<off_t>(from));
            INVARIANT(got >= 0, "the backing file can be read");
        }
    }
    stable_size_bytes_ = std::max(stable_size_bytes_, end);
}

void FileUndo::forget(std::uint64_t current_size_bytes) {
    pages_.clear();
    held_bytes_ = 0;
    stable_size_bytes_ = current_size_bytes;
}

void FileUndo::restore_sector(int fd, std::uint64_t offset, const Page& page) const {
    static constexpr std::array<std::byte, kSectorBytes> kZeroes{};
    const std::byte* from = page.stable ? page.stable->data() + offset % kPageBytes : kZeroes.data();
    const ssize_t written = ::pwrite(fd, from, kSectorBytes, static_cast<off_t>(offset));
    INVARIANT(written == static_cast<ssize_t>(kSectorBytes), "the backing file can be written");
}

// A size may have been stable without its data, and the other way round; what is never lost is the stable
// content.
std::uint64_t FileUndo::size_after(std::uint64_t current, std::uint64_t kept_end, bool all_lost,
                                   Prng& random) const {
    if (all_lost || current == stable_size_bytes_) return stable_size_bytes_;
    if (current < stable_size_bytes_) return random.chance(1, 2) ? current : stable_size_bytes_;
    if (random.chance(1, 2)) return current;
    return std::clamp(kept_end, stable_size_bytes_, current);
}

LossReport FileUndo::lose(int fd, Prng& random) {
    LossReport report;
    const std::uint64_t current = file_size(fd);
    report.size_before_bytes = current;
    const std::uint64_t mode =
        random.below(10);  // 0-3: all is lost; 4-7: each by chance; 8-9: all was written
    const std::uint64_t loss_percent = mode < 4 ? 100 : mode < 8 ? 10 + random.below(81) : 0;
    std::uint64_t kept_end = 0;
    for (const auto& [index, page] : pages_) {
        for (unsigned sector = 0; sector < kPageBytes / kSectorBytes; ++sector) {
            if ((page.changed_sectors & (1U << sector)) == 0) continue;
            const std::uint64_t offset = index * kPageBytes + sector * kSectorBytes;
            ++report.unsynced_sectors;
            if (random.below(100) < loss_percent) {
                restore_sector(fd, offset, page);
                ++report.lost_sectors;
            } else {
                kept_end = offset + kSectorBytes;
            }
        }
    }
    report.size_after_bytes =
        loss_percent == 0 ? current : size_after(current, kept_end, loss_percent == 100, random);
    const int resized = ::ftruncate(fd, static_cast<off_t>(report.size_after_bytes));
    INVARIANT(resized == 0, "the backing file can be resized");
    forget(report.size_after_bytes);
    return report;
}

}  // namespace gemel::lossyfs
