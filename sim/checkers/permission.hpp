// PermissionChecker: nobody is told anything without the right to tell it (promises D2, D13, C2). Every
// acknowledgement of a request is compared with what is committed at that instant: the node owns the volume
// in this boot and with this epoch, and no newer epoch was ever served.
#pragma once

#include <cstdint>
#include <string>

namespace gemel::sim {

class PermissionChecker {
  public:
    // empty when the acknowledgement was allowed; otherwise what is wrong
    std::string acknowledged(std::uint32_t node, std::uint64_t epoch, bool committed_owner,
                             std::uint32_t ack_mask);
    std::uint64_t newest_epoch() const { return newest_epoch_; }

  private:
    std::uint64_t newest_epoch_ = 0;
};

}  // namespace gemel::sim
