#include "adapters/disk/disk.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/uio.h>

#include "base/invariant.hpp"

namespace gemel::disk {
namespace {

constexpr std::uint64_t kLargestPiece = std::uint64_t{1} << 20;  // of one read or write
constexpr std::uint64_t kLargestZeroPiece = std::uint64_t{1} << 30;
constexpr std::size_t kZeroBytes = std::size_t{256} << 10;
constexpr std::uint32_t kMaxTries = 1000;  // EAGAIN and EINTR without progress

alignas(4096) const std::array<std::byte, kZeroBytes> kZeroes{};

bool is_aligned(std::uint64_t value, std::uint32_t alignment) {
    return value % alignment == 0;
}

}  // namespace

void DiskRequest::on_complete(std::int32_t result, std::uint32_t) {
    disk_->completed(*this, result);
}

Disk::Disk(ring::Reactor& reactor, OpenFile file) : reactor_(reactor), file_(file) {}

Disk::~Disk() {
    INVARIANT(in_flight_ == 0, "a disk is closed after its last request");
    close_file(file_);
}

void Disk::read(DiskRequest& request, std::uint64_t offset, std::span<std::byte> memory) {
    request.kind_ = DiskRequest::Kind::read;
    request.memory_ = memory.data();
    request.offset_ = offset;
    request.left_ = memory.size();
    start(request);
}

void Disk::write(DiskRequest& request, std::uint64_t offset, std::span<const std::byte> memory, bool stable) {
    request.kind_ = DiskRequest::Kind::write;
    request.memory_ = const_cast<std::byte*>(memory.data());  // only read from
    request.offset_ = offset;
    request.left_ = memory.size();
    request.stable_ = stable;
    start(request);
}

void Disk::flush(DiskRequest& request) {
    request.kind_ = DiskRequest::Kind::flush;
    request.left_ = 0;
    start(request);
}

void Disk::zero(DiskRequest& request, std::uint64_t offset, std::uint64_t length, bool unmap) {
    request.kind_ = DiskRequest::Kind::zero;
    request.offset_ = offset;
    request.left_ = length;
    request.unmap_ = unmap;
    request.by_writing_ = false;
    request.stable_ = false;
    start(request);
}

void Disk::start(DiskRequest& request) {
    if (!request.busy_) {
        request.busy_ = true;
        request.disk_ = this;
        request.tries_ = 0;
        ++in_flight_;
    }
    switch (request.kind_) {
        case DiskRequest::Kind::flush: return reactor_.fdatasync(file_.direct_fd, request);
        case DiskRequest::Kind::zero: return start_zero(request);
        case DiskRequest::Kind::read:
        case DiskRequest::Kind::write: break;
    }
    request.piece_ = std::min(request.left_, kLargestPiece);
    const bool aligned = is_aligned(request.offset_, file_.alignment) &&
                         is_aligned(request.piece_, file_.alignment) &&
                         is_aligned(reinterpret_cast<std::uintptr_t>(request.memory_), file_.alignment);
    const int fd = aligned ? file_.direct_fd : file_.buffered_fd;
    const std::span<std::byte> memory(request.memory_, static_cast<std::size_t>(request.piece_));
    if (request.kind_ == DiskRequest::Kind::read) {
        reactor_.read(fd, memory, request.offset_, request);
    } else {
        reactor_.write(fd, memory, request.offset_, request.stable_ ? RWF_DSYNC : 0, request);
    }
}

void Disk::start_zero(DiskRequest& request) {
    if (!request.by_writing_) {
        request.piece_ = std::min(request.left_, kLargestZeroPiece);
        // for QEMU and the guest both forms read as zero; which one is cheaper depends on the wish and the
        // file system
        if (request.unmap_ ? can_punch_hole_ : can_zero_range_) {
            const int mode = request.unmap_ ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
            return reactor_.fallocate(file_.direct_fd, mode | FALLOC_FL_KEEP_SIZE, request.offset_,
                                      request.piece_, request);
        }
        request.by_writing_ = true;
    }
    request.piece_ = std::min<std::uint64_t>(request.left_, kZeroBytes);
    const bool aligned =
        is_aligned(request.offset_, file_.alignment) && is_aligned(request.piece_, file_.alignment);
    reactor_.write(aligned ? file_.direct_fd : file_.buffered_fd,
                   std::span(kZeroes).first(static_cast<std::size_t>(request.piece_)), request.offset_, 0,
                   request);
}

void Disk::completed(DiskRequest& request, std::int32_t result) {
    if (result == -EAGAIN || result == -EINTR) return retry(request);
    switch (request.kind_) {
        case DiskRequest::Kind::flush:
            return finish(request, result == 0 ? DiskStatus::ok : DiskStatus::io_error);
        case DiskRequest::Kind::zero: return completed_zero(request, result);
        case DiskRequest::Kind::read:
        case DiskRequest::Kind::write: break;
    }
    if (result == -ENOSPC || result == -EDQUOT) return finish(request, DiskStatus::out_of_space);
    if (result <= 0)
        return finish(request, DiskStatus::io_error);  // 0: the backing ends before its announced size
    std::uint64_t done = static_cast<std::uint64_t>(result);
    if (done < request.piece_) {
        // Direct I/O goes on at an aligned place: a part of a block is transferred again, from the same
        // bytes.
        done -= done % file_.alignment;
        if (done == 0) return retry(request);
    }
    request.memory_ += done;
    progress(request, done);
}

void Disk::completed_zero(DiskRequest& request, std::int32_t result) {
    if (!request.by_writing_) {
        if (result == 0) return progress(request, request.piece_);
        if (result != -EOPNOTSUPP && result != -EINVAL) {
            return finish(request, result == -ENOSPC ? DiskStatus::out_of_space : DiskStatus::io_error);
        }
        (request.unmap_ ? can_punch_hole_ : can_zero_range_) = result == -EINVAL;
        request.by_writing_ = true;
        return start_zero(request);
    }
    if (result == -ENOSPC || result == -EDQUOT) return finish(request, DiskStatus::out_of_space);
    if (result <= 0) return finish(request, DiskStatus::io_error);
    std::uint64_t done = static_cast<std::uint64_t>(result);
    if (done < request.piece_) done -= done % file_.alignment;
    if (done == 0) return retry(request);
    progress(request, done);
}

void Disk::progress(DiskRequest& request, std::uint64_t bytes) {
    request.offset_ += bytes;
    request.left_ -= bytes;
    request.tries_ = 0;
    if (request.left_ == 0) return finish(request, DiskStatus::ok);
    start(request);
}

void Disk::retry(DiskRequest& request) {
    if (++request.tries_ > kMaxTries) return finish(request, DiskStatus::io_error);
    start(request);
}

void Disk::finish(DiskRequest& request, DiskStatus status) {
    request.busy_ = false;
    --in_flight_;
    request.disk_done(status);
}

}  // namespace gemel::disk
