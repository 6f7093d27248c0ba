// The interval lock against a slow and simple model.
#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "base/prng.hpp"
#include "core/replication/interval_lock.hpp"

namespace gemel::replication {
namespace {

struct Entry {
    std::uint64_t begin, end, owner;
    bool shared;
    IntervalLock::Ticket ticket;
};

bool conflict(const Entry& a, const Entry& b) {
    return a.begin < b.end && b.begin < a.end && !(a.shared && b.shared);
}

TEST(IntervalLock, agrees_with_a_simple_model) {
    Prng random(3);
    IntervalLock lock(64);
    std::vector<Entry> entries;  // in order of arrival
    const auto model_granted = [&](std::size_t i) {
        return std::none_of(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(i),
                            [&](const Entry& e) { return conflict(e, entries[i]); });
    };
    std::vector<std::uint64_t> granted;
    for (std::uint64_t step = 0; step < 50000; ++step) {
        if (entries.size() < 64 && (entries.empty() || random.chance(1, 2))) {
            const std::uint64_t begin = random.below(100);
            Entry e{begin, begin + 1 + random.below(20), step, random.chance(1, 2), 0};
            e.ticket = lock.acquire(e.begin, e.end, e.shared, e.owner);
            entries.push_back(e);
        } else {
            const std::size_t victim = random.below(entries.size());
            std::vector<std::uint64_t> waiting;
            for (std::size_t i = 0; i < entries.size(); ++i) {
                if (!model_granted(i)) waiting.push_back(entries[i].owner);
            }
            granted.clear();
            lock.release(entries[victim].ticket, granted);
            entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(victim));
            std::vector<std::uint64_t> expected;
            for (std::size_t i = 0; i < entries.size(); ++i) {
                if (model_granted(i) && std::ranges::count(waiting, entries[i].owner) != 0)
                    expected.push_back(entries[i].owner);
            }
            std::ranges::sort(granted);
            std::ranges::sort(expected);
            ASSERT_EQ(granted, expected);
        }
        for (std::size_t i = 0; i < entries.size(); ++i)
            ASSERT_EQ(lock.granted(entries[i].ticket), model_granted(i));
    }
}

TEST(IntervalLock, the_first_to_come_is_the_first_to_go) {
    IntervalLock lock(8);
    std::vector<std::uint64_t> granted;
    const auto first = lock.acquire(0, 10, true, 1);
    const auto writer = lock.acquire(5, 6, false, 2);
    const auto late_reader = lock.acquire(0, 10, true, 3);
    EXPECT_TRUE(lock.granted(first));
    EXPECT_FALSE(lock.granted(writer));
    EXPECT_FALSE(lock.granted(late_reader)) << "readers do not starve a waiting writer";
    lock.release(first, granted);
    EXPECT_EQ(granted, std::vector<std::uint64_t>{2});
}

}  // namespace
}  // namespace gemel::replication
