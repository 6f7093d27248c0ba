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
    void read();
    bool names(std::uint64_t block) const;
    std::string untracked(std::uint64_t block) const;

    std::uint64_t data_bytes_;
    std::array<const Disk*, 2> disks_;
    std::array<std::uint64_t, 2> seen_{};
    std::array<StableMetadata, 2> metadata_;
    std::vector<std::uint64_t> tracked_;  // by one or both
    std::vector<std::uint64_t> before_;
};

}  // namespace gemel::sim
