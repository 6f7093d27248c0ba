#include "adapters/vhost_user/shared_memory.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

namespace gemel::vhost_user {

Result<std::shared_ptr<Mapping>> Mapping::map(int fd, std::uint64_t offset, std::uint64_t bytes) {
    const int seals = ::fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
        return fail(ErrorCode::invalid_argument,
                    "shared memory is not a memfd sealed against shrinking: expected <memoryBacking> with "
                    "<source type='memfd'/> and <access mode='shared'/>");
    }
    struct stat found {};
    if (::fstat(fd, &found) != 0) {
        return fail(ErrorCode::io_error, fmt::format("shared memory: {}", std::strerror(errno)));
    }
    const auto size = static_cast<std::uint64_t>(found.st_size);
    if (bytes == 0 || offset > size || bytes > size - offset) {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("shared memory of {} bytes does not hold {} from {} on", size, bytes, offset));
    }
    // huge pages are mapped as wholes
    const auto page = static_cast<std::uint64_t>(found.st_blksize);
    const std::uint64_t before = offset % page;
    const std::uint64_t mapped = (before + bytes + page - 1) / page * page;
    void* base = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                        static_cast<off_t>(offset - before));
    if (base == MAP_FAILED) {
        return fail(ErrorCode::io_error, fmt::format("cannot map shared memory: {}", std::strerror(errno)));
    }
    // in a core dump only the guest's secrets would be of use to anybody
    ::madvise(base, mapped, MADV_DONTDUMP);
    return std::shared_ptr<Mapping>(
        new Mapping(base, mapped, {static_cast<std::byte*>(base) + before, static_cast<std::size_t>(bytes)}));
}

Mapping::~Mapping() {
    ::munmap(base_, mapped_);
}

Status SharedMemory::use(MappedRegions regions) {
    vhost::GuestMemory guest;
    for (const Mapped& one : regions) {
        if (!guest.add(one.region, one.mapping->bytes().data())) {
            return fail(ErrorCode::invalid_argument, "regions of memory wrap, overlap or are too many");
        }
    }
    guest_ = guest;
    mapped_ = std::make_shared<MappedRegions>(std::move(regions));
    return {};
}

Status SharedMemory::replace(std::span<const vhost::MemoryRegion> regions, std::span<const int> fds) {
    MappedRegions all;
    for (std::size_t i = 0; i < regions.size(); ++i) {
        auto mapping = Mapping::map(fds[i], regions[i].map_offset, regions[i].size_bytes);
        if (!mapping) return tl::unexpected<Error>(mapping.error());
        all.push_back({regions[i], std::move(*mapping)});
    }
    return use(std::move(all));
}

Status SharedMemory::add(const vhost::MemoryRegion& region, int fd) {
    auto mapping = Mapping::map(fd, region.map_offset, region.size_bytes);
    if (!mapping) return tl::unexpected<Error>(mapping.error());
    MappedRegions all = *mapped_;
    all.push_back({region, std::move(*mapping)});
    return use(std::move(all));
}

Status SharedMemory::remove(const vhost::MemoryRegion& region) {
    vhost::GuestMemory guest = guest_;
    if (!guest.remove(region)) return fail(ErrorCode::not_found, "there is no such region of memory");
    MappedRegions all = *mapped_;
    std::erase_if(all, [&](const Mapped& one) {
        return one.region.guest_address == region.guest_address;  // regions do not overlap
    });
    return use(std::move(all));
}

Status SharedMemory::map_log(int fd, std::uint64_t offset, std::uint64_t bytes) {
    auto mapping = Mapping::map(fd, offset, bytes);
    if (!mapping) return tl::unexpected<Error>(mapping.error());
    const bool on = dirty_log_.present();
    dirty_log_ = {};
    log_ = std::move(*mapping);
    log(on);
    return {};
}

void SharedMemory::log(bool on) {
    dirty_log_ = on && log_ ? vhost::DirtyLog(log_->bytes()) : vhost::DirtyLog();
}

Status SharedMemory::map_in_flight(int fd, std::uint64_t offset, std::uint64_t bytes) {
    auto mapping = Mapping::map(fd, offset, bytes);
    if (!mapping) return tl::unexpected<Error>(mapping.error());
    in_flight_ = std::move(*mapping);
    return {};
}

Result<int> SharedMemory::make_in_flight(std::uint64_t bytes) {
    const int fd = ::memfd_create("gemel-in-flight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const bool made = fd >= 0 && ::ftruncate(fd, static_cast<off_t>(bytes)) == 0 &&
                      ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0;
    Status mapped = made ? map_in_flight(fd, 0, bytes)
                         : fail(ErrorCode::io_error,
                                fmt::format("no memory for in-flight records: {}", std::strerror(errno)));
    if (mapped) return fd;
    if (fd >= 0) ::close(fd);
    return tl::unexpected<Error>(mapped.error());
}

}  // namespace gemel::vhost_user
