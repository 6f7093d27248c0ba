// The engine's main lines, over several seeds each: every order of completions must lead to the same end.
#include <gtest/gtest.h>

#include "core/replication/tests/harness.hpp"

namespace gemel::replication {
namespace {

using harness::healthy;
using harness::Pair;

class EveryOrder : public testing::TestWithParam<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, EveryOrder, testing::Range<std::uint64_t>(1, 41));

TEST_P(EveryOrder, a_fresh_pair_connects_and_serves) {
    const auto p = healthy(GetParam());
    EXPECT_EQ(p->view(0).connection, ConnectionState::connected);
    EXPECT_EQ(p->view(1).connection, ConnectionState::connected);
    EXPECT_EQ(p->view(0).role, Role::primary);
    EXPECT_EQ(p->view(0).frozen, FreezeReason::none);
    EXPECT_EQ(p->node(0).served, 1U);
    const auto tag = p->write(0, 8);
    p->settle();
    EXPECT_TRUE(p->done(tag));
    EXPECT_EQ(p->node(1).disk.read(8), tag);
    EXPECT_TRUE(p->equal());
}

TEST_P(EveryOrder, acknowledged_after_flush_is_stable_on_both) {  // D1
    const auto p = healthy(GetParam());
    std::vector<std::uint64_t> writes;
    for (std::uint64_t i = 0; i < 40; ++i)
        writes.push_back(p->write(0, p->random.below(64) * 512 + p->random.below(64), 16));
    const auto fua = p->write(0, 100000, 8, true);
    p->settle();
    for (const auto tag : writes) EXPECT_TRUE(p->done(tag));
    EXPECT_TRUE(p->done(fua));
    EXPECT_EQ(p->node(0).disk.data_stable[100000], fua);
    EXPECT_EQ(p->node(1).disk.data_stable[100000], fua);
    const auto flush = p->request(0, FrontOperation::flush, 0, 0);
    p->settle();
    EXPECT_TRUE(p->done(flush));
    EXPECT_TRUE(p->equal());
    EXPECT_EQ(p->node(0).disk.data_stable, p->node(1).disk.data_stable);
}

TEST_P(EveryOrder, nothing_is_acknowledged_until_the_leave_is_committed) {  // D2, G1
    const auto p = healthy(GetParam());
    p->store_writable = false;
    p->kill(1);
    p->disconnect();
    const auto tag = p->write(0, 8);
    p->settle(seconds(1));
    const auto frozen_write = p->write(0, 64);
    const auto read = p->request(0, FrontOperation::read, 512, 8);
    p->settle(seconds(1));
    EXPECT_FALSE(p->ended(tag));
    EXPECT_FALSE(p->ended(frozen_write));
    EXPECT_TRUE(p->done(read)) << "reads are served while the lease lasts";
    EXPECT_EQ(p->view(0).frozen, FreezeReason::peer_lost);
    p->store_writable = true;
    p->settle(seconds(1));
    EXPECT_TRUE(p->done(tag));
    EXPECT_EQ(p->store.record.generation.counter, 2U);
    EXPECT_EQ(p->view(0).generation.counter, 2U);
    EXPECT_FALSE(p->both_in_ack_set());
    EXPECT_GT(p->view(0).dirty_bytes, 0U);
}

TEST_P(EveryOrder, a_returned_peer_is_resynced_while_the_guest_writes_and_joins) {
    const auto p = healthy(GetParam());
    std::vector<std::uint64_t> writes;
    for (std::uint64_t i = 0; i < 20; ++i) writes.push_back(p->write(0, p->random.below(120000), 8));
    for (int i = 0; i < 30 && !p->events.empty(); ++i) p->one();
    p->cut_power(1);
    p->disconnect();
    p->settle(seconds(1));
    for (std::uint64_t i = 0; i < 20; ++i) writes.push_back(p->write(0, p->random.below(120000), 8));
    p->settle(seconds(1));
    for (const auto tag : writes) EXPECT_TRUE(p->done(tag));
    p->start(1, false);
    p->tell_all();
    p->connect();
    for (std::uint64_t i = 0; i < 30; ++i) {
        writes.push_back(p->write(0, p->random.below(120000), 8));
        for (int k = 0; k < 20 && !p->events.empty(); ++k) p->one();
    }
    p->settle(seconds(3));
    for (const auto tag : writes) EXPECT_TRUE(p->done(tag));
    EXPECT_TRUE(p->both_in_ack_set());
    EXPECT_EQ(p->view(0).dirty_bytes, 0U);
    EXPECT_EQ(p->view(1).local_state, ReplicaState::up_to_date);
    EXPECT_EQ(p->view(1).connection, ConnectionState::connected);
    EXPECT_TRUE(p->equal());
    const auto tag = p->write(0, 8);
    p->settle();
    EXPECT_TRUE(p->done(tag));
    EXPECT_TRUE(p->equal());
}

TEST_P(EveryOrder, a_lost_link_with_both_processes_alive_costs_no_resync) {
    const auto p = healthy(GetParam());
    p->store_writable = false;
    std::vector<std::uint64_t> writes;
    for (std::uint64_t i = 0; i < 20; ++i) writes.push_back(p->write(0, i * 32, 8));
    const auto flush = p->request(0, FrontOperation::flush, 0, 0);
    for (std::uint64_t i = 0; i < GetParam() * 3 && !p->events.empty(); ++i) p->one();
    p->connect();  // a new session between the same processes
    p->settle(seconds(2));
    for (const auto tag : writes) EXPECT_TRUE(p->done(tag));
    EXPECT_TRUE(p->done(flush));
    EXPECT_TRUE(p->equal());
    EXPECT_EQ(p->store.record.generation.counter, 1U);
}

TEST_P(EveryOrder, a_crashed_owner_returns_as_target_of_the_promoted_one) {  // W1, W2
    const auto p = healthy(GetParam());
    std::vector<std::uint64_t> writes;
    for (std::uint64_t i = 0; i < 20; ++i) writes.push_back(p->write(0, i * 32, 8));
    for (std::uint64_t i = 0; i < GetParam() * 4 && !p->events.empty(); ++i) p->one();
    p->cut_power(0);
    p->disconnect();
    p->promote_alone(1);
    p->settle(seconds(1));
    ASSERT_EQ(p->view(1).role, Role::primary);
    for (const auto tag : writes) {
        if (!p->done(tag)) continue;
        EXPECT_EQ(p->node(1).disk.read((tag - writes.front()) * 32), tag)
            << "an acknowledged write is on the survivor";
    }
    for (std::uint64_t i = 0; i < 10; ++i) p->write(1, 64 + i * 48, 8);
    p->settle();
    p->start(0, false);
    p->tell_all();
    p->connect();
    p->settle(seconds(3));
    EXPECT_TRUE(p->both_in_ack_set());
    EXPECT_TRUE(p->equal());
}

TEST_P(EveryOrder, a_restarted_owner_process_is_the_source_of_its_extents) {  // H38
    const auto p = healthy(GetParam());
    std::vector<std::uint64_t> writes;
    for (std::uint64_t i = 0; i < 20; ++i) writes.push_back(p->write(0, i * 32, 8));
    for (std::uint64_t i = 0; i < GetParam() * 4 && !p->events.empty(); ++i) p->one();
    p->kill(0);
    p->disconnect();
    p->settle();
    p->start(0);
    p->tell_all();
    p->connect();
    p->settle(seconds(4));
    EXPECT_TRUE(p->both_in_ack_set());
    EXPECT_EQ(p->view(0).role, Role::primary);
    EXPECT_TRUE(p->equal());
    const auto tag = p->write(0, 9);
    p->settle();
    EXPECT_TRUE(p->done(tag));
}

// A flush failed in the former process: the device forgot what it goes on showing. What such a source shows
// must not cease to be tracked before its own stable copy holds it.
TEST_P(EveryOrder, a_source_that_shows_what_it_has_forgotten_holds_it_again) {  // D3, F4, H38
    const auto p = healthy(GetParam());
    for (std::uint64_t i = 0; i < 20; ++i) p->write(0, i * 32, 8);
    for (std::uint64_t i = 0; i < GetParam() * 4 && !p->events.empty(); ++i) p->one();
    p->kill(0);
    p->disconnect();
    p->settle();
    p->node(0).disk.unflushed.clear();
    p->start(0);
    p->tell_all();
    p->connect();
    p->settle(seconds(4));
    ASSERT_TRUE(p->both_in_ack_set());
    const auto flushed = p->request(0, FrontOperation::flush, 0, 0);
    p->settle();
    ASSERT_TRUE(p->done(flushed));
    for (int i = 0; i < 2; ++i) {
        const auto& disk = p->node(i).disk;
        for (const auto& [sector, value] : disk.data) {
            const auto held = disk.data_stable.find(sector);
            EXPECT_EQ(held == disk.data_stable.end() ? 0 : held->second, value) << i << " sector " << sector;
        }
    }
}

TEST_P(EveryOrder, a_blank_replica_is_filled_and_joins) {  // G7
    Pair p(GetParam(), true);
    p.start(0);
    p.settle();
    p.tell_all();
    p.grant(0);
    p.settle();
    std::vector<std::uint64_t> writes;
    for (std::uint64_t i = 0; i < 20; ++i) writes.push_back(p.write(0, p.random.below(120000), 8));
    p.settle();
    for (const auto tag : writes) EXPECT_TRUE(p.done(tag));
    p.start(1);
    p.settle();
    p.tell_all();
    p.connect();
    p.settle(seconds(4));
    EXPECT_TRUE(p.both_in_ack_set());
    EXPECT_TRUE(p.equal());
}

// Its guest could not be moved otherwise: giving the lease back waits for the refusal.
TEST_P(EveryOrder, an_owner_whose_disk_failed_still_gives_its_epoch_back) {
    const auto p = healthy(GetParam());
    const std::uint64_t epoch = p->view(0).epoch;
    p->node(0).disk.fail_writes = true;
    p->write(0, 8);
    p->settle(seconds(1));
    ASSERT_EQ(p->view(0).local_state, ReplicaState::failed);
    p->step(0, RefuseEpoch{epoch});
    p->settle(seconds(1));
    ASSERT_TRUE(p->node(0).refused.has_value());
    EXPECT_EQ(*p->node(0).refused, epoch);
    EXPECT_EQ(p->view(0).role, Role::secondary);
}

// A clusterd that lags hands the record of before to a new process of blockd: the join whose outcome is open
// stays written (H37; seed 54881).
TEST_P(EveryOrder, a_record_of_before_does_not_undo_a_join_that_is_written) {
    const auto p = healthy(GetParam());
    const CommittedVolume before = p->store;
    p->kill(1);
    p->disconnect();
    p->write(0, 8);
    p->settle(seconds(1));
    ASSERT_EQ(p->store.record.generation.counter, 2U);
    p->store_writable = false;
    p->start(1);
    p->tell_all();
    p->connect();
    p->settle(seconds(3));
    const auto written = [&] {
        const auto a = p->node(1).disk.read_metadata(formats::kSuperblockA, formats::kPageBytes);
        const auto b = p->node(1).disk.read_metadata(formats::kSuperblockB, formats::kPageBytes);
        const auto chosen = formats::choose_superblock(std::span(a).first<formats::kPageBytes>(),
                                                       std::span(b).first<formats::kPageBytes>());
        return chosen ? std::optional(chosen->superblock) : std::nullopt;
    };
    ASSERT_TRUE(written() && written()->join_pending) << "the target is ready, the commit is refused";
    p->disconnect();
    p->kill(1);
    p->start(1);
    p->settle(seconds(1));
    p->step(1, CommittedRecordIn{before});
    p->settle(seconds(1));
    EXPECT_TRUE(written()->join_pending);
    EXPECT_FALSE(written()->in_ack_set);
    p->store_writable = true;
    p->tell_all();
    p->connect();
    p->settle(seconds(3));
    EXPECT_TRUE(p->both_in_ack_set());
    EXPECT_FALSE(written()->join_pending);
    EXPECT_TRUE(p->equal());
}

}  // namespace
}  // namespace gemel::replication
