#include <gtest/gtest.h>

#include "base/containers.hpp"

namespace gemel {
namespace {

TEST(BoundedQueue, FirstInFirstOutAndFull) {
    BoundedQueue<int> queue(2);
    EXPECT_TRUE(queue.push(1));
    EXPECT_TRUE(queue.push(2));
    EXPECT_FALSE(queue.push(3));
    EXPECT_EQ(queue.pop(), 1);
    EXPECT_TRUE(queue.push(3));
    EXPECT_EQ(queue.at(1), 3);
    EXPECT_EQ(queue.pop(), 2);
    EXPECT_EQ(queue.pop(), 3);
    EXPECT_TRUE(queue.empty());
}

TEST(SlotPool, StaleKeysAreRecognised) {
    SlotPool<int> pool(1);
    const auto first = pool.take(7);
    ASSERT_TRUE(first);
    EXPECT_TRUE(pool.full());
    EXPECT_FALSE(pool.take(8));
    pool.release(*first);
    EXPECT_EQ(pool.find(*first), nullptr);
    const auto second = pool.take(9);
    ASSERT_TRUE(second);
    EXPECT_EQ(pool.find(*first), nullptr) << "the slot was given away again";
    EXPECT_EQ(*pool.find(SlotPool<int>::Key::unpack(second->packed())), 9);
}

}  // namespace
}  // namespace gemel
