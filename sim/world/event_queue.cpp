#include "sim/world/event_queue.hpp"

#include <algorithm>
#include <utility>

namespace gemel::sim {

namespace {
constexpr std::size_t kFanOut = 4;
constexpr std::size_t kFirstCapacity = 1024;
}  // namespace

EventQueue::EventQueue() {
    heap_.reserve(kFirstCapacity);
}

void EventQueue::at(Instant when, EventSink& sink, std::uint32_t kind, std::uint64_t a, std::uint64_t b) {
    if (when == Instant::never()) return;
    heap_.push_back(Event{std::max(when, now_), order_++, &sink, a, b, kind});
    sift_up(heap_.size() - 1);
}

bool EventQueue::run_one() {
    if (heap_.empty()) return false;
    const Event event = heap_.front();
    heap_.front() = heap_.back();
    heap_.pop_back();
    if (!heap_.empty()) sift_down(0);
    now_ = event.when;
    ++executed_;
    event.sink->on_event(event.kind, event.a, event.b);
    return true;
}

void EventQueue::run_until(Instant end) {
    while (!heap_.empty() && heap_.front().when <= end) run_one();
    now_ = std::max(now_, end);
}

void EventQueue::sift_up(std::size_t index) {
    const Event moving = heap_[index];
    while (index > 0) {
        const std::size_t parent = (index - 1) / kFanOut;
        if (!moving.earlier_than(heap_[parent])) break;
        heap_[index] = heap_[parent];
        index = parent;
    }
    heap_[index] = moving;
}

void EventQueue::sift_down(std::size_t index) {
    const Event moving = heap_[index];
    const std::size_t size = heap_.size();
    for (;;) {
        const std::size_t first = index * kFanOut + 1;
        if (first >= size) break;
        std::size_t best = first;
        const std::size_t last = std::min(first + kFanOut, size);
        for (std::size_t child = first + 1; child < last; ++child) {
            if (heap_[child].earlier_than(heap_[best])) best = child;
        }
        if (!heap_[best].earlier_than(moving)) break;
        heap_[index] = heap_[best];
        index = best;
    }
    heap_[index] = moving;
}

}  // namespace gemel::sim
