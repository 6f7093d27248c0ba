// Tasks: closures in virtual time, for what happens seldom (control plane, faults). The data path uses sinks.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "sim/world/event_queue.hpp"

namespace gemel::sim {

class Tasks final : public EventSink {
  public:
    explicit Tasks(EventQueue& queue) : queue_(queue) {}

    void after(Duration delay, std::function<void()> work) { at(queue_.now() + delay, std::move(work)); }
    void at(Instant when, std::function<void()> work) {
        std::uint32_t slot = 0;
        if (free_.empty()) {
            slot = static_cast<std::uint32_t>(slots_.size());
            slots_.emplace_back();
        } else {
            slot = free_.back();
            free_.pop_back();
        }
        slots_[slot] = std::move(work);
        queue_.at(when, *this, 0, slot);
    }
    Instant now() const { return queue_.now(); }

    void on_event(std::uint32_t, std::uint64_t slot, std::uint64_t) override {
        const std::function<void()> work = std::exchange(slots_[slot], nullptr);
        free_.push_back(static_cast<std::uint32_t>(slot));
        work();
    }

  private:
    EventQueue& queue_;
    std::vector<std::function<void()>> slots_;
    std::vector<std::uint32_t> free_;
};

}  // namespace gemel::sim
