#include <map>

#include <gtest/gtest.h>

#include "adapters/ring/buffer_pool.hpp"
#include "base/prng.hpp"

namespace gemel::ring {
namespace {

std::unique_ptr<BufferPool> pool_of(std::size_t bytes) {
    auto pool = BufferPool::create(bytes);
    EXPECT_TRUE(pool.has_value());
    return std::move(*pool);
}

TEST(BufferPool, RefusesOddSizes) {
    EXPECT_FALSE(BufferPool::create(0));
    EXPECT_FALSE(BufferPool::create(12345));
}

TEST(BufferPool, GivesAlignedPiecesUntilNothingIsLeft) {
    auto pool = pool_of(2 << 20);
    std::vector<BufferPool::Handle> taken;
    while (const auto handle = pool->take(100'000)) {
        const auto memory = pool->memory(*handle);
        EXPECT_EQ(memory.size(), 131'072U);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory.data()) % 131'072U, 0U);
        taken.push_back(*handle);
    }
    EXPECT_EQ(taken.size(), 16U);
    EXPECT_EQ(pool->free_bytes(), 0U);
    for (const auto handle : taken) pool->release(handle);
    EXPECT_TRUE(pool->take(1 << 20).has_value());
    EXPECT_TRUE(pool->take(1 << 20).has_value());
    EXPECT_FALSE(pool->take(1).has_value());
}

TEST(BufferPool, SharedPiecesStayUntilTheLastRelease) {
    auto pool = pool_of(1 << 20);
    const auto handle = *pool->take(1 << 20);
    pool->retain(handle);
    pool->release(handle);
    EXPECT_FALSE(pool->take(1).has_value());
    pool->release(handle);
    EXPECT_TRUE(pool->take(1).has_value());
}

TEST(BufferPool, PiecesNeverOverlapAndAllComesBack) {
    auto pool = pool_of(4 << 20);
    Prng random(7);
    std::map<BufferPool::Handle, std::byte> taken;
    for (int round = 0; round < 20'000; ++round) {
        if (random.chance(1, 2)) {
            const auto size = std::size_t{1} << random.between(9, 20);
            if (const auto handle = pool->take(size)) {
                const auto mark = static_cast<std::byte>(random.below(256));
                std::ranges::fill(pool->memory(*handle), mark);
                ASSERT_TRUE(taken.emplace(*handle, mark).second);
            }
        } else if (!taken.empty()) {
            const auto one =
                std::next(taken.begin(), static_cast<std::ptrdiff_t>(random.below(taken.size())));
            const auto memory = pool->memory(one->first);
            ASSERT_EQ(memory.front(), one->second);
            ASSERT_EQ(memory.back(), one->second);
            pool->release(one->first);
            taken.erase(one);
        }
    }
    for (const auto& [handle, mark] : taken) pool->release(handle);
    EXPECT_EQ(pool->free_bytes(), 4U << 20);
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(pool->take(1 << 20).has_value());
}

struct Waiter final : BufferWaiter {
    BufferPool* pool = nullptr;
    std::size_t bytes = 0;
    std::optional<BufferPool::Handle> got;
    bool try_again() override {
        got = pool->take(bytes, Share::front);
        return got.has_value();
    }
};

TEST(BufferPool, FrontEndsLeaveHalfForTheLink) {
    auto pool = pool_of(4 << 20);
    EXPECT_TRUE(pool->take(1 << 20, Share::front));
    EXPECT_TRUE(pool->take(1 << 20, Share::front));
    EXPECT_FALSE(pool->take(4096, Share::front));
    EXPECT_TRUE(pool->take(1 << 20, Share::link));
    EXPECT_TRUE(pool->take(1 << 20, Share::link));
}

TEST(BufferPool, WhoCameFirstIsServedFirst) {
    auto pool = pool_of(2 << 20);
    const auto all = *pool->take(1 << 20, Share::front);
    Waiter large;
    Waiter small;
    Waiter gone;
    for (auto* waiter : {&large, &gone, &small}) waiter->pool = pool.get();
    large.bytes = 1 << 20;
    small.bytes = gone.bytes = 4096;
    pool->wait(large, Share::front);
    pool->wait(gone, Share::front);
    pool->wait(small, Share::front);
    pool->stop_waiting(gone);
    pool->wake_waiters();
    EXPECT_FALSE(large.got || small.got);
    pool->release(all);
    EXPECT_FALSE(pool->take(4096, Share::front)) << "a newcomer does not overtake";
    pool->wake_waiters();
    EXPECT_TRUE(large.got.has_value());
    EXPECT_FALSE(small.got.has_value());
    pool->release(*large.got);
    pool->wake_waiters();
    EXPECT_TRUE(small.got.has_value());
    EXPECT_FALSE(gone.got.has_value());
}

}  // namespace
}  // namespace gemel::ring
