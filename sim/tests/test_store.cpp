// The store model must be etcd where it matters: what is decided stays, what is not known to be decided may
// go, and clients learn less than what happened.
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sim/world/store.hpp"

namespace gemel::sim {
namespace {

using cluster::Compare;
using cluster::CompareKind;
using cluster::KeyChange;
using cluster::KeyValue;
using cluster::Put;
using cluster::Txn;
using cluster::TxnOutcome;

class StoreTest : public ::testing::Test {
  protected:
    StoreTest() : network(tasks, trace, Prng(3)), store(tasks, trace, counters, network, Prng(4)) {}

    void run(Duration duration) { queue.run_until(queue.now() + duration); }
    void up(const std::vector<std::uint32_t>& voters) {
        store.bootstrap(voters);
        for (const std::uint32_t node : voters) store.start(node);
        run(seconds(4));
    }
    static Txn put(const std::string& key, const std::string& value) {
        return Txn{{}, {Put{key, value, 0}}, {}};
    }
    // submits and runs until there is an answer
    TxnOutcome commit(std::uint32_t node, const Txn& txn) {
        std::optional<TxnOutcome> outcome;
        store.submit(node, txn, [&](TxnOutcome o, std::uint64_t) { outcome = o; });
        for (int i = 0; i < 400 && !outcome; ++i) run(milliseconds(10));
        return outcome.value_or(TxnOutcome::unknown);
    }
    std::string value(std::uint32_t node, const std::string& key) {
        std::string text = "?";
        store.read(node, {key}, false, [&](bool ok, std::uint64_t, std::vector<KeyValue> values) {
            text = !ok ? "no quorum" : values.empty() ? "none" : values[0].value;
        });
        run(seconds(3));
        return text;
    }

    EventQueue queue;
    Trace trace{false};
    Tasks tasks{queue};
    Counters counters;
    Network network;
    StoreModel store;
};

TEST_F(StoreTest, ThreeVotersCommitAndSurviveOne) {
    up({0, 1, 2});
    EXPECT_EQ(commit(0, put("a", "1")), TxnOutcome::committed);
    store.stop(2, true);
    run(seconds(3));
    EXPECT_EQ(commit(1, put("a", "2")), TxnOutcome::committed);
    EXPECT_EQ(value(0, "a"), "2");
    store.stop(1, true);
    run(seconds(3));
    EXPECT_EQ(commit(0, put("a", "3")), TxnOutcome::unknown);
    EXPECT_EQ(value(0, "a"), "no quorum");
}

TEST_F(StoreTest, ComparesAreByRevisionAndValue) {
    up({0});
    ASSERT_EQ(commit(0, put("a", "1")), TxnOutcome::committed);
    Txn if_new = put("a", "2");
    if_new.compares.push_back(Compare{"a", CompareKind::mod_revision, 0, ""});
    EXPECT_EQ(commit(0, if_new), TxnOutcome::compare_failed);
    Txn if_one = put("a", "2");
    if_one.compares.push_back(Compare{"a", CompareKind::value, 0, "1"});
    EXPECT_EQ(commit(0, if_one), TxnOutcome::committed);
    EXPECT_EQ(commit(0, if_one), TxnOutcome::compare_failed);
    EXPECT_EQ(value(0, "a"), "2");
}

TEST_F(StoreTest, ALeaderThatDiesIsReplacedAndNothingCommittedIsLost) {
    up({0, 1, 2});
    ASSERT_EQ(commit(0, put("a", "1")), TxnOutcome::committed);
    const auto leader = store.working_leader();
    ASSERT_TRUE(leader);
    store.stop(*leader, true);
    run(seconds(4));
    const auto next = store.working_leader();
    ASSERT_TRUE(next);
    EXPECT_NE(*next, *leader);
    EXPECT_EQ(value(*next, "a"), "1");
    store.start(*leader);
    run(seconds(3));
    EXPECT_EQ(value(*leader, "a"), "1");
}

// The one that alone cannot hear the leader does not depose it, and reads what is decided through a member
// that has a leader (scenarios G3, H29).
TEST_F(StoreTest, AMemberThatAloneLostTheLeaderElectsNobody) {
    up({0, 1, 2});
    const auto leader = store.working_leader();
    ASSERT_TRUE(leader);
    const std::uint32_t parted = (*leader + 1) % 3;
    network.cut_both_ways(Cable::control, *leader, parted, true);
    run(seconds(6));
    EXPECT_EQ(store.working_leader(), leader);
    EXPECT_FALSE(store.leader_of(parted));
    EXPECT_EQ(commit(parted, put("a", "1")), TxnOutcome::committed);
    EXPECT_EQ(value(parted, "a"), "1");
}

// A former leader that is heard by one voter only must not answer reads: the others have gone on without it.
TEST_F(StoreTest, AFormerLeaderConfirmsNoRead) {
    up({0, 1, 2});
    const auto former = store.working_leader();
    ASSERT_TRUE(former);
    const std::uint32_t second = (*former + 1) % 3;
    const std::uint32_t third = (*former + 2) % 3;
    store.pause(*former, true);
    while (!store.working_leader()) run(milliseconds(10));
    ASSERT_EQ(commit(second, put("a", "later")), TxnOutcome::committed);
    const std::uint32_t next = *store.working_leader();
    network.cut_both_ways(Cable::control, *former, next, true);
    store.pause(*former, false);
    EXPECT_TRUE(store.leader_of(*former) == former);  // it has heard nothing yet
    EXPECT_NE(value(*former, "a"), "none");
    EXPECT_EQ(value(next == second ? third : second, "a"), "later");
    EXPECT_EQ(store.working_leader(), next);
}

// Scenario H34: with two voters the survivor has stored the entry, but never learned that it was committed.
TEST_F(StoreTest, ForcingDropsWhatTheSurvivorDidNotKnowToBeCommitted) {
    up({0, 1});
    bool dropped = false;
    for (int attempt = 0; attempt < 30 && !dropped; ++attempt) {
        const auto leader = store.working_leader();
        ASSERT_TRUE(leader);
        const std::uint32_t other = 1 - *leader;
        const std::string wanted = std::to_string(attempt);
        std::optional<TxnOutcome> outcome;
        store.submit(*leader, put("a", wanted), [&](TxnOutcome o, std::uint64_t) { outcome = o; });
        while (!outcome) queue.run_one();
        ASSERT_EQ(*outcome, TxnOutcome::committed);
        store.stop(*leader, true);  // before its next message
        const bool stored = store.directory(other)->log.size() > store.directory(other)->commit;
        ASSERT_TRUE(store.force_prepare(other, put("lineage", wanted)));
        ASSERT_TRUE(store.force_activate(other));
        run(seconds(3));
        dropped = stored && value(other, "a") != wanted;
        // back to two voters
        store.set_aside(*leader);
        store.change_member(other, StoreEntry::Kind::add_learner, 0, *leader, [](bool) {});
        run(seconds(1));
        ASSERT_TRUE(store.join(*leader));
        run(seconds(2));
        store.change_member(other, StoreEntry::Kind::promote, store.directory(*leader)->member_id, *leader,
                            [](bool) {});
        run(seconds(3));
    }
    EXPECT_TRUE(dropped);
}

TEST_F(StoreTest, AForcedMemberWorksAloneAndTheOtherIsRejected) {
    up({0, 1});
    ASSERT_EQ(commit(0, put("a", "1")), TxnOutcome::committed);
    run(seconds(1));
    store.stop(1, true);
    run(seconds(3));
    EXPECT_EQ(commit(0, put("a", "2")), TxnOutcome::unknown);
    ASSERT_TRUE(store.force_prepare(0, put("lineage", "new")));
    ASSERT_TRUE(store.force_activate(0));
    run(seconds(3));
    EXPECT_EQ(value(0, "lineage"), "new");
    EXPECT_EQ(value(0, "a"), "1");
    EXPECT_EQ(commit(0, put("a", "3")), TxnOutcome::committed);
    store.start(1);
    run(seconds(3));
    EXPECT_TRUE(store.rejected(1));
    // added again with an empty directory
    store.set_aside(1);
    bool added = false;
    store.change_member(0, StoreEntry::Kind::add_learner, 0, 1, [&](bool ok) { added = ok; });
    run(seconds(1));
    ASSERT_TRUE(added);
    ASSERT_TRUE(store.join(1));
    run(seconds(2));
    ASSERT_TRUE(store.learner_ready(1));
    bool promoted = false;
    store.change_member(0, StoreEntry::Kind::promote, store.directory(1)->member_id, 1,
                        [&](bool ok) { promoted = ok; });
    run(seconds(1));
    EXPECT_TRUE(promoted);
    EXPECT_EQ(value(1, "a"), "3");
    store.stop(0, true);
    run(seconds(3));
    EXPECT_EQ(value(1, "a"), "no quorum");
}

TEST_F(StoreTest, WatchesShowEveryChangeInOrderAndEndWhenTheMemberDoes) {
    up({0, 1, 2});
    std::vector<std::string> seen;
    bool lost = false;
    store.watch(
        0, store.directory(0)->state.revision,
        [&](std::uint64_t, std::vector<KeyChange> changes) {
            for (const KeyChange& change : changes) seen.push_back(change.value.value_or("gone"));
        },
        [&] { lost = true; });
    for (int i = 0; i < 5; ++i) ASSERT_EQ(commit(1, put("a", std::to_string(i))), TxnOutcome::committed);
    Txn remove;
    remove.deletes = {"a"};
    ASSERT_EQ(commit(1, remove), TxnOutcome::committed);
    run(seconds(1));
    EXPECT_EQ(seen, (std::vector<std::string>{"0", "1", "2", "3", "4", "gone"}));
    EXPECT_FALSE(lost);
    store.stop(0, false);
    run(seconds(1));
    EXPECT_TRUE(lost);
}

TEST_F(StoreTest, ALeaseThatIsNotRenewedTakesItsKeysAlong) {
    up({0, 1, 2});
    std::uint64_t lease = 0;
    store.grant_lease(0, 3, [&](std::uint64_t id) { lease = id; });
    run(seconds(1));
    ASSERT_NE(lease, 0U);
    Txn elect{{}, {Put{"coordinator", "node1", lease}}, {}};
    ASSERT_EQ(commit(0, elect), TxnOutcome::committed);
    for (int i = 0; i < 4; ++i) {
        store.keep_alive(0, lease, [](bool) {});
        run(seconds(2));
    }
    EXPECT_EQ(value(0, "coordinator"), "node1");
    run(seconds(4));
    EXPECT_EQ(value(0, "coordinator"), "none");
}

TEST_F(StoreTest, ALostReplyDoesNotSayWhatHappened) {
    up({0});
    store.set_lost_replies(100);
    EXPECT_EQ(commit(0, put("a", "1")), TxnOutcome::unknown);
    store.set_lost_replies(0);
    EXPECT_EQ(value(0, "a"), "1");
}

}  // namespace
}  // namespace gemel::sim
