// The owner's own disk fails (promise D15, scenarios K1 to K3): one block that cannot be read, or all of it.
// Over several seeds each: every order of completions must lead to the same end.
#include <gtest/gtest.h>

#include "core/replication/tests/harness.hpp"

namespace gemel::replication {
namespace {

using harness::healthy;
using harness::Pair;

class LocalDisk : public testing::TestWithParam<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, LocalDisk, testing::Range<std::uint64_t>(1, 41));

std::uint64_t read(Pair& p, std::uint64_t sector, std::uint32_t sectors = 8) {
    return p.request(0, FrontOperation::read, sector, sectors);
}

std::uint64_t shown(Pair& p, std::uint64_t tag) {
    return p.node(0).payloads.at(static_cast<PayloadHandle>(tag)).front();
}

bool noticed(Pair& p, int node, const std::string& text) {
    return std::ranges::any_of(p.node(node).notices,
                               [&](const std::string& n) { return n.find(text) != std::string::npos; });
}

// The disk of a takes no write any more, and the store knows.
std::unique_ptr<Pair> over_network(std::uint64_t seed) {
    auto p = healthy(seed);
    p->node(0).disk.fail_writes = true;
    const auto first = p->write(0, 8);
    p->settle(seconds(2));
    EXPECT_TRUE(p->done(first)) << "the guest goes on";
    EXPECT_EQ(p->store.record.replicas[0].state, ReplicaState::failed);
    EXPECT_FALSE(p->store.record.replicas[0].in_ack_set);
    EXPECT_TRUE(p->store.record.replicas[1].in_ack_set);
    return p;
}

TEST_P(LocalDisk, an_unreadable_block_is_read_from_the_peer_and_rewritten) {  // K1
    const auto p = healthy(GetParam());
    const auto written = p->write(0, 8);
    p->settle();
    p->node(0).disk.bad = {9};
    std::vector<std::uint64_t> reads;
    for (int i = 0; i < 3; ++i) reads.push_back(read(*p, 8));
    const auto over = p->write(0, 12, 1);  // waits, or is there before the repair
    p->settle();
    for (const auto tag : reads) {
        ASSERT_TRUE(p->done(tag));
        EXPECT_EQ(shown(*p, tag), written);
    }
    EXPECT_TRUE(p->done(over));
    EXPECT_TRUE(p->node(0).disk.bad.empty()) << "the block was rewritten";
    EXPECT_TRUE(p->equal());
    EXPECT_EQ(p->view(0).local_state, ReplicaState::up_to_date);
    EXPECT_GE(p->view(0).media_errors, 1U);
}

TEST_P(LocalDisk, a_block_that_fails_again_after_its_repair_takes_the_disk_out) {  // K1
    const auto p = healthy(GetParam());
    const auto written = p->write(0, 8);
    p->settle();
    for (int i = 0; i < 2; ++i) {
        p->node(0).disk.bad = {8};
        const auto tag = read(*p, 8);
        p->settle(seconds(2));
        ASSERT_TRUE(p->done(tag));
        EXPECT_EQ(shown(*p, tag), written);
    }
    EXPECT_EQ(p->store.record.replicas[0].state, ReplicaState::failed);
    EXPECT_EQ(p->view(0).frozen, FreezeReason::none);
}

TEST_P(LocalDisk, only_when_both_copies_are_unreadable_the_guest_sees_it) {  // K3
    const auto p = healthy(GetParam());
    p->write(0, 8);
    p->settle();
    p->node(0).disk.bad = p->node(1).disk.bad = {8};
    const auto lost = read(*p, 8);
    const auto beside = read(*p, 16);
    p->settle();
    EXPECT_EQ(p->completed.at(lost), IoStatus::io_error);
    EXPECT_TRUE(p->done(beside));
    const auto again = p->write(0, 8);  // new data heals both
    p->settle();
    EXPECT_TRUE(p->done(again));
    EXPECT_TRUE(p->equal());
    EXPECT_EQ(p->view(0).connection, ConnectionState::connected);
}

TEST_P(LocalDisk, an_unreadable_block_waits_for_a_lost_peer_and_for_its_leave) {
    for (const bool returns : {true, false}) {
        const auto p = healthy(GetParam());
        const auto written = p->write(0, 8);
        p->settle();
        p->store_writable = false;
        p->disconnect();
        p->node(0).disk.bad = {8};
        const auto tag = read(*p, 8);
        p->settle(seconds(1));
        EXPECT_FALSE(p->ended(tag)) << "the peer counts and may have the block";
        if (returns) p->connect();
        p->store_writable = true;
        p->settle(seconds(2));
        ASSERT_TRUE(p->ended(tag));
        EXPECT_EQ(p->completed.at(tag), returns ? IoStatus::ok : IoStatus::io_error);
        if (returns) {
            EXPECT_EQ(shown(*p, tag), written);
        }
    }
}

TEST_P(LocalDisk, a_peer_of_an_older_version_is_not_asked) {
    auto p = std::make_unique<Pair>(GetParam());
    p->peers_serve_reads = false;
    p->start(0);
    p->start(1);
    p->settle();
    p->tell_all();
    p->connect();
    p->settle();
    p->grant(0);
    p->settle();
    p->node(0).disk.bad = {8};
    const auto tag = read(*p, 8);
    p->settle();
    EXPECT_EQ(p->completed.at(tag), IoStatus::io_error);
    p->node(0).disk.fail_writes = true;
    const auto write = p->write(0, 8);
    p->settle(seconds(2));
    EXPECT_FALSE(p->ended(write)) << "frozen until the guest is moved";
}

TEST_P(LocalDisk, the_guest_goes_on_over_the_network) {  // K2
    const auto p = over_network(GetParam());
    EXPECT_TRUE(noticed(*p, 0, "served from the peer"));
    EXPECT_EQ(p->view(0).frozen, FreezeReason::none);
    EXPECT_EQ(p->view(0).local_state, ReplicaState::failed);
    const auto write = p->write(0, 64);
    const auto fua = p->write(0, 72, 8, true);
    p->settle();
    const auto tag = read(*p, 64);
    const auto flush = p->request(0, FrontOperation::flush, 0, 0);
    p->settle();
    EXPECT_TRUE(p->done(fua));
    EXPECT_TRUE(p->done(flush));
    ASSERT_TRUE(p->done(tag));
    EXPECT_EQ(shown(*p, tag), write);
    EXPECT_EQ(p->node(1).disk.data_stable[64], write);
    EXPECT_EQ(p->node(1).disk.data_stable[72], fua);
    EXPECT_EQ(p->node(0).disk.read(64), 0U) << "the failed disk is not written";
}

TEST_P(LocalDisk, nothing_is_acknowledged_before_the_failure_is_committed) {  // D2
    const auto p = healthy(GetParam());
    p->store_writable = false;
    p->node(0).disk.fail_writes = true;
    const auto write = p->write(0, 8);
    const auto flush = p->request(0, FrontOperation::flush, 0, 0);
    p->settle(seconds(2));
    const auto tag = read(*p, 64);
    p->settle();
    EXPECT_FALSE(p->ended(write));
    EXPECT_FALSE(p->ended(tag));
    EXPECT_EQ(p->view(0).frozen, FreezeReason::local_failed);
    p->store_writable = true;
    p->settle(seconds(2));
    EXPECT_TRUE(p->done(write));
    EXPECT_TRUE(p->done(flush));
    EXPECT_TRUE(p->done(tag));
}

TEST_P(LocalDisk, a_failed_flush_lets_the_guest_go_on_over_the_network) {  // F4, K2
    const auto p = healthy(GetParam());
    const auto write = p->write(0, 8);
    p->settle();
    p->node(0).disk.fail_flushes = true;
    const auto flush = p->request(0, FrontOperation::flush, 0, 0);
    p->settle(seconds(2));
    EXPECT_TRUE(p->done(flush));
    EXPECT_EQ(p->node(1).disk.data_stable[8], write);
    EXPECT_EQ(p->store.record.replicas[0].state, ReplicaState::failed);
}

// a goes on alone, with something written that is not flushed.
std::unique_ptr<Pair> alone(std::uint64_t seed) {
    auto p = healthy(seed);
    p->kill(1);
    p->disconnect();
    p->settle(seconds(5));
    p->write(0, 8);
    p->settle();
    return p;
}

// The only copy: the flush that failed let the device forget what was answered. The next process of the same
// life must know, also where the first attempt to write that down failed like the flush (seed 97741, D1,
// D14).
TEST_P(LocalDisk, that_the_only_copy_failed_outlives_its_process) {
    for (const bool fails : {false, true}) {
        const auto p = alone(GetParam());
        p->node(0).disk.fail_flushes = fails;
        p->node(0).disk.fail_superblocks = fails ? 1 : 0;
        const auto flush = p->request(0, FrontOperation::flush, 0, 0);
        p->settle(seconds(5));
        EXPECT_EQ(p->completed.at(flush), fails ? IoStatus::io_error : IoStatus::ok);
        p->kill(0);
        p->settle();
        p->node(0).disk.fail_flushes = false;
        p->start(0);
        p->settle();
        p->tell_all();
        p->step(0, StoreRenewal{p->now, p->store});
        p->settle(seconds(5));
        EXPECT_EQ(p->view(0).role, fails ? Role::secondary : Role::primary);
    }
}

// Each attempt may tear the slot it writes: none of them may touch the slot that is whole (seed 2788, C12).
TEST_P(LocalDisk, a_superblock_that_cannot_be_written_leaves_the_one_before) {
    const auto p = alone(GetParam());
    p->node(0).disk.fail_flushes = true;
    p->node(0).disk.fail_superblocks = 100;
    p->request(0, FrontOperation::flush, 0, 0);
    p->settle(seconds(5));
    EXPECT_LT(p->node(0).disk.fail_superblocks, 98);
    p->kill(0);
    p->settle();
    p->node(0).disk.fail_flushes = false;
    p->node(0).disk.fail_superblocks = 0;
    p->start(0);
    p->settle();
    EXPECT_TRUE(p->view(0).attached);
}

TEST_P(LocalDisk, a_disk_that_fails_while_it_is_attached_is_not_asked_without_end) {
    const auto p = healthy(GetParam());
    p->write(0, 8);
    p->settle();
    p->kill(0);
    p->disconnect();
    p->node(0).disk.fail_superblocks = 100;
    p->start(0);
    p->settle(seconds(5));
    EXPECT_FALSE(p->view(0).attached);
    EXPECT_GT(p->node(0).engine->next_deadline(), p->now) << "it would be called again at once, for ever";
}

TEST_P(LocalDisk, over_the_network_a_lost_peer_freezes) {
    const auto p = over_network(GetParam());
    p->disconnect();
    const auto write = p->write(0, 64);
    const auto tag = read(*p, 8);
    p->settle(seconds(2));
    EXPECT_FALSE(p->ended(write));
    EXPECT_FALSE(p->ended(tag));
    EXPECT_EQ(p->view(0).frozen, FreezeReason::peer_lost);
    p->connect();
    p->settle(seconds(1));
    EXPECT_TRUE(p->done(write));
    EXPECT_TRUE(p->done(tag));
}

TEST_P(LocalDisk, over_the_network_a_peer_that_rebooted_may_have_forgotten) {  // rule 7, H30
    for (const bool flushed : {true, false}) {
        const auto p = over_network(GetParam());
        const auto write = p->write(0, 64);
        p->settle();
        ASSERT_TRUE(p->done(write));
        if (flushed) {
            p->request(0, FrontOperation::flush, 0, 0);
            p->settle();
        }
        p->cut_power(1);
        p->disconnect();
        p->settle();
        p->start(1, false);
        p->settle();
        p->tell_all();
        p->connect();
        p->settle(seconds(1));
        const auto tag = read(*p, 64);
        p->settle(seconds(1));
        ASSERT_TRUE(p->ended(tag));
        EXPECT_EQ(p->completed.at(tag), flushed ? IoStatus::ok : IoStatus::io_error);
        EXPECT_EQ(p->view(0).frozen, flushed ? FreezeReason::none : FreezeReason::disk_lost);
        if (flushed) {
            EXPECT_EQ(shown(*p, tag), write);
        }
        if (flushed) continue;
        p->grant(1);  // the guest begins anew where the copy is
        p->settle(seconds(1));
        EXPECT_EQ(p->view(0).role, Role::secondary);
        EXPECT_EQ(p->view(1).frozen, FreezeReason::none);
    }
}

// What was in flight is sent again, and what was stable by itself is not lost.
TEST_P(LocalDisk, over_the_network_only_what_was_answered_and_unstable_is_lost_by_a_reboot) {
    const auto p = over_network(GetParam());
    p->request(0, FrontOperation::flush, 0, 0);
    p->settle();
    const auto fua = p->write(0, 64, 8, true);
    p->settle();
    ASSERT_TRUE(p->done(fua));
    p->cut_power(1);
    p->disconnect();
    const auto write = p->write(0, 72);
    p->settle();
    EXPECT_FALSE(p->ended(write));
    p->start(1, false);
    p->settle();
    p->tell_all();
    p->connect();
    p->settle(seconds(1));
    EXPECT_TRUE(p->done(write));
    EXPECT_EQ(p->view(0).frozen, FreezeReason::none);
    const auto tag = read(*p, 64);
    p->settle();
    ASSERT_TRUE(p->done(tag));
    EXPECT_EQ(shown(*p, tag), fua);
}

// It cannot know what the process before it answered without a flush, nor whether the peer rebooted since.
TEST_P(LocalDisk, a_new_process_serves_nothing_over_the_network_nor_after_its_disk_was_filled) {  // D12, K2
    for (const bool works_again : {false, true}) {
        const auto p = over_network(GetParam());
        const auto write = p->write(0, 64);
        p->settle();
        ASSERT_TRUE(p->done(write));
        p->kill(0);
        p->disconnect();
        p->settle();
        p->node(0).disk.fail_writes = !works_again;
        p->start(0);
        p->settle();
        p->tell_all();
        p->connect();
        p->settle(seconds(5));
        EXPECT_EQ(p->view(0).role, Role::secondary);
        EXPECT_EQ(p->completed.at(read(*p, 64)), IoStatus::refused);
        EXPECT_FALSE(p->store.record.replicas[0].in_ack_set) << "nobody proposes it while its life owns";
        EXPECT_EQ(p->view(0).attached, works_again);
        p->step(0, RefuseEpoch{p->store.record.epoch});
        p->settle(seconds(1));
        EXPECT_EQ(p->node(0).refused, p->store.record.epoch) << "the lease can be given back";
        p->grant(1);
        p->settle(seconds(5));
        EXPECT_EQ(p->view(1).frozen, FreezeReason::none);
        EXPECT_EQ(p->both_in_ack_set(), works_again);
        EXPECT_EQ(p->equal(), works_again);
    }
}

TEST_P(LocalDisk, a_disk_that_returns_is_filled_from_end_to_end) {
    const auto p = over_network(GetParam());
    for (std::uint64_t i = 0; i < 20; ++i) p->write(0, i * 4096);
    p->request(0, FrontOperation::flush, 0, 0);
    p->settle();
    p->grant(1);  // the guest moves; its node's disk was replaced by a working one with the old bytes
    p->kill(0);
    p->disconnect();
    p->node(0).disk.fail_writes = false;
    p->settle();
    p->start(0);
    p->settle();
    p->tell_all();
    p->connect();
    p->settle(seconds(4));
    EXPECT_TRUE(p->both_in_ack_set());
    EXPECT_TRUE(p->equal());
    EXPECT_TRUE(noticed(*p, 1, "source-full"));
}

// The disk died with the process, and the record counts both. Its own lease may be given back; another's is
// never refused by a replica that counts and keeps nothing.
TEST_P(LocalDisk, a_replica_that_cannot_be_attached_gives_back_its_own_lease_only) {  // C2, C12
    for (const bool own : {true, false}) {
        const auto p = healthy(GetParam());
        const int node = own ? 0 : 1;
        p->store_writable = false;  // it goes on counting
        p->kill(node);
        p->disconnect();
        p->node(node).disk.fail_writes = true;
        p->start(node);
        p->settle();
        p->tell_all();
        p->settle(milliseconds(200));
        ASSERT_FALSE(p->view(node).attached);
        p->step(node, RefuseEpoch{p->store.record.epoch});
        p->settle(milliseconds(200));
        EXPECT_EQ(p->node(node).refused.value_or(0), own ? p->store.record.epoch : 0);
    }
}

// The owner's disk failed, nobody could commit that, and its process is another one now: the other copy must
// go on, but while the owner's node lives nobody proposes that. The lease is given back (seeds 1925 and
// 3786).
TEST_P(LocalDisk, a_failure_that_was_never_committed_gives_the_lease_back) {  // D1, C12
    const auto p = healthy(GetParam());
    p->write(0, 8);
    p->settle();
    p->store_writable = false;
    p->node(0).disk.fail_writes = true;
    p->write(0, 16);
    p->settle(milliseconds(200));
    ASSERT_EQ(p->view(0).frozen, FreezeReason::local_failed);
    p->node(0).disk.fail_writes = false;
    p->disconnect();
    for (int process = 0; process < 2; ++process) {
        p->kill(0);
        p->start(0);
        p->settle();
        p->tell_all();
    }
    p->store_writable = true;
    p->connect();
    p->settle(seconds(5));
    EXPECT_TRUE(noticed(*p, 1, "leave-then-source"));
    EXPECT_EQ(p->view(0).frozen, FreezeReason::disk_lost);
    EXPECT_EQ(p->view(0).role, Role::secondary);
    EXPECT_TRUE(p->both_in_ack_set());
    p->step(0, RefuseEpoch{p->store.record.epoch});
    p->settle(seconds(1));
    EXPECT_EQ(p->node(0).refused, p->store.record.epoch);
    p->grant(1);
    p->settle(seconds(5));
    EXPECT_EQ(p->view(1).frozen, FreezeReason::none);
    EXPECT_TRUE(p->both_in_ack_set());
    EXPECT_TRUE(p->equal());
}

// Both booted anew and one's disk fails before they have compared: the other may not know that on its own,
// and it must not wait for ever for a node that answers.
TEST_P(LocalDisk, a_disk_that_failed_before_the_first_handshake_leaves_by_the_others_proposal) {
    for (const bool owned : {true, false}) {
        const auto p = healthy(GetParam());
        const auto kept = p->write(0, 8, 8, true);
        p->settle();
        ASSERT_TRUE(p->done(kept));
        p->disconnect();
        p->cut_power(0);
        p->cut_power(1);
        p->start(0, false);
        p->start(1, false);
        if (owned) p->grant(0);
        if (!owned) p->store.record.owner.reset();
        if (!owned) ++p->store.revision;
        p->node(1).disk.fail_writes = true;
        p->tell_all();
        p->step(1, RefuseEpoch{1});  // a metadata write
        p->settle(seconds(1));
        ASSERT_EQ(p->view(1).local_state, ReplicaState::failed);
        p->connect();
        p->settle(seconds(3));
        EXPECT_TRUE(p->store.record.replicas[0].in_ack_set);
        EXPECT_FALSE(p->store.record.replicas[1].in_ack_set);
        EXPECT_EQ(p->store.record.replicas[1].state, ReplicaState::failed);
        EXPECT_EQ(p->view(1).connection, ConnectionState::connecting) << "sent away";
        if (!owned) continue;
        EXPECT_EQ(p->view(0).frozen, FreezeReason::none);
        const auto tag = read(*p, 8);
        p->settle();
        ASSERT_TRUE(p->done(tag));
        EXPECT_EQ(shown(*p, tag), kept);
    }
}

}  // namespace
}  // namespace gemel::replication
