// Checker of promise D3 on metadata made by hand: it must see what is named nowhere, and only that.
#include <array>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/formats/format_replica.hpp"
#include "core/formats/intent_log.hpp"
#include "core/formats/layout.hpp"
#include "sim/checkers/tracking.hpp"
#include "sim/world/disk.hpp"

namespace gemel::sim {
namespace {

class Deaf final : public DiskClient {
  public:
    void disk_done(std::uint64_t, DiskOutcome) override {}
    void metadata_read_done(std::uint64_t, DiskOutcome, std::span<const std::byte>) override {}
    void hash_done(std::uint64_t, DiskOutcome, std::uint64_t, std::uint64_t) override {}
};

// Two replicas that were formatted together; node 1 still names extent 0, of a former life of its own, and a
// mirrored write to block 5, in extent 0, is in its cache.
class Tracking : public ::testing::Test {
  protected:
    static constexpr std::uint64_t kData = 16 << 20;
    using Page = std::array<std::byte, formats::kPageBytes>;

    Tracking() {
        for (std::uint32_t node = 0; node < 2; ++node) {
            replicas[node] = ReplicaId::from_random(node + 1, 7);
            disks[node] = std::make_unique<Disk>(queue, trace, Prng(node), payloads, node,
                                                 formats::Layout::for_size(kData).data_offset, kData,
                                                 [](const std::string&, const std::string&) {});
            disks[node]->attach(1, deaf);
        }
        for (std::uint32_t node = 0; node < 2; ++node) {
            formats::FormatRequest request;
            request.cluster = ClusterId::from_random(1, 1);
            request.volume = VolumeId::from_random(2, 2);
            request.replica = replicas[node];
            request.size_bytes = kData;
            request.generation = {GenerationId::from_random(3, 3), {}, 1};
            request.peer = replicas[1 - node];
            formats::format_replica(request, [&](std::uint64_t offset, std::span<const std::byte> page) {
                put(node, offset, page);
            });
        }
        log(1, 1, {0});
    }
    void put(std::uint32_t node, std::uint64_t offset, std::span<const std::byte> page) {
        disks[node]->write_metadata(1, 0, offset, page, true);
        while (queue.run_one()) {
        }
    }
    // the n-th transaction after those of the format
    void log(std::uint32_t node, std::uint64_t n, const std::vector<std::uint32_t>& extents) {
        const std::uint64_t sequence = formats::kIntentLogSlots + n;
        Page page{};
        formats::encode_intent(sequence, extents, replicas[node], page);
        put(node, formats::Layout::intent_offset(sequence), page);
    }
    // a copy of another page of that disk's metadata
    void stray_over_log(std::uint32_t node, std::uint64_t n) {
        Page page{};
        disks[node]->current().metadata.read(formats::kSuperblockA, page);
        put(node, formats::Layout::intent_offset(formats::kIntentLogSlots + n), page);
    }
    template <typename Change>
    void edit(std::uint32_t node, Change&& change) {
        Page a{};
        Page b{};
        disks[node]->current().metadata.read(formats::kSuperblockA, a);
        disks[node]->current().metadata.read(formats::kSuperblockB, b);
        auto superblock = formats::choose_superblock(a, b)->superblock;
        change(superblock);
        ++superblock.sequence;
        formats::encode_superblock(superblock, a);
        put(node, formats::Layout::superblock_offset(superblock.sequence), a);
    }
    void state(std::uint32_t node, ReplicaState state) {
        edit(node, [state](formats::Superblock& s) { s.state = state; });
    }
    // node 1 writes block 5 into its cache and then names nothing any more
    std::string cleared() {
        EXPECT_EQ(checker->metadata_changed(), "");
        const std::uint32_t payload = payloads.take(8);
        disks[1]->write(1, 1, 5 * 4096, 4096, payload, false);
        while (queue.run_one()) {
        }
        EXPECT_TRUE(disks[1]->unstable_in(5 * 4096, 4096));
        log(1, 2, {});
        return checker->metadata_changed();
    }

    EventQueue queue;
    Trace trace{false};
    PayloadPool payloads;
    Deaf deaf;
    std::array<ReplicaId, 2> replicas;
    std::array<std::unique_ptr<Disk>, 2> disks;
    std::unique_ptr<TrackingChecker> checker;

    void SetUp() override { checker = std::make_unique<TrackingChecker>(kData, *disks[0], *disks[1]); }
};

TEST_F(Tracking, TheOwnersLogNamesIt) {
    log(0, 1, {0});
    EXPECT_EQ(cleared(), "");
}

TEST_F(Tracking, NobodyNamesIt) {
    log(0, 1, {1});
    EXPECT_NE(cleared(), "");
}

// An attach would take every block for different: that is more than a log could say.
TEST_F(Tracking, TheOwnersLogWasHitByAStrayWrite) {
    log(0, 1, {0});
    stray_over_log(0, 2);
    EXPECT_EQ(cleared(), "");
}

// The owner's disk has failed, and node 1 serves its guest: every block counts as different.
TEST_F(Tracking, WhoTracksNobodyClearsNothing) {
    state(0, ReplicaState::failed);
    edit(1, [](formats::Superblock& s) { s.tracked_peer = ReplicaId{}; });
    EXPECT_EQ(cleared(), "");
}

TEST_F(Tracking, ATargetIsNamedByItsSourceAlone) {
    state(0, ReplicaState::inconsistent);
    log(0, 1, {1});
    EXPECT_NE(cleared(), "");
}

TEST_F(Tracking, ATargetsUnreadableLogIsNoExcuse) {
    state(0, ReplicaState::inconsistent);
    stray_over_log(0, 1);
    EXPECT_NE(cleared(), "");
}

}  // namespace
}  // namespace gemel::sim
