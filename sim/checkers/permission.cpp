#include "sim/checkers/permission.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace gemel::sim {

std::string PermissionChecker::acknowledged(std::uint32_t node, std::uint64_t epoch, bool committed_owner,
                                            std::uint32_t ack_mask) {
    if (epoch < newest_epoch_) {
        return fmt::format("node{} answered a request of epoch {} after epoch {} had been served", node + 1,
                           epoch, newest_epoch_);
    }
    newest_epoch_ = std::max(newest_epoch_, epoch);
    if (!committed_owner) {
        return fmt::format("node{} answered a request of epoch {} without being the committed owner",
                           node + 1, epoch);
    }
    if (ack_mask == 0) return fmt::format("node{} answered a request with an empty ack set", node + 1);
    return {};
}

}  // namespace gemel::sim
