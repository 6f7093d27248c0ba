// BufferPool: the payload memory of one reactor, one block of address space handed out in pieces of 4 KiB to
// 1 MiB (powers of two, buddy allocation), each with a reference count. A piece is named by a 32-bit handle
// that fits the engine's PayloadHandle. Nothing is allocated after construction; an empty pool says so and
// the caller waits for a release. One thread only. Not in it: who waits, and any meaning of the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.hpp"

namespace gemel::ring {

// Who takes: front ends may use at most half of the pool, so that what the peer sends always finds room in
// the end (its writes need only this node's disk to be given back, so two nodes cannot wait for each other).
enum class Share : std::uint8_t { front, link };

// Somebody who found the pool empty. First come, first served within a share.
class BufferWaiter {
  public:
    // true: got what it waited for (or needs it no more)
    virtual bool try_again() = 0;

  protected:
    virtual ~BufferWaiter() = default;

  private:
    friend class BufferPool;
    BufferWaiter* next_ = nullptr;
    bool waiting_ = false;
};

class BufferPool {
  public:
    using Handle = std::uint32_t;
    static constexpr std::size_t kPageBytes = 4096;
    static constexpr std::size_t kLargestBytes = std::size_t{1} << 20;

    // total: multiple of kLargestBytes, below 16 TiB
    static Result<std::unique_ptr<BufferPool>> create(std::size_t total_bytes);
    ~BufferPool();
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;

    // A piece of at least `bytes` (1..kLargestBytes), reference count 1; none when there is no room.
    // While others of that share wait, there is none for newcomers.
    std::optional<Handle> take(std::size_t bytes, Share share = Share::link);
    void wait(BufferWaiter& waiter, Share share);
    void stop_waiting(BufferWaiter& waiter);
    // the reactor calls this once a turn
    void wake_waiters();
    void retain(Handle handle);
    // the last reference gives the piece back
    void release(Handle handle);

    // the whole piece, aligned to its size
    std::span<std::byte> memory(Handle handle);
    std::span<std::byte> whole() { return {base_, total_bytes_}; }
    bool contains(const std::byte* address) const {
        return address >= base_ && address < base_ + total_bytes_;
    }
    std::size_t free_bytes() const { return free_bytes_; }
    std::size_t total_bytes() const { return total_bytes_; }

  private:
    static constexpr std::uint32_t kOrders = 9;  // 4 KiB << 0 .. 4 KiB << 8
    static constexpr std::uint32_t kNone = 0xffffffffU;
    struct Page {  // valid for the first page of a piece
        std::uint32_t next = kNone;
        std::uint32_t previous = kNone;
        std::uint32_t references = 0;
        std::uint8_t order = 0;
        bool free_head = false;
    };

    BufferPool(std::byte* base, std::size_t total_bytes);
    void push_free(std::uint32_t page, std::uint32_t order);
    void unlink_free(std::uint32_t page, std::uint32_t order);
    void wake(Share share);

    std::byte* base_;
    std::size_t total_bytes_;
    std::size_t free_bytes_;
    std::vector<Page> pages_;
    std::uint32_t free_[kOrders];
    struct Line {
        BufferWaiter* first = nullptr;
        BufferWaiter* last = nullptr;
        bool waking = false;
    };
    Line lines_[2];
    bool released_ = false;
};

}  // namespace gemel::ring
