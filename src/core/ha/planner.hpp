// The HA planner: committed tables and facts -> what should happen now. Pure, level-triggered and idempotent:
// called again with the same world it says the same, and says nothing about what is already on its way in the
// tables.
#pragma once

#include "core/cluster/planner_port.hpp"

namespace gemel::ha {

cluster::Plan plan(const cluster::PlanInput& input);

}  // namespace gemel::ha
