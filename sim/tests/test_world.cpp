// The simulator itself: a run is a function of its seed, and every counter that must be reached has a name.
#include <gtest/gtest.h>

#include "sim/runner.hpp"
#include "sim/world/event_queue.hpp"

namespace gemel::sim {
namespace {

SeedResult run(std::uint64_t seed) {
    Counters counters;
    SeedOptions options;
    options.seed = seed;
    return run_one_seed(options, counters);
}

TEST(World, TheSameSeedGivesTheSameTrace) {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
        const SeedResult first = run(seed);
        const SeedResult second = run(seed);
        EXPECT_EQ(first.hash, second.hash) << "seed " << seed;
        EXPECT_EQ(first.events, second.events);
        EXPECT_TRUE(first.ok) << first.what;
    }
    EXPECT_NE(run(1).hash, run(2).hash);
}

// One that loses its only current copy ends early; on average they are as big as they must be.
TEST(World, SeedsAreBigEnough) {
    constexpr std::uint64_t kSeeds = 8;
    std::uint64_t requests = 0;
    std::uint64_t faults = 0;
    for (std::uint64_t seed = 11; seed < 11 + kSeeds; ++seed) {
        const SeedResult result = run(seed);
        requests += result.requests;
        faults += result.faults;
    }
    EXPECT_GE(requests / kSeeds, 2000U);
    EXPECT_GE(faults / kSeeds, 10U);
}

class Order final : public EventSink {
  public:
    void on_event(std::uint32_t kind, std::uint64_t, std::uint64_t) override { seen.push_back(kind); }
    std::vector<std::uint32_t> seen;
};

TEST(EventQueue, RunsByTimeAndThenByOrderOfScheduling) {
    EventQueue queue;
    Order order;
    queue.after(milliseconds(2), order, 3);
    queue.after(milliseconds(1), order, 1);
    queue.after(milliseconds(1), order, 2);
    queue.at(Instant::never(), order, 4);
    while (queue.run_one()) {
    }
    EXPECT_EQ(order.seen, (std::vector<std::uint32_t>{1, 2, 3}));
    EXPECT_EQ(queue.now(), Instant{} + milliseconds(2));
}

TEST(Counters, ARequiredZeroIsMissedAndTablesMerge) {
    Counters counters;
    counters.require("fault.power_cut");
    counters.require("fault.blackout");
    counters.add("fault.blackout");
    EXPECT_EQ(counters.missed(), std::vector<std::string>{"fault.power_cut"});
    Counters other;
    other.add("fault.power_cut", 3);
    counters.merge(other.table());
    EXPECT_TRUE(counters.missed().empty());
    EXPECT_EQ(counters.total("fault."), 4U);
}

}  // namespace
}  // namespace gemel::sim
