#include "core/vhost/guest_memory.hpp"

#include <algorithm>
#include <limits>

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
    return true;
}

std::span<std::byte> GuestMemory::part(std::uint64_t guest_address, std::uint64_t length) const {
    for (const Mapped& one : std::span(mapped_).first(count_)) {
        const MemoryRegion& region = one.region;
        if (!inside(guest_address, region.guest_address, region.size_bytes)) continue;
        const std::uint64_t at = guest_address - region.guest_address;
        return {one.base + at, std::min(length, region.size_bytes - at)};
    }
    return {};
}

GuestMemory::Found GuestMemory::at_user_address(std::uint64_t user_address, std::uint64_t length) const {
    for (const Mapped& one : std::span(mapped_).first(count_)) {
        const MemoryRegion& region = one.region;
        if (!inside(user_address, region.user_address, region.size_bytes)) continue;
        const std::uint64_t at = user_address - region.user_address;
        if (region.size_bytes - at < length) return {};
        return {one.base + at, region.guest_address + at};
    }
    return {};
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
