// The control plane's stories in virtual time: two nodes without a witness. A story names what it shows.
#include <gtest/gtest.h>

#include "core/ha/tests/stories.hpp"

namespace gemel::ha {
namespace {

using namespace testing;

TEST(TwoVoters, OwnerLosesPowerTheOtherForcesAndTakesOver) {
    World world(2, false);
    prepare(world);
    const auto lineage = world.tables("node2").lineage_id();
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node2"); }))
        << world.host("node2").log.back();
    EXPECT_EQ(world.fenced, std::vector<std::string>{"node1"});
    EXPECT_NE(world.tables("node2").lineage_id(), lineage);
    // It comes back: its old store is set aside, it joins, and both are voters again.
    ASSERT_TRUE(world.until(seconds(90),
                            [&] {
                                return world.host("node2").group->voters.size() == 2 &&
                                       world.host("node1").on && world.node("node1").is_acting() &&
                                       acks(world, "node2").size() == 2;
                            }))
        << world.host("node1").log.back() << " / " << world.host("node2").log.back();
    EXPECT_EQ(world.host("node1").aside.size(), 1U);
    EXPECT_TRUE(world.until(seconds(10), [&] {
        const auto& cluster = world.tables("node1").cluster;
        return cluster && cluster->record.voters.size() == 2 && cluster->record.adding_voter.empty();
    }));
}

TEST(TwoVoters, H28AMemberOfTheStoreThatWasKilledIsStartedAgain) {
    World world(2, false);
    prepare(world);
    for (const auto* victim : {"node1", "node2"}) {
        world.host(victim).member_running = false;
        ASSERT_TRUE(world.until(seconds(10), [&] { return world.host(victim).member_running; })) << victim;
        ASSERT_TRUE(world.until(seconds(10), [&] { return world.node(victim).is_acting(); })) << victim;
        world.run(seconds(5));
    }
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(runs_only_on(world, "node1"));
}

TEST(TwoVoters, SurvivingOwnerFencesForcesAndGoesOn) {
    World world(2, false);
    prepare(world);
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(10), [&] {
        return acks(world, "node1") == std::vector<std::string>{"node1"};
    })) << world.host("node1").log.back();
    EXPECT_TRUE(runs_only_on(world, "node1"));
    EXPECT_EQ(world.started.size(), 1U);
}

TEST(TwoVoters, H1FullPartitionOneWinner) {
    World world(2, false);
    prepare(world);
    world.auto_power_on = false;
    world.host("node2").isolated = true;
    world.host("node1").store_cut = true;
    world.host("node2").store_cut = true;
    world.run(seconds(60));
    EXPECT_EQ(world.fenced, std::vector<std::string>{"node2"});  // node1 has the guest: it goes first
    EXPECT_TRUE(runs_only_on(world, "node1"));
}

TEST(TwoVoters, H27BootedAloneWaitsForItsPeer) {
    World world(2, false);
    prepare(world);
    world.auto_power_on = false;
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node2"); }));
    world.run(seconds(5));
    world.cut_power("node2");
    world.boot("node1");
    world.fenced.clear();
    world.run(seconds(120));
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(world.runners("web1").empty());
    EXPECT_FALSE(world.node("node1").has_standing());
    const auto status = world.node("node1").status();
    EXPECT_EQ(status.store.state, "waiting-for-peer");
    ASSERT_FALSE(status.problems.empty());
    // The current one returns: everything goes on there.
    world.boot("node2");
    ASSERT_TRUE(world.until(seconds(60), [&] { return runs_only_on(world, "node2"); }))
        << world.host("node2").log.back();
    ASSERT_TRUE(world.until(seconds(90), [&] { return world.node("node1").is_acting(); }))
        << world.host("node1").log.back();
}

TEST(TwoVoters, StartAloneNeedsTheNameAndAFence) {
    World world(2, false);
    prepare(world);
    world.cut_power("node1");
    world.cut_power("node2");
    world.auto_power_on = false;
    world.own_read_takes = milliseconds(2500);  // behind reads that wait for a quorum
    world.boot("node1");
    const auto early = world.ask("node1", StartAlone{"demo", true});
    ASSERT_FALSE(early);
    EXPECT_EQ(early.error().code, ErrorCode::unavailable) << early.error().message;
    world.run(seconds(10));
    EXPECT_FALSE(world.ask("node1", StartAlone{"other", true}));
    EXPECT_FALSE(world.ask("node1", StartAlone{"demo", false}));
    world.bmc_works = false;
    const auto failed = world.ask("node1", StartAlone{"demo", true}, seconds(30));
    ASSERT_TRUE(failed);
    EXPECT_EQ(failed->state, OperationState::failed);
    EXPECT_FALSE(world.node("node1").is_acting());
    world.bmc_works = true;
    const auto done = world.ask("node1", StartAlone{"demo", true}, seconds(30));
    ASSERT_TRUE(done);
    EXPECT_EQ(done->state, OperationState::succeeded) << done->error << world.host("node1").log.back();
    EXPECT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node1"); }))
        << world.host("node1").log.back();
    // The other one comes back with the older store: set aside, it joins.
    world.boot("node2");
    EXPECT_TRUE(world.until(seconds(90), [&] { return acks(world, "node1").size() == 2; }))
        << world.host("node2").log.back();
}

// node2 goes on without node1, dies, and node1 is started alone: two histories, node2 off.
void both_force(World& world) {
    prepare(world);
    world.auto_power_on = false;
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node2"); }));
    world.cut_power("node2");
    world.boot("node1");
    world.run(seconds(10));
    ASSERT_TRUE(world.ask("node1", StartAlone{"demo", true}, seconds(30)));
}

TEST(TwoVoters, H35BothForcedIsASplitBrainAndBothAreKept) {
    World world(2, false);
    both_force(world);
    ASSERT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node1"); }));
    world.boot("node2");
    world.run(seconds(30));
    EXPECT_EQ(world.node("node2").status().store.state, "split-brain");
    EXPECT_FALSE(runs_only_on(world, "node2"));
    EXPECT_TRUE(world.host("node2").aside.size() <= 1U);  // only the one from its own forcing
    EXPECT_NE(world.host("node2").group, nullptr);
    // The operator chooses one; the other joins it.
    EXPECT_EQ(world.node("node1").status().store.state, "split-brain");
    ASSERT_TRUE(world.ask("node1", StartAlone{"demo", true}, seconds(60)));
    ASSERT_TRUE(world.until(seconds(60), [&] { return acks(world, "node1").size() == 2; }))
        << world.host("node1").log.back() << " / " << world.host("node2").log.back();
    EXPECT_TRUE(world.until(seconds(60), [&] { return runs_only_on(world, "node1"); }));
    EXPECT_EQ(world.host("node2").aside.size(), 2U) << "its own forced store is kept";
    EXPECT_TRUE(world.until(seconds(60), [&] {
        return world.tables("node1").lineage_id() == world.tables("node2").lineage_id();
    }));
}

// A forced member meets the other one before it has read from its own log that it is alone, and etcd says
// that it was removed: that is no reason to give its history up (design note 0004).
TEST(TwoVoters, H35AForcedMemberThatIsToldItWasRemovedIsKept) {
    World world(2, false);
    both_force(world);
    ASSERT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node1"); }));
    world.own_read_takes = seconds(5);
    world.host("node2").starts_met = 2;
    world.boot("node2");
    world.run(seconds(40));
    EXPECT_EQ(world.node("node2").status().store.state, "split-brain");
    EXPECT_EQ(world.node("node1").status().store.state, "split-brain");
    EXPECT_LE(world.host("node2").aside.size(), 1U);  // only the one from its own forcing
    EXPECT_TRUE(world.host("node2").member_running);
    // It can be chosen.
    ASSERT_TRUE(world.ask("node2", StartAlone{"demo", true}, seconds(60)));
    EXPECT_TRUE(world.until(seconds(60), [&] {
        return world.tables("node1").lineage_id() == world.tables("node2").lineage_id();
    }));
    EXPECT_GE(world.host("node1").aside.size(), 1U);
}

// The one that joins the chosen history shows the moments before the choice until it has caught up. It took
// the present one for a later history, and set its good member aside (cluster_alone, twice at load).
TEST(TwoVoters, H35AMemberThatCatchesUpIsNotOfAnOlderHistory) {
    World world(2, false);
    both_force(world);
    ASSERT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node1"); }));
    world.host("node2").starts_met = 2;
    world.boot("node2");
    world.run(seconds(40));
    ASSERT_EQ(world.node("node2").status().store.state, "split-brain");
    const std::size_t aside = world.host("node2").aside.size();
    world.host("node2").catches_up = world.tables("node1").lineage->record;
    ASSERT_TRUE(world.ask("node1", StartAlone{"demo", true}, seconds(60)));
    world.run(seconds(20));
    world.host("node2").catches_up.reset();
    EXPECT_TRUE(world.until(seconds(60), [&] { return acks(world, "node1").size() == 2; }))
        << world.host("node1").log.back() << " / " << world.host("node2").log.back();
    EXPECT_EQ(world.host("node2").aside.size(), aside + 1) << "its own forced store, and no other";
}

// etcd has removed the witness, the record does not say so yet, and who was to write it loses its power: one
// of two voters is left, whatever the record says.
TEST(TwoVoters, ARemovedWitnessIsNoVoterBeforeTheRecordSaysSo) {
    World world(2, true);
    prepare(world);
    world.witness_on = false;
    const auto removed = [&] {
        const auto& record = world.tables("node1").cluster->record;
        return record.removing_voter == "witness" && !world.host("node1").group->voters.contains("witness");
    };
    ASSERT_TRUE(world.until(seconds(700), removed));
    const std::string former = world.node("node1").is_coordinator() ? "node1" : "node2";
    const std::string other = former == "node1" ? "node2" : "node1";
    world.auto_power_on = false;
    world.cut_power(former);
    const auto alone = [&] { return world.tables(other).cluster->record.voters.size() == 1; };
    EXPECT_TRUE(world.until(seconds(60), alone)) << world.host(other).log.back();
    EXPECT_TRUE(world.until(seconds(30), [&] { return runs_only_on(world, other); }));
}

// Chosen on both sides at the same moment: nothing is chosen, no store is set aside, and it can be said
// again.
TEST(TwoVoters, BothHistoriesChosenAtOnceIsNoChoice) {
    World world(2, false);
    both_force(world);
    world.boot("node2");
    const auto split = [&](const char* name) {
        return world.node(name).status().store.state == "split-brain";
    };
    ASSERT_TRUE(world.until(seconds(30), [&] { return split("node1") && split("node2"); }));
    for (const char* name : {"node1", "node2"}) {
        const auto id = OperationId::from_random(9, name[4] == '1' ? 1 : 2);
        world.host(name).inbox.push_back(ApiRequest{1, id, StartAlone{"demo", true}});
    }
    world.run(seconds(10));
    EXPECT_TRUE(split("node1") && split("node2"));
    EXPECT_NE(world.host("node1").group, nullptr);
    EXPECT_NE(world.host("node2").group, nullptr);
    ASSERT_TRUE(world.ask("node2", StartAlone{"demo", true}, seconds(60)));
    EXPECT_TRUE(world.until(seconds(60), [&] { return acks(world, "node2").size() == 2; }))
        << world.host("node1").log.back() << " / " << world.host("node2").log.back();
}

TEST(TwoVoters, H36PausedNodeHasNoStanding) {
    World world(2, false);
    prepare(world);
    EXPECT_TRUE(world.node("node2").has_standing());
    Outputs outputs;
    world.run(seconds(1));
    const Instant later = world.now() + seconds(2);
    world.node("node2").step(later, Tick{}, outputs);
    EXPECT_FALSE(world.node("node2").has_standing());
}

}  // namespace
}  // namespace gemel::ha
