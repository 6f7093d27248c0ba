// Prng: a seeded, portable random sequence (xoshiro256**, Blackman and Vigna 2018; seeded by splitmix64). The
// same seed gives the same sequence everywhere. Not for secrets: those come from the kernel through an
// adapter.
#pragma once

#include <array>
#include <cstdint>

#include "base/invariant.hpp"

namespace gemel {

__extension__ using Wide = unsigned __int128;

class Prng {
  public:
    explicit Prng(std::uint64_t seed) {
        for (auto& word : state_) {
            seed += 0x9e3779b97f4a7c15ULL;
            std::uint64_t z = seed;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
            z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
            word = z ^ (z >> 31);
        }
    }

    std::uint64_t next() {
        const std::uint64_t result = rotate_left(state_[1] * 5, 7) * 9;
        const std::uint64_t t = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= t;
        state_[3] = rotate_left(state_[3], 45);
        return result;
    }

    // uniform in [0, bound); bound > 0. The bias of the multiply-shift is below 2^-32 for the small bounds
    // used here.
    std::uint64_t below(std::uint64_t bound) {
        INVARIANT(bound > 0, "an empty range has no element");
        return static_cast<std::uint64_t>((static_cast<Wide>(next()) * bound) >> 64);
    }
    // uniform in [low, high], both included
    std::int64_t between(std::int64_t low, std::int64_t high) {
        return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low) + 1));
    }
    // true with probability numerator / denominator
    bool chance(std::uint64_t numerator, std::uint64_t denominator) { return below(denominator) < numerator; }
    // an independent sequence, so that one consumer's draws do not shift another's
    Prng fork() { return Prng(next()); }

  private:
    static constexpr std::uint64_t rotate_left(std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
    std::array<std::uint64_t, 4> state_{};
};

}  // namespace gemel
