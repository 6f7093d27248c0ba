#include "sim/checkers/tracking.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include <fmt/format.h>

#include "core/formats/layout.hpp"

namespace gemel::sim {

TrackingChecker::TrackingChecker(std::uint64_t data_bytes, const Disk& a, const Disk& b)
    : data_bytes_(data_bytes),
      disks_{&a, &b},
      metadata_{StableMetadata(data_bytes), StableMetadata(data_bytes)} {
    tracked_.assign(metadata_[0].words(), ~std::uint64_t{0});
}

const StableMetadata& TrackingChecker::metadata(std::uint32_t node) {
    metadata_[node].read(disks_[node]->stable(), disks_[node]->stable_metadata_version());
    return metadata_[node];
}

void TrackingChecker::read() {
    const StableMetadata& a = metadata(0);
    const StableMetadata& b = metadata(1);
    const bool a_all = a.everything(b.identity());
    const bool b_all = b.everything(a.identity());
    // where one side's metadata is unknown nothing is ever taken for clean
    const bool all = a_all || b_all || !a.superblock() || !b.superblock();
    for (std::uint64_t i = 0; i < tracked_.size(); ++i) {
        tracked_[i] = all ? ~std::uint64_t{0} : a.word(i) | b.word(i);
    }
}

bool TrackingChecker::names(std::uint64_t block) const {
    return (tracked_[block / 64] >> (block % 64) & 1U) != 0;
}

// Of a block that is not tracked: empty when both stable copies are equal.
std::string TrackingChecker::untracked(std::uint64_t block) const {
    for (std::uint64_t i = 0; i < kSectorsPerBlock; ++i) {
        const std::uint64_t sector = block * kSectorsPerBlock + i;
        const Stamp a = disks_[0]->stable().data.get(sector);
        const Stamp b = disks_[1]->stable().data.get(sector);
        if (a == b) continue;
        return fmt::format(
            "sector {} (block {}, extent {}) differs on stable storage, {} and {}, and neither side's stable "
            "metadata says so",
            sector, block, block / formats::kBlocksPerExtent, a, b);
    }
    return {};
}

std::string TrackingChecker::check() {
    read();
    std::string lost;
    for (const Disk* disk : disks_) {
        disk->stable().data.for_each_page(
            [&](std::uint64_t first, const std::array<Stamp, kSectorsPerBlock>&) {
                const std::uint64_t block = first / kSectorsPerBlock;
                if (lost.empty() && !names(block)) lost = untracked(block);
            });
    }
    return lost;
}

void TrackingChecker::read_own(std::uint32_t node, Own& own) const {
    const StableMetadata& metadata = metadata_[node];
    own.source = metadata.readable() && metadata.superblock()->state == ReplicaState::up_to_date &&
                 !metadata.everything(metadata_[1 - node].identity());
    own.restores = disks_[node]->restores();
    own.words.resize(metadata.words());
    for (std::uint64_t i = 0; i < own.words.size(); ++i) own.words[i] = metadata.word(i);
}

// Its log or its newest superblock cannot be read, and it is no target that will soon name nothing any more:
// an attach of it sets every bit, stably, before anything else, or makes it a target from end to end.
bool TrackingChecker::unknown_at(const StableMetadata& other) {
    const bool target = other.superblock() && other.superblock()->state != ReplicaState::up_to_date;
    return !other.readable() && !target;
}

// A source stops naming a block: the resync data is stable on the target (D4), and what was sent is stable on
// the source itself. Otherwise a power cut here takes it back, and nothing says that the target has more.
std::string TrackingChecker::own_cleared(std::uint32_t node) {
    Own& before = own_[node];
    Own& now = own_now_;
    read_own(node, now);
    std::swap(before, now);  // `now` holds what was before
    if (!now.source || !before.source || now.restores != before.restores) return {};
    const StableMetadata& other = metadata_[1 - node];
    if (unknown_at(other)) return {};
    const std::uint64_t blocks = data_bytes_ / kBlockBytes;
    for (std::uint64_t i = 0; i * 64 < blocks; ++i) {
        const std::uint64_t cleared = now.words[i] & ~before.words[i] & ~other.word(i);
        for (std::uint64_t bits = cleared; bits != 0; bits &= bits - 1) {
            const std::uint64_t block = i * 64 + static_cast<std::uint64_t>(std::countr_zero(bits));
            if (block >= blocks || !disks_[node]->unstable_in(block * kBlockBytes, kBlockBytes)) continue;
            return fmt::format("node{} no longer tracks block {} (extent {}), which is not stable on itself",
                               node + 1, block, block / formats::kBlocksPerExtent);
        }
    }
    return {};
}

std::string TrackingChecker::metadata_changed() {
    const std::array<std::uint64_t, 2> now = {disks_[0]->stable_metadata_version(),
                                              disks_[1]->stable_metadata_version()};
    if (now == seen_) return {};
    seen_ = now;
    before_ = tracked_;
    read();
    for (std::uint32_t node = 0; node < 2; ++node) {
        if (const std::string lost = own_cleared(node); !lost.empty()) return lost;
    }
    const std::uint64_t blocks = data_bytes_ / kBlockBytes;
    for (std::uint64_t i = 0; i < tracked_.size(); ++i) {
        for (std::uint64_t bits = before_[i] & ~tracked_[i]; bits != 0; bits &= bits - 1) {
            const std::uint64_t block = i * 64 + static_cast<std::uint64_t>(std::countr_zero(bits));
            if (block >= blocks) break;
            if (const std::string lost = untracked(block); !lost.empty()) return lost;
            for (std::uint32_t node = 0; node < 2; ++node) {
                if (!disks_[node]->unstable_in(block * kBlockBytes, kBlockBytes)) continue;
                return fmt::format(
                    "block {} (extent {}) is no longer tracked while a write in it is not stable on "
                    "node{}",
                    block, block / formats::kBlocksPerExtent, node + 1);
            }
        }
    }
    return {};
}

std::string TrackingChecker::write_begins(std::uint32_t node, std::uint64_t offset, std::uint64_t length) {
    if (const std::string lost = metadata_changed(); !lost.empty()) return lost;
    for (std::uint64_t block = offset / kBlockBytes; block * kBlockBytes < offset + length; ++block) {
        if (names(block)) continue;
        return fmt::format(
            "node{} begins to write block {} (extent {}) and no stable metadata says that it may "
            "differ",
            node + 1, block, block / formats::kBlocksPerExtent);
    }
    return {};
}

}  // namespace gemel::sim
