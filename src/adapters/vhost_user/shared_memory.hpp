// SharedMemory: the mappings of one vhost-user connection: the guest's memory, the log of dirty pages, the
// in-flight records. Everything mapped has to be a memfd sealed against shrinking (QEMU's are, libvirt's
// memfd memory too): memory that its owner cuts short would end this daemon with SIGBUS. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "core/vhost/guest_memory.hpp"

namespace gemel::vhost_user {

// One mmap, undone with the last pointer to it.
class Mapping {
  public:
    // [offset, offset + bytes) of a sealed memfd; fd stays the caller's
    static Result<std::shared_ptr<Mapping>> map(int fd, std::uint64_t offset, std::uint64_t bytes);
    ~Mapping();
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    std::span<std::byte> bytes() const { return bytes_; }

  private:
    Mapping(void* base, std::size_t mapped, std::span<std::byte> bytes)
        : base_(base), mapped_(mapped), bytes_(bytes) {}

    void* base_;
    std::size_t mapped_;
    std::span<std::byte> bytes_;
};

class SharedMemory {
  public:
    Status replace(std::span<const vhost::MemoryRegion> regions, std::span<const int> fds);
    Status add(const vhost::MemoryRegion& region, int fd);
    Status remove(const vhost::MemoryRegion& region);
    Status map_log(int fd, std::uint64_t offset, std::uint64_t bytes);
    Status map_in_flight(int fd, std::uint64_t offset, std::uint64_t bytes);
    // Makes memory for them and maps it. Returns its descriptor, the caller's.
    Result<int> make_in_flight(std::uint64_t bytes);
    // writes to the guest are marked, or not any more
    void log(bool on);

    // both stay where they are
    const vhost::GuestMemory& guest() const { return guest_; }
    const vhost::DirtyLog& dirty_log() const { return dirty_log_; }
    std::span<std::byte> in_flight() const {
        return in_flight_ ? in_flight_->bytes() : std::span<std::byte>();
    }

    // Keeps what is mapped now: addresses found in guest() are good as long as the pointer lives.
    using Hold = std::shared_ptr<const void>;
    Hold hold() const { return mapped_; }

  private:
    struct Mapped {
        vhost::MemoryRegion region;
        std::shared_ptr<Mapping> mapping;
    };
    using MappedRegions = std::vector<Mapped>;
    Status use(MappedRegions regions);

    vhost::GuestMemory guest_;
    vhost::DirtyLog dirty_log_;
    std::shared_ptr<const MappedRegions> mapped_ = std::make_shared<MappedRegions>();
    std::shared_ptr<Mapping> log_;
    std::shared_ptr<Mapping> in_flight_;
};

}  // namespace gemel::vhost_user
