#include "core/replication/interval_lock.hpp"

#include <algorithm>

#include "base/invariant.hpp"
#include "base/mutant.hpp"

namespace gemel::replication {
namespace {

// a fixed mixing of the arrival number: the tree's shape is random enough and the same in every run
std::uint32_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<std::uint32_t>((x ^ (x >> 31)) >> 16);
}

}  // namespace

IntervalLock::IntervalLock(std::size_t capacity) : nodes_(capacity) {
    free_.reserve(capacity);
    for (std::size_t i = capacity; i > 0; --i) free_.push_back(static_cast<std::uint32_t>(i - 1));
}

void IntervalLock::update(std::uint32_t at) {
    Node& node = nodes_[at];
    node.max_end = node.end;
    if (node.left != kNone) node.max_end = std::max(node.max_end, nodes_[node.left].max_end);
    if (node.right != kNone) node.max_end = std::max(node.max_end, nodes_[node.right].max_end);
}

void IntervalLock::split(std::uint32_t at, const Node& pivot, std::uint32_t& left, std::uint32_t& right) {
    if (at == kNone) {
        left = right = kNone;
        return;
    }
    if (before(nodes_[at], pivot)) {
        split(nodes_[at].right, pivot, nodes_[at].right, right);
        left = at;
    } else {
        split(nodes_[at].left, pivot, left, nodes_[at].left);
        right = at;
    }
    update(at);
}

std::uint32_t IntervalLock::merge(std::uint32_t left, std::uint32_t right) {
    if (left == kNone) return right;
    if (right == kNone) return left;
    if (nodes_[left].priority > nodes_[right].priority) {
        nodes_[left].right = merge(nodes_[left].right, right);
        update(left);
        return left;
    }
    nodes_[right].left = merge(left, nodes_[right].left);
    update(right);
    return right;
}

std::uint32_t IntervalLock::insert(std::uint32_t at, std::uint32_t added) {
    if (at == kNone) return added;
    if (nodes_[added].priority > nodes_[at].priority) {
        std::uint32_t left = kNone;
        std::uint32_t right = kNone;
        split(at, nodes_[added], left, right);
        nodes_[added].left = left;
        nodes_[added].right = right;
        update(added);
        return added;
    }
    if (before(nodes_[added], nodes_[at])) {
        nodes_[at].left = insert(nodes_[at].left, added);
    } else {
        nodes_[at].right = insert(nodes_[at].right, added);
    }
    update(at);
    return at;
}

std::uint32_t IntervalLock::erase(std::uint32_t at, std::uint32_t gone) {
    INVARIANT(at != kNone, "a taken ticket is in the tree");
    if (at == gone) return merge(nodes_[at].left, nodes_[at].right);
    if (before(nodes_[gone], nodes_[at])) {
        nodes_[at].left = erase(nodes_[at].left, gone);
    } else {
        nodes_[at].right = erase(nodes_[at].right, gone);
    }
    update(at);
    return at;
}

template <typename Visit>
void IntervalLock::overlapping(std::uint32_t at, std::uint64_t begin, std::uint64_t end, Visit&& visit) {
    if (at == kNone || nodes_[at].max_end <= begin) return;
    overlapping(nodes_[at].left, begin, end, visit);
    if (nodes_[at].begin >= end) return;
    if (nodes_[at].end > begin) visit(nodes_[at]);
    overlapping(nodes_[at].right, begin, end, visit);
}

IntervalLock::Ticket IntervalLock::acquire(std::uint64_t begin, std::uint64_t end, bool shared,
                                           std::uint64_t owner) {
    INVARIANT(begin < end, "an operation covers at least one byte");
    INVARIANT(!free_.empty(), "the lock has room for every request, chunk and peer request there can be");
    const std::uint32_t ticket = free_.back();
    free_.pop_back();
    Node& node = nodes_[ticket];
    node = Node{};
    node.begin = begin;
    node.end = node.max_end = end;
    node.order = next_order_++;
    node.owner = owner;
    node.shared = shared;
    node.priority = mix(node.order);
    if (!mutant("overlap_not_serialised")) {
        overlapping(root_, begin, end, [&](const Node& other) {
            if (!(shared && other.shared)) ++node.blockers;
        });
    }
    root_ = insert(root_, ticket);
    return ticket;
}

void IntervalLock::release(Ticket ticket, std::vector<std::uint64_t>& now_granted) {
    root_ = erase(root_, ticket);
    const Node gone = nodes_[ticket];
    if (!mutant("overlap_not_serialised")) {
        overlapping(root_, gone.begin, gone.end, [&](Node& other) {
            if (other.order < gone.order || (other.shared && gone.shared)) return;
            INVARIANT(other.blockers > 0, "a later request that overlaps was blocked by this one");
            if (--other.blockers == 0) now_granted.push_back(other.owner);
        });
    }
    free_.push_back(ticket);
}

}  // namespace gemel::replication
