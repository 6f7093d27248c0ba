#include "daemons/blockd/image.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "adapters/disk/image_file.hpp"
#include "adapters/system/owned_fd.hpp"
#include "core/formats/layout.hpp"

namespace gemel::blockd {
namespace {

tl::unexpected<Error> system_error(const char* what, const std::string& path) {
    const auto code = errno == ENOENT   ? ErrorCode::not_found
                      : errno == EEXIST ? ErrorCode::already_exists
                      : errno == ENOSPC ? ErrorCode::out_of_space
                                        : ErrorCode::io_error;
    return fail(code, fmt::format("cannot {} {}: {}", what, path, std::strerror(errno)));
}

bool is_block_device(const std::string& path) {
    struct stat info {};
    return ::stat(path.c_str(), &info) == 0 && S_ISBLK(info.st_mode);
}

bool read_page(int fd, std::uint64_t offset, formats::PageBytes page) {
    return ::pread(fd, page.data(), page.size(), static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(page.size());
}

// The first MiB holds superblocks and intent log: all zero means that nobody keeps anything there.
Result<bool> begins_empty(const std::string& path) {
    const OwnedFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return system_error("open", path);
    std::array<char, 65536> bytes{};
    for (std::uint64_t at = 0; at < formats::kBitmapOffset; at += bytes.size()) {
        const auto got = ::pread(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
        if (got < 0) return system_error("read", path);
        for (ssize_t i = 0; i < got; ++i) {
            if (bytes[static_cast<std::size_t>(i)] != 0) return false;
        }
        if (got == 0) break;
    }
    return true;
}

Status write_metadata(const std::string& path, const formats::FormatRequest& request) {
    const OwnedFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (file.get() < 0) return system_error("open", path);
    bool written = true;
    formats::format_replica(request, [&](std::uint64_t offset, std::span<const std::byte> page) {
        written = written && ::pwrite(file.get(), page.data(), page.size(), static_cast<off_t>(offset)) ==
                                 static_cast<ssize_t>(page.size());
    });
    if (!written || ::fsync(file.get()) != 0) return system_error("write metadata to", path);
    return {};
}

// The kernel hands it to the device where that can zero by itself, and writes otherwise (then it takes as
// long as writing the whole volume once).
Status zero_device(const std::string& path, std::uint64_t offset, std::uint64_t length) {
    const OwnedFd device(::open(path.c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
    if (device.get() < 0) return system_error("open exclusively", path);
    std::uint64_t range[2] = {offset, length};
    if (::ioctl(device.get(), BLKZEROOUT, range) != 0) return system_error("write zeroes to", path);
    return {};
}

Status sync_parent(const std::string& path) {
    const auto slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const OwnedFd parent(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (parent.get() < 0 || ::fsync(parent.get()) != 0) return system_error("sync", directory);
    return {};
}

Status check_existing(const std::string& path, const formats::FormatRequest& request, bool& done) {
    const auto found = read_superblock(path);
    if (found) {
        const auto& superblock = found->superblock;
        done = superblock.replica == request.replica && superblock.volume == request.volume &&
               superblock.size_bytes == request.size_bytes;
        if (done) return {};
        return fail(ErrorCode::already_exists,
                    fmt::format("{} holds replica {} of volume {}: remove or rename it first", path,
                                superblock.replica.to_string(), superblock.volume.to_string()));
    }
    if (found.error().code == ErrorCode::not_found) return {};
    const auto empty = begins_empty(path);
    if (!empty) return tl::unexpected<Error>(empty.error());
    if (*empty && is_block_device(path)) return {};
    return fail(
        ErrorCode::already_exists,
        fmt::format("{} is not empty and holds no replica of Gemel: move it away or name another file",
                    path));
}

Status check_ours(const std::string& path, const VolumeId& volume) {
    auto opened = disk::open_exclusively(path);
    if (!opened) return tl::unexpected<Error>(opened.error());
    if (!*opened) return fail(ErrorCode::failed_precondition, path + " is in use: detach the volume first");
    disk::close_file(**opened);
    const auto found = read_superblock(path);
    if (!found) return tl::unexpected<Error>(found.error());
    if (found->superblock.volume == volume) return {};
    return fail(ErrorCode::invalid_argument,
                fmt::format("{} holds a replica of another volume ({}): name the right file", path,
                            found->superblock.volume.to_string()));
}

}  // namespace

Result<formats::ChosenSuperblock> read_superblock(const std::string& path) {
    const OwnedFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return system_error("open", path);
    std::array<std::byte, formats::kPageBytes> slot_a{};
    std::array<std::byte, formats::kPageBytes> slot_b{};
    if (!read_page(file.get(), formats::kSuperblockA, slot_a) ||
        !read_page(file.get(), formats::kSuperblockB, slot_b)) {
        return fail(ErrorCode::corrupt, path + " is too short for a replica of Gemel");
    }
    auto chosen = formats::choose_superblock(slot_a, slot_b);
    if (!chosen) {
        return fail(chosen.error().code, fmt::format("{}: {}", path, chosen.error().message));
    }
    return chosen;
}

Status make_replica(const std::string& path, const formats::FormatRequest& request) {
    if (!formats::Layout::valid_size(request.size_bytes)) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} bytes is no volume size: a multiple of 4096 up to 64 TiB is expected",
                                request.size_bytes));
    }
    bool done = false;
    if (auto checked = check_existing(path, request, done); !checked || done) return checked;
    const auto layout = formats::Layout::for_size(request.size_bytes);
    if (is_block_device(path)) {
        if (auto fits = disk::make_backing(path, layout.backing_bytes(), false); !fits) return fits;
        // both replicas of a first generation must hold the same, and a device holds whatever was there
        // before
        if (!request.generation.is_blank()) {
            if (auto zeroed = zero_device(path, layout.data_offset, request.size_bytes); !zeroed)
                return zeroed;
        }
        return write_metadata(path, request);
    }
    const std::string fresh = path + ".new";
    ::unlink(fresh.c_str());
    // thin: a sparse file reads as zeroes, which is what both replicas of a first generation must hold
    if (auto made = disk::make_backing(fresh, layout.backing_bytes(), true); !made) return made;
    if (auto written = write_metadata(fresh, request); !written) {
        ::unlink(fresh.c_str());
        return written;
    }
    if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
        return system_error("rename the new replica to", path);
    }
    return sync_parent(path);
}

Status remove_replica(const std::string& path, const VolumeId& volume) {
    if (auto ours = check_ours(path, volume); !ours) {
        if (ours.error().code == ErrorCode::not_found) return {};  // done before
        return ours;
    }
    if (is_block_device(path)) {
        return fail(ErrorCode::unsupported, path + " is a device: it is not removed; wipe it with wipefs(8)");
    }
    if (::unlink(path.c_str()) != 0) return system_error("remove", path);
    return sync_parent(path);
}

Status rename_replica(const std::string& path, const std::string& to, const VolumeId& volume) {
    if (::access(path.c_str(), F_OK) != 0 && ::access(to.c_str(), F_OK) == 0) return {};  // done before
    if (auto ours = check_ours(path, volume); !ours) return ours;
    if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0) {
        return system_error("rename to", to);
    }
    return sync_parent(to);
}

}  // namespace gemel::blockd
