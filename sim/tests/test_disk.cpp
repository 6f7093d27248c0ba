// The disk model is only worth something if it is as bad as a disk: what is not flushed may go, what is
// flushed stays.
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sim/world/disk.hpp"

namespace gemel::sim {
namespace {

class Collect final : public DiskClient {
  public:
    void disk_done(std::uint64_t tag, DiskOutcome outcome) override { done.emplace_back(tag, outcome); }
    void metadata_read_done(std::uint64_t tag, DiskOutcome outcome,
                            std::span<const std::byte> bytes) override {
        done.emplace_back(tag, outcome);
        read.assign(bytes.begin(), bytes.end());
    }
    void hash_done(std::uint64_t tag, DiskOutcome outcome, std::uint64_t high, std::uint64_t low) override {
        done.emplace_back(tag, outcome);
        hash = high ^ low;
    }
    std::vector<std::pair<std::uint64_t, DiskOutcome>> done;
    std::vector<std::byte> read;
    std::uint64_t hash = 0;
};

class DiskTest : public ::testing::Test {
  protected:
    static constexpr std::uint64_t kData = 1 << 20;
    explicit DiskTest(std::uint64_t seed = 7)
        : disk(queue, trace, Prng(seed), payloads, 0, 65536, kData,
               [this](const std::string& promise, const std::string&) { breaches.push_back(promise); }) {
        disk.attach(1, client);
    }
    void run() {
        while (queue.run_one()) {
        }
    }
    std::uint32_t filled(std::size_t sectors, Stamp stamp) {
        const std::uint32_t handle = payloads.take(sectors);
        std::ranges::fill(payloads.stamps(handle), stamp);
        return handle;
    }
    EventQueue queue;
    Trace trace{false};
    PayloadPool payloads;
    std::vector<std::string> breaches;
    Collect client;
    Disk disk;
};

TEST_F(DiskTest, UnflushedWritesMayBeLostFlushedOnesNever) {
    int lost = 0;
    for (Stamp round = 1; round <= 40; ++round) {
        disk.attach(1, client);
        disk.write(1, round * 2, 0, 4096, filled(8, round), false);
        run();
        disk.flush(1, 1);
        run();
        disk.write(1, round * 2 + 1, 8192, 4096, filled(8, round), false);
        run();
        EXPECT_EQ(disk.current().data.get(16), round);
        disk.power_cut();
        EXPECT_EQ(disk.current().data.get(0), round) << "flushed data survives";
        if (disk.current().data.get(16) != round) ++lost;
    }
    EXPECT_GT(lost, 5);
    EXPECT_LT(lost, 40);
}

TEST_F(DiskTest, AFlushCoversOnlyWhatCompletedBeforeItBegan) {
    disk.write(1, 1, 0, 512, filled(1, 11), false);
    disk.flush(1, 2);  // the write is still in flight (scenario W7)
    run();
    EXPECT_EQ(disk.current().data.get(0), 11U);
    EXPECT_EQ(disk.stable().data.get(0), kZeroes);
}

TEST_F(DiskTest, AFailedFlushForgetsAndTheNextOneSucceeds) {
    int forgotten = 0;
    for (Stamp round = 1; round <= 20; ++round) {
        const std::uint64_t at = round * 512;
        disk.write(1, round, at, 512, filled(1, round), false);
        run();
        disk.faults().fail_next_flush = true;
        disk.flush(1, 100);
        run();
        EXPECT_EQ(client.done.back().second, DiskOutcome::io_error);
        disk.flush(1, 101);
        run();
        EXPECT_EQ(client.done.back().second, DiskOutcome::ok);
        if (disk.stable().data.get(round) != round) ++forgotten;
    }
    EXPECT_GT(forgotten, 0);
}

TEST_F(DiskTest, IoOfADeadProcessLandsLaterAndTellsNobody) {
    disk.write(1, 1, 0, 512, filled(1, 5), false);
    disk.process_died();
    EXPECT_TRUE(disk.outlived_io());
    Collect next;
    disk.attach(2, next);
    run();
    EXPECT_FALSE(disk.outlived_io());
    EXPECT_EQ(disk.current().data.get(0), 5U);
    EXPECT_TRUE(client.done.empty());
    EXPECT_TRUE(next.done.empty());
}

TEST_F(DiskTest, ABufferLetGoTooEarlyReachesTheDiskAsPoison) {
    const std::uint32_t handle = filled(1, 9);
    disk.write(1, 1, 0, 512, handle, false);
    payloads.release(handle);
    run();
    EXPECT_EQ(disk.current().data.get(0), kPoison);
}

TEST_F(DiskTest, OverlappingWritesInFlightAreABreach) {
    disk.write(1, 1, 0, 1024, filled(2, 1), false);
    disk.write(1, 2, 512, 512, filled(1, 2), false);
    EXPECT_EQ(breaches, std::vector<std::string>{"D5"});
}

TEST_F(DiskTest, StableMetadataSurvivesAndIsNotUndoneByAnOlderUnflushedWrite) {
    const std::vector<std::byte> older(4096, std::byte{1});
    const std::vector<std::byte> newer(4096, std::byte{2});
    disk.write_metadata(1, 1, 4096, older, false);
    run();
    disk.write_metadata(1, 2, 4096, newer, true);
    run();
    disk.flush(1, 3);
    run();
    EXPECT_EQ(disk.stable().metadata.get(4096), std::byte{2});
    disk.power_cut();
    EXPECT_EQ(disk.current().metadata.get(8191), std::byte{2});
}

TEST_F(DiskTest, AStableWriteLeavesTheOrderOfWhatItOverlapsAlone) {
    disk.write(1, 1, 0, 1024, filled(2, 1), false);
    run();
    disk.write(1, 2, 512, 1024, filled(2, 2), false);
    run();
    disk.write(1, 3, 1024, 512, filled(1, 3), true);  // overlaps the second write only
    run();
    disk.flush(1, 4);
    run();
    EXPECT_EQ(disk.stable().data.get(0), 1U);
    EXPECT_EQ(disk.stable().data.get(1), 2U) << "the oldest write came back";
    EXPECT_EQ(disk.stable().data.get(2), 3U);
}

TEST_F(DiskTest, ABadSectorFailsReadsUntilItIsWritten) {
    disk.faults().bad_sector = 3;
    const std::uint32_t handle = payloads.take(8);
    disk.read(1, 1, 0, 4096, handle);
    run();
    EXPECT_EQ(client.done.back().second, DiskOutcome::io_error);
    disk.write(1, 2, 0, 4096, filled(8, 4), false);
    run();
    disk.read(1, 3, 0, 4096, handle);
    run();
    EXPECT_EQ(client.done.back().second, DiskOutcome::ok);
    EXPECT_EQ(payloads.stamps(handle)[3], 4U);
}

TEST_F(DiskTest, TornWritesShowPartOfTheSectors) {
    bool torn = false;
    for (Stamp round = 1; round <= 60 && !torn; ++round) {
        disk.attach(1, client);
        disk.write(1, round, 0, 4096, filled(8, round), false);
        run();
        disk.power_cut();
        int mine = 0;
        for (std::uint64_t sector = 0; sector < 8; ++sector)
            mine += disk.current().data.get(sector) == round ? 1 : 0;
        torn = mine > 0 && mine < 8;
    }
    EXPECT_TRUE(torn);
}

}  // namespace
}  // namespace gemel::sim
