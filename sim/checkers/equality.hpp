// EqualityChecker: promise D16 and the copies behind promise D1. Compares images of the two disks, and one
// write with what a replica holds. It looks at the disks, not at what an engine says of them.
#pragma once

#include <cstdint>
#include <string>

#include "sim/checkers/history.hpp"
#include "sim/world/image.hpp"

namespace gemel::sim {

class EqualityChecker {
  public:
    EqualityChecker(const History& history, std::uint64_t data_bytes)
        : history_(history), data_bytes_(data_bytes) {}

    // empty when both hold the same data everywhere; otherwise the first difference
    std::string same(const Image& a, const Image& b) const;
    // empty when `image` holds that acknowledged write, or a later or concurrent one, in each of its sectors
    std::string holds(const Image& image, WriteNumber write) const;
    // empty when every sector of `image` may be shown to a read that begins now
    std::string shows_history(const Image& image, Instant now) const;
    // empty when `stable` holds, in each sector, the newest flushed write or one that came after it
    std::string keeps_flushed(const Image& stable) const;

  private:
    const History& history_;
    std::uint64_t data_bytes_;
};

}  // namespace gemel::sim
