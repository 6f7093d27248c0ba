// Which extents the intent log names, and when data must wait for it.
#include <gtest/gtest.h>

#include "core/replication/active_extents.hpp"

namespace gemel::replication {
namespace {

constexpr std::uint64_t kExtent = kExtentBytes;

struct ActiveExtentsTest : ::testing::Test {
    formats::Layout layout = formats::Layout::for_size(256 * kExtent);
    ReplicaId replica = ReplicaId::from_random(1, 2);
    DirtyBitmap bitmap{layout, replica};
    Outputs outputs;

    static constexpr RoundId kSettled = 1;

    void make_stable(ActiveExtents& extents) {
        while (extents.changed()) {
            outputs.clear();
            extents.pump(outputs);
            extents.written();
        }
    }
    // One write that begins and ends; true: it had to wait for a transaction.
    bool write(ActiveExtents& extents, std::uint64_t offset, std::uint64_t length) {
        EXPECT_TRUE(extents.enter(offset, length, kSettled));
        const bool waited = extents.entered_transaction() != 0;
        make_stable(extents);
        extents.leave(offset, length, kSettled);
        return waited;
    }
};

TEST_F(ActiveExtentsTest, a_cold_extent_brings_its_group_along) {
    ActiveExtents extents(layout, replica, 64, bitmap, 4);
    EXPECT_TRUE(write(extents, 9 * kExtent, 4096));
    EXPECT_EQ(extents.used(), 4U);
    EXPECT_FALSE(write(extents, 8 * kExtent, 4096));
    EXPECT_FALSE(write(extents, 11 * kExtent, 4096));
    EXPECT_TRUE(write(extents, 12 * kExtent, 4096));
    EXPECT_EQ(extents.stable(), 2U);
}

TEST_F(ActiveExtentsTest, alone_when_it_is_told_so) {
    ActiveExtents extents(layout, replica, 64, bitmap, 1);
    for (std::uint64_t extent = 0; extent < 8; ++extent) {
        EXPECT_TRUE(write(extents, extent * kExtent, 4096));
        EXPECT_EQ(extents.used(), extent + 1);
    }
}

// Data may go to an extent that was named ahead only when the transaction with its name is stable.
TEST_F(ActiveExtentsTest, who_comes_before_the_transaction_waits_for_it) {
    ActiveExtents extents(layout, replica, 64, bitmap, 4);
    ASSERT_TRUE(extents.enter(0, 4096, kSettled));
    const Transaction first = extents.entered_transaction();
    EXPECT_NE(first, 0U);
    ASSERT_TRUE(extents.enter(2 * kExtent, 4096, kSettled));
    EXPECT_EQ(extents.entered_transaction(), first);
    extents.pump(outputs);
    ASSERT_TRUE(extents.enter(2 * kExtent, 4096, kSettled));
    EXPECT_EQ(extents.entered_transaction(), first);
    ASSERT_TRUE(extents.enter(100 * kExtent, 4096, kSettled));  // not in the one that is being written
    EXPECT_EQ(extents.entered_transaction(), first + 1);
    extents.written();
    ASSERT_TRUE(extents.enter(3 * kExtent, 4096, kSettled));
    EXPECT_EQ(extents.entered_transaction(), 0U);
}

TEST_F(ActiveExtentsTest, a_sequential_writer_waits_at_its_beginning_only) {
    ActiveExtents extents(layout, replica, 64, bitmap, 4);
    int waits = 0;
    for (std::uint64_t at = 0; at < layout.size_bytes; at += kExtent / 4) {
        waits += write(extents, at, kExtent / 4) ? 1 : 0;
        EXPECT_LE(extents.used(), extents.capacity());
    }
    EXPECT_LE(waits, 2);  // its beginning, and until it is seen to be sequential
    EXPECT_LT(extents.stable(), 256U / 4);
}

// What was named ahead and not used is the first to go; what is in use never goes.
TEST_F(ActiveExtentsTest, the_unused_give_way_first) {
    ActiveExtents extents(layout, replica, 8, bitmap, 4);
    ASSERT_TRUE(extents.enter(0, 4096, kSettled));  // stays in use; 1 to 3 are unused
    EXPECT_TRUE(write(extents, 100 * kExtent, 4096));
    EXPECT_EQ(extents.used(), 8U);
    EXPECT_TRUE(write(extents, 200 * kExtent, 4096));
    EXPECT_EQ(extents.used(), 8U);
    EXPECT_FALSE(write(extents, 100 * kExtent, 4096));
    EXPECT_FALSE(write(extents, 200 * kExtent, 4096));
    ASSERT_TRUE(extents.enter(4096, 4096, kSettled));
    EXPECT_EQ(extents.entered_transaction(), 0U);
}

// Room is asked for what is written, never for its neighbours.
TEST_F(ActiveExtentsTest, neighbours_wait_for_nothing) {
    ActiveExtents extents(layout, replica, 8, bitmap, 4);
    for (std::uint64_t extent = 0; extent < 7; ++extent) {
        ASSERT_TRUE(extents.enter(extent * 16 * kExtent, 4096, kSettled));
    }
    ASSERT_TRUE(extents.enter(200 * kExtent, 4096, kSettled));
    EXPECT_EQ(extents.used(), 8U);
    EXPECT_FALSE(extents.enter(201 * kExtent, 4096, kSettled));
}

}  // namespace
}  // namespace gemel::replication
