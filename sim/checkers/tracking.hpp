// TrackingChecker: promise D3. Wherever the stable contents of the two replicas differ, or may differ because
// a write has begun and is not stable, the stable metadata of a replica says so: dirty bit, active extent, or
// "whole device". Held at every instant by induction: a write may begin only where it is tracked, and a block
// may cease to be tracked only when both copies are equal and nothing in it is unstable. check() looks at
// everything at once.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "sim/checkers/stable_metadata.hpp"
#include "sim/world/disk.hpp"

namespace gemel::sim {

class TrackingChecker {
  public:
    TrackingChecker(std::uint64_t data_bytes, const Disk& a, const Disk& b);

    // empty when every difference between the stable images is tracked
    std::string check();
    // the stable metadata of either may have changed: empty when what is no longer tracked is equal and
    // settled
    std::string metadata_changed();
    // a write of data is about to be submitted: empty when it is tracked
    std::string write_begins(std::uint32_t node, std::uint64_t offset, std::uint64_t length);
    const StableMetadata& metadata(std::uint32_t node);

  private:
    // What the stable metadata of one side says by itself, where it is a source or may become one: UpToDate
    // and readable. While the other one is Inconsistent the whole device counts as tracked, but only until it
    // is UpToDate: from then on these words must have been true all the time.
    struct Own {
        bool source = false;
        std::uint64_t restores = 0;
        std::vector<std::uint64_t> words;
    };
    void read();
    void read_own(std::uint32_t node, Own& own) const;
    // What the other side names excuses a side that no longer does; unreadable metadata names everything.
    // (Once it did not: an owner whose log a stray write had hit was taken to name nothing, when the other
    // side retired extents of a former life while a mirrored write was in its cache. Seed 1527 of 260a539.)
    // Nor does a side clear what it never spoke of: where its superblock tracks another replica than this
    // one, or nobody, its bitmap says nothing, and a resync begins by setting every bit. (Once it did: the
    // only copy retired extents of a former life under a guest served over the network. Seed 40921, which is
    // older than this line.)
    std::string own_cleared(std::uint32_t node);
    static bool unknown_at(const StableMetadata& other);
    bool names(std::uint64_t block) const;
    std::string untracked(std::uint64_t block) const;

    std::uint64_t data_bytes_;
    std::array<const Disk*, 2> disks_;
    std::array<std::uint64_t, 2> seen_{};
    std::array<StableMetadata, 2> metadata_;
    std::vector<std::uint64_t> tracked_;  // by one or both
    std::vector<std::uint64_t> before_;
    std::array<Own, 2> own_;
    Own own_now_;
};

}  // namespace gemel::sim
