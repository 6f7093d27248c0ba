#include "adapters/system/boot_clock.hpp"

#include <cstdint>
#include <ctime>

namespace gemel {

Instant boot_now() {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return Instant{std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec};
}

}  // namespace gemel
