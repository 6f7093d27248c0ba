#include "adapters/ring/buffer_pool.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::ring {
namespace {

constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

}  // namespace

Result<std::unique_ptr<BufferPool>> BufferPool::create(std::size_t total_bytes) {
    if (total_bytes == 0 || total_bytes % kLargestBytes != 0 || total_bytes / kPageBytes >= kNone) {
        return fail(ErrorCode::invalid_argument,
                    "payload memory is a multiple of 1 MiB: choose another size");
    }
    void* memory = ::mmap(nullptr, total_bytes + kHugePageBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return fail(ErrorCode::out_of_space,
                    fmt::format("cannot map {} MiB of payload memory: {}; lower buffer_mib",
                                total_bytes >> 20, std::strerror(errno)));
    }
    // pieces are aligned to their size: cut the mapping at a multiple of the largest, better of a huge page
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    const std::uintptr_t aligned = (address + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
    auto* base = static_cast<std::byte*>(memory) + (aligned - address);
    if (aligned > address) ::munmap(memory, aligned - address);
    if (const std::size_t tail = kHugePageBytes - (aligned - address); tail > 0)
        ::munmap(base + total_bytes, tail);
    // A wish: in huge pages a piece of 1 MiB is one segment for the disk instead of 256 (more than many
    // devices take in one request), and copying it misses no translations. Without them everything works as
    // well.
    ::madvise(base, total_bytes, MADV_HUGEPAGE);
    return std::unique_ptr<BufferPool>(new BufferPool(base, total_bytes));
}

BufferPool::BufferPool(std::byte* base, std::size_t total_bytes)
    : base_(base), total_bytes_(total_bytes), free_bytes_(0), pages_(total_bytes / kPageBytes) {
    std::ranges::fill(free_, kNone);
    constexpr std::uint32_t kLargestPages = kLargestBytes / kPageBytes;
    for (std::size_t page = pages_.size(); page > 0; page -= kLargestPages) {
        push_free(static_cast<std::uint32_t>(page - kLargestPages), kOrders - 1);
    }
    free_bytes_ = total_bytes;
}

BufferPool::~BufferPool() {
    ::munmap(base_, total_bytes_);
}

void BufferPool::push_free(std::uint32_t page, std::uint32_t order) {
    Page& head = pages_[page];
    head = Page{free_[order], kNone, 0, static_cast<std::uint8_t>(order), true};
    if (head.next != kNone) pages_[head.next].previous = page;
    free_[order] = page;
}

void BufferPool::unlink_free(std::uint32_t page, std::uint32_t order) {
    Page& head = pages_[page];
    if (head.previous != kNone) pages_[head.previous].next = head.next;
    if (head.next != kNone) pages_[head.next].previous = head.previous;
    if (free_[order] == page) free_[order] = head.next;
    head.free_head = false;
}

std::optional<BufferPool::Handle> BufferPool::take(std::size_t bytes, Share share) {
    INVARIANT(bytes > 0 && bytes <= kLargestBytes, "a piece has 1 byte to 1 MiB");
    const Line& line = lines_[static_cast<std::size_t>(share)];
    if (line.first != nullptr && !line.waking) return std::nullopt;
    std::uint32_t wanted = 0;
    while ((kPageBytes << wanted) < bytes) ++wanted;
    const std::size_t reserve = share == Share::front ? total_bytes_ / 2 : 0;
    if (free_bytes_ < reserve + (kPageBytes << wanted)) return std::nullopt;
    std::uint32_t order = wanted;
    while (order < kOrders && free_[order] == kNone) ++order;
    if (order == kOrders) return std::nullopt;
    const std::uint32_t page = free_[order];
    unlink_free(page, order);
    while (order > wanted) {  // give the upper halves back
        --order;
        push_free(page + (1U << order), order);
    }
    pages_[page].order = static_cast<std::uint8_t>(wanted);
    pages_[page].references = 1;
    free_bytes_ -= kPageBytes << wanted;
    return page;
}

void BufferPool::retain(Handle handle) {
    INVARIANT(handle < pages_.size() && pages_[handle].references > 0, "only a taken piece can be shared");
    ++pages_[handle].references;
}

void BufferPool::release(Handle handle) {
    INVARIANT(handle < pages_.size() && pages_[handle].references > 0,
              "only a taken piece can be given back");
    if (--pages_[handle].references > 0) return;
    released_ = true;
    std::uint32_t page = handle;
    std::uint32_t order = pages_[page].order;
    free_bytes_ += kPageBytes << order;
    while (order + 1 < kOrders) {  // join with free neighbours
        const std::uint32_t buddy = page ^ (1U << order);
        if (!pages_[buddy].free_head || pages_[buddy].order != order) break;
        unlink_free(buddy, order);
        page = std::min(page, buddy);
        ++order;
    }
    push_free(page, order);
}

std::span<std::byte> BufferPool::memory(Handle handle) {
    INVARIANT(handle < pages_.size() && pages_[handle].references > 0, "only a taken piece has memory");
    return {base_ + std::size_t{handle} * kPageBytes, kPageBytes << pages_[handle].order};
}

void BufferPool::wait(BufferWaiter& waiter, Share share) {
    if (waiter.waiting_) return;
    Line& line = lines_[static_cast<std::size_t>(share)];
    waiter.waiting_ = true;
    waiter.next_ = nullptr;
    (line.last != nullptr ? line.last->next_ : line.first) = &waiter;
    line.last = &waiter;
}

void BufferPool::stop_waiting(BufferWaiter& waiter) {
    if (!waiter.waiting_) return;
    for (Line& line : lines_) {
        BufferWaiter* before = nullptr;
        for (BufferWaiter* each = line.first; each != nullptr; before = each, each = each->next_) {
            if (each != &waiter) continue;
            (before != nullptr ? before->next_ : line.first) = waiter.next_;
            if (line.last == &waiter) line.last = before;
            waiter.waiting_ = false;
            released_ = true;  // who stood behind it may go
            return;
        }
    }
}

void BufferPool::wake_waiters() {
    if (!released_) return;
    released_ = false;
    wake(Share::link);
    wake(Share::front);
}

void BufferPool::wake(Share share) {
    Line& line = lines_[static_cast<std::size_t>(share)];
    while (line.first != nullptr) {
        BufferWaiter& waiter = *line.first;
        line.waking = true;
        const bool served = waiter.try_again();
        line.waking = false;
        if (!served) return;
        if (line.first == &waiter) stop_waiting(waiter);
    }
}

}  // namespace gemel::ring
