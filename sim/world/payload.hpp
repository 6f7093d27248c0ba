// PayloadPool: guest data in compact form. A sector of 512 bytes is one 64-bit stamp: the number of the guest
// write that made it, 0 for zeroes. A buffer is named by a handle with a life: what still uses a handle after
// its owner let it go reads kPoison, which no checker accepts (promise D11, scenario K7).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/invariant.hpp"

namespace gemel::sim {

using Stamp = std::uint64_t;
inline constexpr Stamp kZeroes = 0;
inline constexpr Stamp kPoison = 0xdeaddeaddeaddeadULL;
inline constexpr std::uint32_t kSectorBytes = 512;
inline constexpr std::uint32_t kBlockBytes = 4096;
inline constexpr std::uint32_t kSectorsPerBlock = kBlockBytes / kSectorBytes;

// A handle at one moment: finds out later whether the buffer was let go since.
struct PayloadRef {
    std::uint32_t handle = 0xffffffffU;
    std::uint32_t life = 0;
};

class PayloadPool {
  public:
    // a buffer of that many sectors, filled with poison
    std::uint32_t take(std::size_t sectors) {
        std::uint32_t handle = 0;
        if (free_.empty()) {
            handle = static_cast<std::uint32_t>(slots_.size());
            slots_.emplace_back();
        } else {
            handle = free_.back();
            free_.pop_back();
        }
        Slot& slot = slots_[handle];
        slot.stamps.assign(sectors, kPoison);
        slot.taken = true;
        return handle;
    }
    void release(std::uint32_t handle) {
        Slot& slot = slots_.at(handle);
        INVARIANT(slot.taken, "a payload is let go once");
        slot.taken = false;
        ++slot.life;
        free_.push_back(handle);
    }
    bool taken(std::uint32_t handle) const { return handle < slots_.size() && slots_[handle].taken; }
    std::span<Stamp> stamps(std::uint32_t handle) { return slots_.at(handle).stamps; }
    PayloadRef ref(std::uint32_t handle) const { return {handle, slots_.at(handle).life}; }
    bool alive(PayloadRef ref) const { return slots_.at(ref.handle).life == ref.life; }
    std::size_t in_use() const { return slots_.size() - free_.size(); }

  private:
    struct Slot {
        std::vector<Stamp> stamps;
        std::uint32_t life = 0;
        bool taken = false;
    };
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_;
};

}  // namespace gemel::sim
