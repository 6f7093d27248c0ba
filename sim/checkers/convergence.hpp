// ConvergenceChecker: after everything is healed the cluster is whole again (promise C12): the guest runs and
// is served, both replicas are in the ack set, UpToDate and Connected, nothing is dirty, frozen or in flight.
// Looks at the committed record and at what each engine shows of itself. Not in it: how long that may take.
#pragma once

#include <array>
#include <string_view>

#include "core/formats/volume_record.hpp"
#include "core/replication/interface.hpp"

namespace gemel::sim {

class ConvergenceChecker {
  public:
    // empty when it is whole; otherwise the first thing that is missing
    static std::string_view missing(const VolumeRecord& record,
                                    const std::array<replication::View, 2>& engines, bool guest_runs,
                                    bool control_settled);
    // no request is left in an engine whose guest asks for nothing
    static std::string_view left_over(const std::array<replication::View, 2>& engines);
};

}  // namespace gemel::sim
