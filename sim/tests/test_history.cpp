// The reference model must neither accuse the innocent nor forgive the guilty.
#include <gtest/gtest.h>

#include "sim/checkers/history.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint32_t kBoth = 3;
Instant at(std::int64_t n) {
    return Instant{n};
}

TEST(History, ANewVolumeReadsAsZeroes) {
    History history(1 << 20);
    EXPECT_TRUE(history.judge(at(1), 0, kZeroes).empty());
    EXPECT_FALSE(history.judge(at(1), 0, 5).empty());
}

TEST(History, AReadShowsTheLastAcknowledgedWrite) {
    History history(1 << 20);
    const WriteNumber first = history.begin_write(at(1), 0, 512, false);
    history.write_acknowledged(at(2), first, kBoth, false);
    const WriteNumber second = history.begin_write(at(3), 0, 512, false);
    history.write_acknowledged(at(4), second, kBoth, false);
    EXPECT_TRUE(history.judge(at(5), 0, second).empty());
    EXPECT_FALSE(history.judge(at(5), 0, first).empty()) << "stale";
    EXPECT_FALSE(history.judge(at(5), 0, kZeroes).empty()) << "lost";
    EXPECT_TRUE(history.judge(at(4), 0, first).empty())
        << "the read began before the second was acknowledged";
}

TEST(History, ConcurrentWritesMayEndInEitherOrder) {
    History history(1 << 20);
    const WriteNumber a = history.begin_write(at(1), 0, 512, false);
    const WriteNumber b = history.begin_write(at(2), 0, 512, false);
    history.write_acknowledged(at(3), a, kBoth, false);
    history.write_acknowledged(at(4), b, kBoth, false);
    EXPECT_TRUE(history.judge(at(5), 0, a).empty());
    EXPECT_TRUE(history.judge(at(5), 0, b).empty());
    // once one of them was read, it stays
    EXPECT_TRUE(history.observe(at(6), at(7), 0, a).empty());
    EXPECT_TRUE(history.judge(at(8), 0, a).empty());
    EXPECT_FALSE(history.judge(at(8), 0, b).empty());
}

TEST(History, AnUnansweredWriteMayHaveHappenedUntilItIsOverwritten) {
    History history(1 << 20);
    const WriteNumber open = history.begin_write(at(1), 0, 512, false);
    history.write_ended(at(2), open);
    EXPECT_TRUE(history.judge(at(3), 0, open).empty());
    EXPECT_TRUE(history.judge(at(3), 0, kZeroes).empty());
    const WriteNumber later = history.begin_write(at(4), 0, 512, false);
    history.write_acknowledged(at(5), later, kBoth, false);
    EXPECT_FALSE(history.judge(at(6), 0, open).empty());
}

TEST(History, UnflushedWritesMayBeLostOnlyWhenAllReplicasLostTheirCache) {
    History history(1 << 20);
    const WriteNumber write = history.begin_write(at(1), 0, 512, false);
    history.write_acknowledged(at(2), write, kBoth, false);
    history.node_lost_volatile(0);
    EXPECT_FALSE(history.judge(at(3), 0, kZeroes).empty()) << "the other replica still has it";
    history.node_lost_volatile(1);
    EXPECT_TRUE(history.judge(at(4), 0, kZeroes).empty());
    EXPECT_TRUE(history.judge(at(4), 0, write).empty());
}

TEST(History, FlushedFuaAndStableWritesAreNeverLost) {
    History history(1 << 20);
    const WriteNumber flushed = history.begin_write(at(1), 0, 512, false);
    history.write_acknowledged(at(2), flushed, kBoth, false);
    EXPECT_EQ(history.flush_acknowledged(at(3)), std::vector<WriteNumber>{flushed});
    const WriteNumber fua = history.begin_write(at(4), 4096, 512, false);
    history.write_acknowledged(at(5), fua, kBoth, true);
    const WriteNumber late = history.begin_write(at(6), 8192, 512, false);
    history.write_acknowledged(at(7), late, kBoth, false);
    EXPECT_TRUE(history.flush_acknowledged(at(6)).empty()) << "it had not completed when the flush began";
    history.node_lost_volatile(0);
    history.node_lost_volatile(1);
    EXPECT_FALSE(history.judge(at(8), 0, kZeroes).empty());
    EXPECT_FALSE(history.judge(at(8), 8, kZeroes).empty());
    EXPECT_TRUE(history.judge(at(8), 16, kZeroes).empty());
}

TEST(History, AReplicaHoldsAWriteOrOneNotBeforeIt) {
    History history(1 << 20);
    const WriteNumber first = history.begin_write(at(1), 0, 512, false);
    history.write_acknowledged(at(2), first, kBoth, false);
    const WriteNumber second = history.begin_write(at(3), 0, 512, false);
    EXPECT_TRUE(history.judge_holds(first, 0, first).empty());
    EXPECT_TRUE(history.judge_holds(first, 0, second).empty());
    history.write_acknowledged(at(4), second, kBoth, false);
    EXPECT_FALSE(history.judge_holds(second, 0, first).empty());
}

TEST(History, WhatAFlushedWriteHidesIsNotKnownAnyMore) {
    History history(1 << 20);
    EXPECT_TRUE(history.known(0, kZeroes));
    const WriteNumber first = history.begin_write(at(1), 0, 512, false);
    history.write_acknowledged(at(2), first, kBoth, false);
    const WriteNumber second = history.begin_write(at(3), 0, 512, false);
    history.write_acknowledged(at(4), second, kBoth, false);
    EXPECT_TRUE(history.known(0, first)) << "a replica may have lost the second one, which nobody flushed";
    history.flush_acknowledged(at(5));
    EXPECT_FALSE(history.known(0, kZeroes));
    EXPECT_FALSE(history.known(0, first));
    EXPECT_TRUE(history.known(0, second));
}

}  // namespace
}  // namespace gemel::sim
