// TrackingChecker: promise D3. At an instant, wherever the stable contents of the two replicas differ, the
// stable metadata of a replica must say so: dirty bit, active extent, or "whole device". Decodes the metadata
// from the stable images as an attach would; it trusts no engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "sim/world/image.hpp"

namespace gemel::sim {

class TrackingChecker {
  public:
    explicit TrackingChecker(std::uint64_t data_bytes);

    // empty when every difference is tracked
    std::string check(const Image& a, const Image& b);

  private:
    struct Tracked {
        bool everything = false;  // unknown metadata, or the whole device is dirty relative to the other
        std::vector<std::uint64_t> words;
        std::vector<bool> extents;
        bool covers(std::uint64_t block) const;
    };
    Tracked tracked_by(const Image& image, const ReplicaId& other);

    std::uint64_t data_bytes_;
};

}  // namespace gemel::sim
