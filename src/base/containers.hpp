// Bounded containers: a limit on everything, known at construction. None allocates after construction; a full
// one says so and the caller decides. Single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/invariant.hpp"

namespace gemel {

// First in, first out, at most `capacity` elements.
template <typename T>
class BoundedQueue {
  public:
    explicit BoundedQueue(std::size_t capacity) : slots_(capacity) {}

    bool empty() const { return size_ == 0; }
    bool full() const { return size_ == slots_.size(); }
    std::size_t size() const { return size_; }
    std::size_t capacity() const { return slots_.size(); }
    // false when full: nothing was taken
    [[nodiscard]] bool push(T value) {
        if (full()) return false;
        slots_[(head_ + size_) % slots_.size()] = std::move(value);
        ++size_;
        return true;
    }
    T& front() {
        INVARIANT(!empty(), "an empty queue has no front");
        return slots_[head_];
    }
    T pop() {
        INVARIANT(!empty(), "an empty queue has nothing to take");
        T value = std::move(slots_[head_]);
        head_ = (head_ + 1) % slots_.size();
        --size_;
        return value;
    }
    // i-th oldest
    T& at(std::size_t i) {
        INVARIANT(i < size_, "inside the queue");
        return slots_[(head_ + i) % slots_.size()];
    }

  private:
    std::vector<T> slots_;
    std::size_t head_ = 0;
    std::size_t size_ = 0;
};

// Fixed set of slots handed out by index; an index carries a generation so that a late completion for a slot
// that was given away again is recognised.
template <typename T>
class SlotPool {
  public:
    struct Key {
        std::uint32_t index = 0;
        std::uint32_t generation = 0;
        auto operator<=>(const Key&) const = default;
        std::uint64_t packed() const { return std::uint64_t{generation} << 32 | index; }
        static Key unpack(std::uint64_t packed) {
            return {static_cast<std::uint32_t>(packed & 0xffffffffU),
                    static_cast<std::uint32_t>(packed >> 32)};
        }
    };

    explicit SlotPool(std::size_t capacity) : slots_(capacity) {
        free_.reserve(capacity);
        for (std::size_t i = capacity; i > 0; --i) free_.push_back(static_cast<std::uint32_t>(i - 1));
    }

    std::size_t used() const { return slots_.size() - free_.size(); }
    std::size_t capacity() const { return slots_.size(); }
    bool full() const { return free_.empty(); }
    std::optional<Key> take(T value) {
        if (free_.empty()) return std::nullopt;
        const std::uint32_t index = free_.back();
        free_.pop_back();
        Slot& slot = slots_[index];
        slot.value = std::move(value);
        slot.taken = true;
        return Key{index, slot.generation};
    }
    // null when the key is stale
    T* find(Key key) {
        if (key.index >= slots_.size()) return nullptr;
        Slot& slot = slots_[key.index];
        return slot.taken && slot.generation == key.generation ? &slot.value : nullptr;
    }
    void release(Key key) {
        INVARIANT(find(key) != nullptr, "only a taken slot can be released");
        Slot& slot = slots_[key.index];
        slot.taken = false;
        ++slot.generation;
        slot.value = T{};
        free_.push_back(key.index);
    }
    template <typename Function>
    void for_each(Function&& function) {
        for (std::uint32_t i = 0; i < slots_.size(); ++i) {
            if (slots_[i].taken) function(Key{i, slots_[i].generation}, slots_[i].value);
        }
    }

  private:
    struct Slot {
        T value{};
        std::uint32_t generation = 1;
        bool taken = false;
    };
    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_;
};

}  // namespace gemel
