#include "adapters/disk/image_lock.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>

#include <fmt/format.h>

namespace gemel::disk {
namespace {

// QEMU's block/file-posix.c: one byte for each permission it takes, one for each it does not share.
constexpr off_t kPermissionBase = 100;
constexpr off_t kSharedBase = 200;
constexpr off_t kPermissionBytes = 64;

int set_lock(int fd, short type, off_t first) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = first;
    lock.l_len = kPermissionBytes;
    return ::fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

Result<LockOutcome> outcome(int fd, int error) {
    set_lock(fd, F_UNLCK, kPermissionBase);
    set_lock(fd, F_UNLCK, kSharedBase);
    if (error == EAGAIN || error == EACCES) return LockOutcome::held_by_another;
    return fail(ErrorCode::io_error, fmt::format("cannot lock the image: {}; a local file system is expected",
                                                 std::strerror(error)));
}

}  // namespace

Result<LockOutcome> try_lock_image(int fd) {
    // Exclusive first, so that of two who try at once at most one gets through; then shared, the form QEMU
    // expects to find, so that it can say who is in the way rather than that it could not lock a byte.
    for (const short type : {short{F_WRLCK}, short{F_RDLCK}}) {
        for (const off_t base : {kPermissionBase, kSharedBase}) {
            if (const int error = set_lock(fd, type, base); error != 0) return outcome(fd, error);
        }
    }
    return LockOutcome::taken;
}

}  // namespace gemel::disk
