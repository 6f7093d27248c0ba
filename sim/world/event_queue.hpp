// EventQueue: virtual time. Everything in the simulator happens because an event's time has come; events of
// the same instant run in the order they were scheduled, so a run is a function of its seed. An event is a
// few words for a sink, never a closure: nothing is allocated per event once the heap has grown. Not in it:
// any meaning.
#pragma once

#include <cstdint>
#include <vector>

#include "base/instant.hpp"

namespace gemel::sim {

// Whoever receives events. `kind`, `a` and `b` mean what the sink says.
class EventSink {
  public:
    virtual void on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t b) = 0;

  protected:
    ~EventSink() = default;
};

class EventQueue {
  public:
    EventQueue();

    Instant now() const { return now_; }
    bool empty() const { return heap_.empty(); }
    std::uint64_t executed() const { return executed_; }
    // `when` in the past counts as now; Instant::never() is not scheduled
    void at(Instant when, EventSink& sink, std::uint32_t kind, std::uint64_t a = 0, std::uint64_t b = 0);
    void after(Duration delay, EventSink& sink, std::uint32_t kind, std::uint64_t a = 0,
               std::uint64_t b = 0) {
        at(now_ + delay, sink, kind, a, b);
    }
    // time of the next event, never() when there is none
    Instant next_at() const { return heap_.empty() ? Instant::never() : heap_.front().when; }
    // runs one event and moves time to it; false when there is none
    bool run_one();
    // runs everything up to and at `end`; then it is `end`
    void run_until(Instant end);

  private:
    struct Event {
        Instant when;
        std::uint64_t order;
        EventSink* sink;
        std::uint64_t a;
        std::uint64_t b;
        std::uint32_t kind;
        bool earlier_than(const Event& other) const {
            return when != other.when ? when < other.when : order < other.order;
        }
    };
    void sift_up(std::size_t index);
    void sift_down(std::size_t index);

    std::vector<Event> heap_;  // four children a node: shallower, and a node's children share cache lines
    Instant now_{0};
    std::uint64_t order_ = 0;
    std::uint64_t executed_ = 0;
};

}  // namespace gemel::sim
