// GuestMemory: the guest's memory as the front end (QEMU) shared it, and the log of pages that were written
// in it while the guest migrates. Addresses come from a guest that is not trusted: every one is looked up,
// and what lies outside the regions does not exist. Not in it: mapping and unmapping, who keeps the mapping
// alive. Source of the terms: the vhost-user protocol's text, "Memory regions description" and "Migration".
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace gemel::vhost {

inline constexpr std::size_t kMaxRegions = 64;
inline constexpr std::uint64_t kLogPageBytes = 4096;

struct MemoryRegion {
    std::uint64_t guest_address = 0;  // what descriptors hold
    std::uint64_t size_bytes = 0;
    std::uint64_t user_address = 0;  // what the front end's messages about rings hold
    std::uint64_t map_offset = 0;    // of the shared descriptor

    bool operator==(const MemoryRegion&) const = default;
};

class GuestMemory {
  public:
    // base: where the region's first byte is mapped. false: too many, empty, wrapping or overlapping.
    bool add(const MemoryRegion& region, std::byte* base);
    // as the front end names it: guest address, user address and size. false: there is none
    bool remove(const MemoryRegion& region);
    void clear() { count_ = 0; }
    std::size_t regions() const { return count_; }

    // The part of [guest_address, guest_address + length) that lies in one region, from its start on; empty
    // when its first byte is nowhere.
    std::span<std::byte> part(std::uint64_t guest_address, std::uint64_t length) const;
    struct Found {
        std::byte* memory = nullptr;  // nullptr unless all of it lies in one region
        std::uint64_t guest_address = 0;
    };
    Found at_user_address(std::uint64_t user_address, std::uint64_t length) const;

  private:
    struct Mapped {
        MemoryRegion region;
        std::byte* base = nullptr;
    };

    std::array<Mapped, kMaxRegions> mapped_{};
    std::size_t count_ = 0;
};

// One bit a page of guest-physical memory; the front end reads and clears it while we write.
class DirtyLog {
  public:
    DirtyLog() = default;
    explicit DirtyLog(std::span<std::byte> bits) : bits_(bits) {}
    bool present() const { return !bits_.empty(); }
    // what lies outside the log is not marked: the front end sized it for all it will copy
    void mark(std::uint64_t address, std::uint64_t length) const;

  private:
    std::span<std::byte> bits_;
};

}  // namespace gemel::vhost
