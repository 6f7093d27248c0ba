#include "core/vhost/guest_memory.hpp"

#include <algorithm>
#include <limits>

#include "base/invariant.hpp"

namespace gemel::vhost {

namespace {

bool inside(std::uint64_t address, std::uint64_t first, std::uint64_t size) {
    return address >= first && address - first < size;
}

bool overlap(std::uint64_t a, std::uint64_t a_size, std::uint64_t b, std::uint64_t b_size) {
    return inside(a, b, b_size) || inside(b, a, a_size);
}

bool wraps(std::uint64_t first, std::uint64_t size) {
    return size == 0 || first > std::numeric_limits<std::uint64_t>::max() - (size - 1);
}

}  // namespace

bool GuestMemory::add(const MemoryRegion& region, std::byte* base) {
    if (count_ == kMaxRegions || base == nullptr) return false;
    if (wraps(region.guest_address, region.size_bytes) || wraps(region.user_address, region.size_bytes) ||
        wraps(region.map_offset, region.size_bytes)) {
        return false;
    }
    for (const Mapped& one : std::span(mapped_).first(count_)) {
        const MemoryRegion& other = one.region;
        if (overlap(region.guest_address, region.size_bytes, other.guest_address, other.size_bytes) ||
            overlap(region.user_address, region.size_bytes, other.user_address, other.size_bytes)) {
            return false;
        }
    }
    mapped_[count_++] = {region, base};
    return true;
}

bool GuestMemory::remove(const MemoryRegion& region) {
    const auto all = std::span(mapped_).first(count_);
    const auto found = std::ranges::find_if(all, [&](const Mapped& one) {
        return one.region.guest_address == region.guest_address &&
               one.region.user_address == region.user_address && one.region.size_bytes == region.size_bytes;
    });
    if (found == all.end()) return false;
    *found = all.back();
    --count_;
    last_ = 0;
    return true;
}

std::span<std::byte> GuestMemory::part(std::uint64_t guest_address, std::uint64_t length) const {
    for (std::size_t i = 0; i < count_; ++i) {
        const std::size_t index = i == 0 ? last_ : (i <= last_ ? i - 1 : i);
        const MemoryRegion& region = mapped_[index].region;
        if (!inside(guest_address, region.guest_address, region.size_bytes)) continue;
        last_ = index;
        const std::uint64_t at = guest_address - region.guest_address;
        return {mapped_[index].base + at, std::min(length, region.size_bytes - at)};
    }
    return {};
}

std::byte* GuestMemory::at_user_address(std::uint64_t user_address, std::uint64_t length) const {
    for (const Mapped& one : std::span(mapped_).first(count_)) {
        const MemoryRegion& region = one.region;
        if (!inside(user_address, region.user_address, region.size_bytes)) continue;
        const std::uint64_t at = user_address - region.user_address;
        return region.size_bytes - at >= length ? one.base + at : nullptr;
    }
    return nullptr;
}

std::uint64_t GuestMemory::guest_address_of(std::uint64_t user_address) const {
    for (const Mapped& one : std::span(mapped_).first(count_)) {
        if (inside(user_address, one.region.user_address, one.region.size_bytes)) {
            return one.region.guest_address + (user_address - one.region.user_address);
        }
    }
    INVARIANT(false, "the address was found before");
    return 0;
}

bool DirtyLog::covers(std::uint64_t address, std::uint64_t length) const {
    if (wraps(address, length)) return false;
    return (address + length - 1) / kLogPageBytes / 8 < bits_.size();
}

void DirtyLog::mark(std::uint64_t address, std::uint64_t length) const {
    if (bits_.empty() || wraps(address, length)) return;
    const std::uint64_t last = (address + length - 1) / kLogPageBytes;
    for (std::uint64_t page = address / kLogPageBytes; page <= last && page / 8 < bits_.size(); ++page) {
        auto& byte = reinterpret_cast<unsigned char&>(bits_[page / 8]);
        std::atomic_ref(byte).fetch_or(static_cast<unsigned char>(1U << (page % 8)),
                                       std::memory_order_seq_cst);
    }
}

}  // namespace gemel::vhost
