// Slots: a fixed set of T handed out by index, first free first. Allocates at construction only. An index is
// free to be handed out again as soon as it is released; whoever holds one across an asynchronous edge knows
// that the slot is not released before the edge completed.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/invariant.hpp"

namespace gemel::replication {

template <typename T>
class Slots {
  public:
    explicit Slots(std::size_t capacity) : slots_(capacity) {
        free_.reserve(capacity);
        for (std::size_t i = capacity; i > 0; --i) free_.push_back(static_cast<std::uint32_t>(i - 1));
    }
    std::size_t used() const { return slots_.size() - free_.size(); }
    bool full() const { return free_.empty(); }
    std::uint32_t size() const { return static_cast<std::uint32_t>(slots_.size()); }

    std::optional<std::uint32_t> take() {
        if (free_.empty()) return std::nullopt;
        const std::uint32_t index = free_.back();
        free_.pop_back();
        slots_[index].taken = true;
        return index;
    }
    T& at(std::uint32_t index) {
        INVARIANT(index < slots_.size() && slots_[index].taken, "only a taken slot is looked at");
        return slots_[index].value;
    }
    bool taken(std::uint32_t index) const { return index < slots_.size() && slots_[index].taken; }
    void release(std::uint32_t index) {
        INVARIANT(taken(index), "only a taken slot is released");
        slots_[index].value = T{};
        slots_[index].taken = false;
        free_.push_back(index);
    }
    // function(index, T&); the function may release the slot it is given
    template <typename Function>
    void for_each(Function&& function) {
        if (used() == 0) return;
        for (std::uint32_t i = 0; i < slots_.size(); ++i) {
            if (slots_[i].taken) function(i, slots_[i].value);
        }
    }

  private:
    struct Slot {
        T value{};
        bool taken = false;
    };
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_;
};

// Intrusive first-in-first-out list of slot indices: T has a member `std::uint32_t next`. Each slot is in one
// list at most.
template <typename T>
class SlotQueue {
  public:
    explicit SlotQueue(Slots<T>& slots) : slots_(slots) {}
    bool empty() const { return head_ == kEnd; }
    std::uint32_t front() const { return head_; }
    void push(std::uint32_t index) {
        slots_.at(index).next = kEnd;
        if (empty()) {
            head_ = index;
        } else {
            slots_.at(tail_).next = index;
        }
        tail_ = index;
    }
    std::uint32_t pop() {
        INVARIANT(!empty(), "an empty queue has no front");
        const std::uint32_t index = head_;
        head_ = slots_.at(index).next;
        return index;
    }
    // takes out every element for which wanted(index) holds, in order
    template <typename Wanted, typename Take>
    void take_if(Wanted&& wanted, Take&& take) {
        std::uint32_t rest = head_;
        head_ = kEnd;
        std::uint32_t taken = kEnd;
        std::uint32_t taken_tail = kEnd;
        while (rest != kEnd) {
            const std::uint32_t index = rest;
            rest = slots_.at(index).next;
            if (!wanted(index)) {
                push(index);
                continue;
            }
            slots_.at(index).next = kEnd;
            (taken == kEnd ? taken : slots_.at(taken_tail).next) = index;
            taken_tail = index;
        }
        while (taken != kEnd) {
            const std::uint32_t index = taken;
            taken = slots_.at(index).next;
            take(index);
        }
    }

  private:
    static constexpr std::uint32_t kEnd = 0xffffffffU;
    Slots<T>& slots_;
    std::uint32_t head_ = kEnd;
    std::uint32_t tail_ = kEnd;
};

}  // namespace gemel::replication
