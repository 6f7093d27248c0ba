#include "core/vhost/ring.hpp"

#include <algorithm>

#include "base/invariant.hpp"
#include "core/vhost/ring_layout.hpp"

namespace gemel::vhost {

std::unique_ptr<Ring> Ring::open(bool packed, const RingSetup& setup, const GuestMemory& memory,
                                 const DirtyLog& log) {
    if (setup.size == 0 || setup.size > kMaxQueueSize) return nullptr;
    if (!setup.in_flight.empty() && (setup.in_flight.size() < in_flight_bytes(packed, setup.size) ||
                                     !aligned(setup.in_flight.data(), 8))) {
        return nullptr;
    }
    auto ring = packed ? make_packed(setup, memory, log) : make_split(setup, memory, log);
    if (!ring->remap() || !ring->begin()) return nullptr;
    std::ranges::sort(ring->again_, {}, &Again::counter);
    return ring;
}

Taken Ring::take(Chain& chain) {
    INVARIANT(all_published(), "what was put is published before more is taken");
    chain.clear();
    if (broken()) return Taken::broken;
    return again_next_ < again_.size() ? take_again(chain, again_[again_next_++]) : take_new(chain);
}

bool Ring::hold_again(const Again& one) {
    if (held_[one.id]) return false;
    hold(one.id);
    again_.push_back(one);
    counter_ = std::max(counter_, one.counter + 1);
    return true;
}

bool Ring::append(Chain& chain, std::uint64_t address, std::uint32_t length, bool device_writes) {
    if (!device_writes && !chain.pieces.empty() && chain.pieces.back().device_writes) {
        breaks("a buffer to be read follows one to be written");
        return false;
    }
    if (length == 0) {
        breaks("a descriptor of no bytes");
        return false;
    }
    while (length > 0) {
        const auto part = memory_.part(address, length);
        if (part.empty()) {
            breaks("a descriptor points outside the guest's memory");
            return false;
        }
        if (chain.pieces.size() == kMaxPieces) {
            breaks("a chain has too many descriptors");
            return false;
        }
        const auto bytes = static_cast<std::uint32_t>(part.size());
        chain.pieces.push_back({part.data(), address, bytes, device_writes});
        address += bytes;
        length -= bytes;
    }
    return true;
}

bool Ring::append_table(Chain& chain, std::uint64_t address, std::uint32_t length, bool chained) {
    constexpr std::uint32_t kEach = sizeof(Descriptor);
    const std::uint32_t count = length / kEach;
    if (!setup_.indirect || length % kEach != 0 || count == 0 || count > kMaxPieces) {
        breaks("an indirect table of that size or without having been agreed on");
        return false;
    }
    std::uint32_t index = 0;
    for (std::uint32_t seen = 0; seen < count; ++seen) {
        const std::uint64_t at = address + std::uint64_t{index} * kEach;
        const auto entry = memory_.part(at, kEach);
        if (entry.size() != kEach) {
            breaks("an indirect table lies outside the guest's memory");
            return false;
        }
        // both kinds have the same first fields; flags and next or id change places
        const auto found = copy_out<Descriptor>(entry.data());
        const std::uint16_t flags = chained ? found.flags : found.next;
        if ((flags & kIndirect) != 0) {
            breaks("an indirect table inside an indirect table");
            return false;
        }
        if (!append(chain, found.address, found.length, (flags & kWrite) != 0)) return false;
        if (!chained) {
            ++index;
            continue;
        }
        if ((flags & kNext) == 0) return true;
        index = found.next;
        if (index >= count) {
            breaks("an indirect table's next entry lies behind its end");
            return false;
        }
    }
    if (chained) breaks("an indirect table's entries form a loop");
    return !chained;
}

std::size_t in_flight_bytes(bool packed, std::uint16_t size) {
    const std::size_t bytes = packed ? sizeof(PackedRecords) + size * sizeof(PackedRecord)
                                     : sizeof(SplitRecords) + size * sizeof(SplitRecord);
    return (bytes + 63) / 64 * 64;
}

}  // namespace gemel::vhost
