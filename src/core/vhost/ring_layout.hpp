// The bytes of virtqueues and in-flight records, and reading them while the other side writes. Private to
// core/vhost. All fields are little-endian, as is every machine this runs on.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace gemel::vhost {

static_assert(std::endian::native == std::endian::little, "virtqueues are read in place");

inline constexpr std::uint16_t kNext = 1;
inline constexpr std::uint16_t kWrite = 2;
inline constexpr std::uint16_t kIndirect = 4;
inline constexpr std::uint16_t kPackedAvailable = 1U << 7;
inline constexpr std::uint16_t kPackedUsed = 1U << 15;
inline constexpr std::uint16_t kNoInterrupt = 1;  // split, available.flags
inline constexpr std::uint16_t kNoNotify = 1;     // split, used.flags

struct Descriptor {  // split: tables and rings; packed: the last two fields are id and flags
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags;
    std::uint16_t next;
};
struct PackedDescriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t id;
    std::uint16_t flags;
};
struct UsedElement {
    std::uint32_t id;
    std::uint32_t written;
};
static_assert(sizeof(Descriptor) == 16 && sizeof(PackedDescriptor) == 16 && sizeof(UsedElement) == 8);

struct SplitRecord {
    std::uint8_t in_flight;
    std::uint8_t padding[5];
    std::uint16_t next;
    std::uint64_t counter;
};
struct SplitRecords {  // followed by one SplitRecord for each entry of the ring
    std::uint64_t features;
    std::uint16_t version;
    std::uint16_t size;
    std::uint16_t last_batch_head;
    std::uint16_t used_index;
};
static_assert(sizeof(SplitRecord) == 16 && sizeof(SplitRecords) == 16);

struct PackedRecord {
    std::uint8_t in_flight;
    std::uint8_t padding;
    std::uint16_t next;
    std::uint16_t last;
    std::uint16_t count;
    std::uint64_t counter;
    std::uint16_t id;
    std::uint16_t flags;
    std::uint32_t length;
    std::uint64_t address;
};
struct PackedRecords {  // followed by one PackedRecord for each entry of the ring
    std::uint64_t features;
    std::uint16_t version;
    std::uint16_t size;
    std::uint16_t free_head;
    std::uint16_t old_free_head;
    std::uint16_t used_index;
    std::uint16_t old_used_index;
    std::uint8_t used_wrap;
    std::uint8_t old_used_wrap;
    std::uint8_t padding[10];
};
static_assert(sizeof(PackedRecord) == 32 && sizeof(PackedRecords) == 32);

inline constexpr std::uint16_t kRecordsVersion = 1;

// A copy of something that the guest may change at any moment.
template <typename T>
T copy_out(const std::byte* from) {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, from, sizeof value);
    // what was copied is not read from there again
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return value;
}

template <typename T>
T copy_of(const T& shared) {
    return copy_out<T>(reinterpret_cast<const std::byte*>(&shared));
}

inline std::uint16_t load_acquire(std::byte* at) {
    return std::atomic_ref(*reinterpret_cast<std::uint16_t*>(at)).load(std::memory_order_acquire);
}
inline void store_release(std::byte* at, std::uint16_t value) {
    std::atomic_ref(*reinterpret_cast<std::uint16_t*>(at)).store(value, std::memory_order_release);
}
// The records outlive a SIGKILL of this process at any instruction: stores must not pass each other. On x86
// they do not, and this holds the compiler only; elsewhere it is an instruction.
inline void records_edge() {
    std::atomic_thread_fence(std::memory_order_acq_rel);
}

inline bool aligned(const std::byte* at, std::uintptr_t to) {
    return reinterpret_cast<std::uintptr_t>(at) % to == 0;
}

}  // namespace gemel::vhost
