#include "sim/checkers/single_guest.hpp"

#include <fmt/format.h>

namespace gemel::sim {

std::string SingleGuestChecker::runs(bool here, bool there) {
    return here && there ? "the vCPUs of the guest run on both nodes" : "";
}

std::string SingleGuestChecker::runs_for_long(Duration twice) {
    if (twice <= kTwice) return {};
    return fmt::format("the vCPUs of the guest have run on both nodes for {:.1f} s", twice.seconds());
}

std::string SingleGuestChecker::starts(std::uint32_t node, bool other_runs) {
    if (!other_runs) return {};
    return fmt::format("the guest is started on node{} while it runs on node{}", node + 1, 2 - node);
}

std::string SingleGuestChecker::right(const Running& running) {
    if (running.local <= running.lease_until + kStated || running.now - running.resumed_at < kStated)
        return {};
    return fmt::format("the guest runs on node{} without a lease", running.node + 1);
}

}  // namespace gemel::sim
