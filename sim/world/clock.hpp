// NodeClock: one host's CLOCK_BOOTTIME. It begins at power-on, goes on while the host is paused, and drifts
// by up to half a per cent, so that two hosts differ by up to one (promise C2 allows for 1.01). Wall-clock
// does not exist here: core has no input for it (promise C7).
#pragma once

#include <cstdint>

#include "base/instant.hpp"
#include "base/prng.hpp"

namespace gemel::sim {

class NodeClock {
  public:
    // drift in parts per million; `shown` is what the clock shows at power-on
    void power_on(Instant real, Duration shown, std::int64_t drift_ppm) {
        real_start_ = real;
        shown_ = shown;
        drift_ppm_ = drift_ppm;
    }
    Instant local(Instant real) const {
        const Duration elapsed = real - real_start_;
        // one division: rounding it in pieces would let the clock step back
        const auto skew =
            static_cast<std::int64_t>(static_cast<SignedWide>(elapsed.nanoseconds) * drift_ppm_ / kMillion);
        return Instant{shown_.nanoseconds} + elapsed + Duration{skew};
    }
    // the real instant at which the clock has certainly reached `local`
    Instant real(Instant local_time) const {
        if (local_time == Instant::never()) return local_time;
        const Duration elapsed = local_time - Instant{shown_.nanoseconds};
        if (elapsed.nanoseconds <= 0) return real_start_;
        const Wide scaled = static_cast<Wide>(elapsed.nanoseconds) * kMillion;
        const auto whole = static_cast<std::int64_t>(scaled / static_cast<Wide>(kMillion + drift_ppm_));
        return real_start_ + Duration{whole + kMillion / 500};
    }

  private:
    __extension__ using SignedWide = __int128;
    static constexpr std::int64_t kMillion = 1'000'000;
    Instant real_start_{0};
    Duration shown_{0};
    std::int64_t drift_ppm_ = 0;
};

}  // namespace gemel::sim
