#include "sim/checkers/equality.hpp"

#include <array>
#include <vector>

#include <fmt/format.h>

namespace gemel::sim {

std::string EqualityChecker::same(const Image& a, const Image& b) const {
    std::string difference;
    const auto compare = [&](const Image& left, const Image& right) {
        left.data.for_each_page([&](std::uint64_t first, const std::array<Stamp, kSectorsPerBlock>& page) {
            for (std::uint64_t i = 0; i < page.size() && difference.empty(); ++i) {
                const Stamp other = right.data.get(first + i);
                if (page[i] != other) {
                    difference =
                        fmt::format("sector {} (extent {}) holds write {} on one and {} on the other",
                                    first + i, (first + i) * kSectorBytes >> 22, page[i], other);
                }
            }
        });
    };
    compare(a, b);
    if (difference.empty()) compare(b, a);
    return difference;
}

std::string EqualityChecker::holds(const Image& image, WriteNumber number) const {
    const History::Write& write = history_.write(number);
    const std::uint64_t end = (write.offset + write.length) / kSectorBytes;
    for (std::uint64_t sector = write.offset / kSectorBytes; sector < end; ++sector) {
        std::string breach = history_.judge_holds(number, sector, image.data.get(sector));
        if (!breach.empty()) return breach;
    }
    return {};
}

std::string EqualityChecker::shows_history(const Image& image, Instant now) const {
    for (const std::uint64_t block : history_.touched_blocks()) {
        for (std::uint64_t sector = block * kSectorsPerBlock; sector < (block + 1) * kSectorsPerBlock;
             ++sector) {
            std::string breach = history_.judge(now, sector, image.data.get(sector));
            if (!breach.empty()) return breach;
        }
    }
    return {};
}

std::string EqualityChecker::keeps_flushed(const Image& stable) const {
    for (const std::uint64_t block : history_.touched_blocks()) {
        for (std::uint64_t sector = block * kSectorsPerBlock; sector < (block + 1) * kSectorsPerBlock;
             ++sector) {
            const Stamp there = stable.data.get(sector);
            if (history_.known(sector, there)) continue;
            return fmt::format("sector {} (block {}) is stable as write {}, and a later one was flushed",
                               sector, block, there);
        }
    }
    return {};
}

}  // namespace gemel::sim
