// Instant and Duration: time as an argument. Nanoseconds on CLOCK_BOOTTIME (daemons) or virtual time
// (simulator); never wall-clock (promise C7). There is no now() here: only adapters and the simulator know
// the time.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace gemel {

struct Duration {
    std::int64_t nanoseconds = 0;

    constexpr auto operator<=>(const Duration&) const = default;
    constexpr Duration operator+(Duration other) const { return {nanoseconds + other.nanoseconds}; }
    constexpr Duration operator-(Duration other) const { return {nanoseconds - other.nanoseconds}; }
    constexpr Duration operator*(std::int64_t factor) const { return {nanoseconds * factor}; }
    constexpr Duration operator/(std::int64_t divisor) const { return {nanoseconds / divisor}; }
    constexpr std::int64_t milliseconds() const { return nanoseconds / 1'000'000; }
    constexpr double seconds() const { return static_cast<double>(nanoseconds) / 1e9; }
};

constexpr Duration nanoseconds(std::int64_t n) {
    return {n};
}
constexpr Duration microseconds(std::int64_t n) {
    return {n * 1'000};
}
constexpr Duration milliseconds(std::int64_t n) {
    return {n * 1'000'000};
}
constexpr Duration seconds(std::int64_t n) {
    return {n * 1'000'000'000};
}

struct Instant {
    std::int64_t nanoseconds_since_boot = 0;

    constexpr auto operator<=>(const Instant&) const = default;
    constexpr Instant operator+(Duration d) const { return {nanoseconds_since_boot + d.nanoseconds}; }
    constexpr Instant operator-(Duration d) const { return {nanoseconds_since_boot - d.nanoseconds}; }
    constexpr Duration operator-(Instant other) const {
        return {nanoseconds_since_boot - other.nanoseconds_since_boot};
    }
    // "no deadline": later than every instant a machine can live to see
    static constexpr Instant never() { return {std::numeric_limits<std::int64_t>::max()}; }
};

}  // namespace gemel
