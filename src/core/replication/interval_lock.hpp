// IntervalLock: no two overlapping operations are ever on one device together (rule 11, D5, D6, D12).
// Exclusive for writes and resync writes, shared for reads and resync reads. Strictly first come, first
// served among overlapping requests, so nobody starves. Guest requests, resync chunks and the peer's requests
// of one engine share one lock. A treap over byte ranges: acquire and release cost O(log n + overlaps);
// nothing is allocated after construction.
#pragma once

#include <cstdint>
#include <vector>

namespace gemel::replication {

class IntervalLock {
  public:
    using Ticket = std::uint32_t;  // names a request until it is released
    static constexpr Ticket kNone = 0xffffffffU;

    explicit IntervalLock(std::size_t capacity);

    // [begin, end); `owner` is handed back when the lock is granted later. granted() tells if it already is.
    Ticket acquire(std::uint64_t begin, std::uint64_t end, bool shared, std::uint64_t owner);
    bool granted(Ticket ticket) const { return nodes_[ticket].blockers == 0; }
    // Also for one that still waits. Owners whose turn has come are appended to `now_granted`.
    void release(Ticket ticket, std::vector<std::uint64_t>& now_granted);
    std::size_t capacity() const { return nodes_.size(); }
    std::size_t size() const { return nodes_.size() - free_.size(); }

  private:
    struct Node {
        std::uint64_t begin = 0;
        std::uint64_t end = 0;
        std::uint64_t max_end = 0;  // of the subtree
        std::uint64_t order = 0;    // arrival
        std::uint64_t owner = 0;
        std::uint32_t left = kNone;
        std::uint32_t right = kNone;
        std::uint32_t priority = 0;
        std::uint32_t blockers = 0;  // earlier requests that overlap and conflict
        bool shared = false;
    };
    bool before(const Node& a, const Node& b) const {
        return a.begin != b.begin ? a.begin < b.begin : a.order < b.order;
    }
    void update(std::uint32_t at);
    std::uint32_t insert(std::uint32_t at, std::uint32_t added);
    std::uint32_t erase(std::uint32_t at, std::uint32_t gone);
    std::uint32_t merge(std::uint32_t left, std::uint32_t right);
    void split(std::uint32_t at, const Node& pivot, std::uint32_t& left, std::uint32_t& right);
    template <typename Visit>
    void overlapping(std::uint32_t at, std::uint64_t begin, std::uint64_t end, Visit&& visit);

    std::vector<Node> nodes_;
    std::vector<std::uint32_t> free_;
    std::uint32_t root_ = kNone;
    std::uint64_t next_order_ = 1;
};

}  // namespace gemel::replication
