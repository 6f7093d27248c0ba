// The clock of every decision that depends on time (promise C7): CLOCK_BOOTTIME, which goes on while the host
// sleeps and is never set. Any thread.
#pragma once

#include "base/instant.hpp"

namespace gemel {

Instant boot_now();

}  // namespace gemel
