// Host: power, pause, incarnation and clock of one server. What runs on it belongs to the world.
#pragma once

#include <cstdint>

#include "base/ids.hpp"
#include "sim/world/clock.hpp"

namespace gemel::sim {

struct Host {
    bool powered = false;
    bool paused = false;
    bool booting = false;
    std::uint64_t boots = 0;
    Incarnation incarnation;
    NodeClock clock;
    Instant powered_off_at{0};
    Instant paused_at{0};
    bool up() const { return powered && !booting && !paused; }
};

}  // namespace gemel::sim
