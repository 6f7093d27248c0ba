#include "adapters/disk/image_file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "adapters/disk/image_lock.hpp"

namespace gemel::disk {
namespace {

tl::unexpected<Error> cannot(const char* what, const std::string& path, int error) {
    const auto code = error == ENOENT   ? ErrorCode::not_found
                      : error == EEXIST ? ErrorCode::already_exists
                      : error == ENOSPC ? ErrorCode::out_of_space
                      : error == EACCES ? ErrorCode::permission_denied
                                        : ErrorCode::io_error;
    return fail(code, fmt::format("cannot {} {}: {}", what, path, std::strerror(error)));
}

std::uint32_t direct_alignment(int fd, bool is_block_device) {
    if (is_block_device) {
        int logical = 0;
        return ::ioctl(fd, BLKSSZGET, &logical) == 0 && logical == 512 ? 512 : 4096;
    }
    struct statx info {};
#ifdef STATX_DIOALIGN
    if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN) != 0 &&
        info.stx_dio_offset_align > 0 && info.stx_dio_offset_align <= 512 && info.stx_dio_mem_align <= 512) {
        return 512;
    }
#else
    (void)fd;
    (void)info;
#endif
    return 4096;
}

Status measure(OpenFile& file, const std::string& path) {
    struct stat info {};
    if (::fstat(file.direct_fd, &info) != 0) return cannot("look at", path, errno);
    file.is_block_device = S_ISBLK(info.st_mode);
    if (!file.is_block_device && !S_ISREG(info.st_mode)) {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("{} is neither a file nor a block device: name a raw image or a device", path));
    }
    file.size_bytes = static_cast<std::uint64_t>(info.st_size);
    if (file.is_block_device && ::ioctl(file.direct_fd, BLKGETSIZE64, &file.size_bytes) != 0) {
        return cannot("measure", path, errno);
    }
    file.alignment = direct_alignment(file.direct_fd, file.is_block_device);
    return {};
}

int open_direct(const std::string& path, bool& direct) {
    struct stat info {};
    // O_EXCL without O_CREAT: on a block device, nobody else (mount, md, another O_EXCL) may use it
    const int exclusive = ::stat(path.c_str(), &info) == 0 && S_ISBLK(info.st_mode) ? O_EXCL : 0;
    int fd = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC | exclusive);
    direct = fd >= 0;
    if (fd < 0 && errno == EINVAL) fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | exclusive);
    return fd;
}

Status sync_directory_of(const std::string& path) {
    const auto slash = path.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return cannot("open", directory, errno);
    const int error = ::fsync(fd) == 0 ? 0 : errno;
    ::close(fd);
    if (error != 0) return cannot("sync", directory, error);
    return {};
}

int allocate(int fd, std::uint64_t size_bytes, bool thin) {
    if (!thin && ::fallocate(fd, 0, 0, static_cast<off_t>(size_bytes)) == 0) return 0;
    if (!thin && errno != EOPNOTSUPP) return errno;
    return ::ftruncate(fd, static_cast<off_t>(size_bytes)) == 0 ? 0 : errno;
}

}  // namespace

Result<std::optional<OpenFile>> open_exclusively(const std::string& path) {
    OpenFile file;
    file.direct_fd = open_direct(path, file.direct);
    if (file.direct_fd < 0 && errno == EBUSY) return std::nullopt;
    if (file.direct_fd < 0) return cannot("open", path, errno);
    if (auto measured = measure(file, path); !measured) {
        close_file(file);
        return tl::unexpected<Error>(measured.error());
    }
    if (!file.is_block_device) {
        const auto lock = try_lock_image(file.direct_fd);
        if (!lock || *lock == LockOutcome::held_by_another) {
            close_file(file);
            if (!lock) return tl::unexpected<Error>(lock.error());
            return std::nullopt;
        }
    }
    file.buffered_fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file.buffered_fd < 0) {
        const int error = errno;
        close_file(file);
        return cannot("open", path, error);
    }
    return file;
}

void close_file(OpenFile& file) {
    if (file.buffered_fd >= 0) ::close(file.buffered_fd);
    if (file.direct_fd >= 0) ::close(file.direct_fd);
    file.buffered_fd = -1;
    file.direct_fd = -1;
}

Status make_backing(const std::string& path, std::uint64_t size_bytes, bool thin) {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0 && S_ISBLK(info.st_mode)) {
        auto opened = open_exclusively(path);
        if (!opened) return tl::unexpected<Error>(opened.error());
        if (!*opened)
            return fail(ErrorCode::failed_precondition,
                        path + " is in use: unmount it or choose another device");
        const std::uint64_t have = (*opened)->size_bytes;
        close_file(**opened);
        if (have >= size_bytes) return {};
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has {} bytes, {} are needed: choose a larger device "
                                "or a smaller volume",
                                path, have, size_bytes));
    }
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return cannot("create", path, errno);
    int error = allocate(fd, size_bytes, thin);
    if (error == 0 && ::fsync(fd) != 0) error = errno;
    ::close(fd);
    if (error != 0) {
        ::unlink(path.c_str());
        return cannot("allocate", path, error);
    }
    return sync_directory_of(path);
}

}  // namespace gemel::disk
