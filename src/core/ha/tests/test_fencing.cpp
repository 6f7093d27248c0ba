// Fencing in virtual time: who is fenced, asked, vouched for by the operator, powered on again, and what
// makes a proof void. Not in it: two voters (test_two_voters.cpp).
#include <gtest/gtest.h>

#include "core/ha/tests/stories.hpp"

namespace gemel::ha {
namespace {

using namespace testing;

void cut_off(World& world, const std::string& name, bool cut) {
    world.host(name).isolated = world.host(name).store_cut = cut;
}

FenceState fence_of_node1(World& world) {
    return world.tables("node2").nodes.at("node1").record.fence.state;
}

// node1, with the guest, is cut off and requested; its board does not answer.
void request_without_a_board(World& world) {
    prepare(world);
    world.bmc_works = false;
    cut_off(world, "node1", true);
    ASSERT_TRUE(world.until(seconds(30), [&] { return fence_of_node1(world) == FenceState::requested; }));
}

TEST(Witness, H3BmcDeadNothingStartsUntilTheOperatorVouches) {
    World world(2, true);
    prepare(world);
    world.bmc_works = false;
    world.cut_power("node1");
    world.run(seconds(60));
    EXPECT_TRUE(world.runners("web1").empty());
    const auto early = world.ask("node2", ConfirmDown{"node1", "node1"});
    EXPECT_FALSE(early);
    world.run(seconds(65));
    const Instant asked = world.now();
    const auto done = world.ask("node2", ConfirmDown{"node1", "node1"}, seconds(90));
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(done->state, OperationState::succeeded) << done->error;
    EXPECT_GE((world.now() - asked).milliseconds(), 30000);
    EXPECT_TRUE(world.until(seconds(10), [&] { return runs_only_on(world, "node2"); }));
}

// Its board failed, and then it answers: at its next silence it is requested anew (H11).
TEST(Witness, ARequestToFenceIsWithdrawnWhenTheVictimAnswers) {
    World world(2, true);
    request_without_a_board(world);
    world.run(seconds(2));
    cut_off(world, "node1", false);
    EXPECT_TRUE(world.until(seconds(20), [&] { return fence_of_node1(world) == FenceState::none; }));
    world.bmc_works = true;
    world.run(seconds(30));
    EXPECT_TRUE(world.host("node1").on);
    EXPECT_TRUE(world.fenced.empty()) << "nothing of the withdrawn request is left";
    EXPECT_EQ(world.runners("web1").size(), 1U);
}

// Who was asked is gone, and who takes the operation over is the one it is about (seed 69021).
TEST(Witness, AVictimThatTakesOverIsNotLost) {
    World world(2, true);
    prepare(world, false);
    cut_off(world, "node2", true);
    world.run(seconds(125));
    const auto asked = world.ask("node1", ConfirmDown{"node2", "node2"}, milliseconds(500));
    ASSERT_TRUE(asked) << asked.error().message;
    ASSERT_EQ(asked->state, OperationState::running);
    world.cut_power("node1");
    cut_off(world, "node2", false);
    ASSERT_TRUE(world.until(seconds(30), [&] { return world.node("node2").is_coordinator(); }));
    const auto how_it_ended = [&] {
        const OperationRecord last = world.node("node2").operation(asked->id).value_or(*asked);
        return last.state == OperationState::running ? "" : last.error;
    };
    ASSERT_TRUE(world.until(seconds(60), [&] { return !how_it_ended().empty(); }));
    EXPECT_NE(how_it_ended().find("node2 answers"), std::string::npos) << how_it_ended();
    EXPECT_NE(world.tables("node2").nodes.at("node2").record.fence.state, FenceState::confirmed_down);
}

TEST(Witness, ARefusalThatBlockdCouldNotDoIsAskedForAgain) {
    World world(2, true);
    prepare(world);
    world.bmc_works = false;
    world.cut_power("node1");
    world.run(seconds(125));
    world.host("node2").refusals_failing = 2;
    ASSERT_TRUE(world.ask("node2", ConfirmDown{"node1", "node1"}, seconds(120)));
    EXPECT_TRUE(world.until(seconds(10), [&] { return runs_only_on(world, "node2"); }));
    EXPECT_EQ(world.host("node2").refusals_failing, 0U);
}

TEST(Witness, H29OwnerCutFromTheStoreIsNotFencedWhileItAnswers) {
    World world(2, true);
    prepare(world);
    world.host("node1").store_cut = true;
    world.run(seconds(120));
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(runs_only_on(world, "node1"));
    world.host("node1").store_cut = false;
    world.run(seconds(10));
    EXPECT_TRUE(world.node("node1").is_acting());
}

// What it had planned before the gap waits until the store has answered again.
TEST(Witness, H11ACoordinatorThatWasPausedAsksForItsTermBeforeItFences) {
    World world(2, true);
    prepare(world);
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(20), [&] { return world.node("node2").is_coordinator(); }));
    world.watch_lag = seconds(19);
    const auto requested = [&] {
        return world.host("node2").log.back().find("is going to be fenced") != std::string::npos;
    };
    ASSERT_TRUE(world.until(seconds(20), requested));
    ASSERT_TRUE(world.fenced.empty());
    world.watch_lag = {};
    world.host("node2").reads_fail = true;
    world.host("node2").paused_until = world.now() + milliseconds(1050);
    world.run(milliseconds(1150));
    EXPECT_TRUE(world.fenced.empty()) << "the plan of before the gap";
    world.host("node2").reads_fail = false;
    EXPECT_TRUE(world.until(seconds(20), [&] { return !world.fenced.empty(); }));
    EXPECT_TRUE(world.until(seconds(20), [&] { return world.host("node1").on; })) << "powered on again";
}

// The term ends between the commit of the power-on and the device: the next term of the process carries it
// out.
TEST(Witness, ACommittedPowerOnOutlivesItsTerm) {
    World world(2, true);
    prepare(world);
    world.cut_power("node1");
    auto& survivor = world.host("node2");
    const auto committed = [&] {
        const auto* stored = survivor.group->store.find(keys::node("node1"));
        const auto record = decode<NodeRecord>(stored->value);
        return record && record->fence.power_on_done;
    };
    ASSERT_TRUE(world.until(seconds(20), committed));
    ASSERT_FALSE(world.host("node1").on);
    survivor.paused_until = world.now() + milliseconds(1100);
    for (const auto& [id, holder] : survivor.group->leases)
        if (holder.first == "node2") survivor.inbox.push_back(LeaseLost{id});
    EXPECT_TRUE(world.until(seconds(30), [&] { return world.host("node1").on; }));
    EXPECT_EQ(world.fenced, std::vector<std::string>{"node1"});
}

TEST(Operations, AFenceThatCouldEndTooLateIsRefused) {
    for (const bool witness : {false, true}) {
        World world(2, witness);
        prepare(world);
        auto slow = bmc("node1");
        slow.device.timeout_ms = 20000;  // the command line's default
        EXPECT_TRUE(world.ask("node1", slow));
        slow.device.timeout_ms = 25000;
        EXPECT_EQ(world.ask("node1", slow).has_value(), witness)
            << "the second turn begins late, and its attempt may begin late in it";
        slow.device.timeout_ms = 40000;
        const auto late = world.ask("node1", slow);
        EXPECT_EQ(late.has_value(), witness) << "two attempts one after the other do not fit";
        slow.device.timeout_ms = 60000;
        const auto never = world.ask("node1", slow);
        ASSERT_FALSE(never);
        EXPECT_EQ(never.error().code, ErrorCode::invalid_argument) << never.error().message;
    }
}

// The attempt is about a life that was silent when it began: a session of its blockd that came up since is a
// sign of life, and only a new attempt proves anything.
TEST(Witness, ASessionSinceTheAttemptVoidsTheFence) {
    World world(2, true);
    prepare(world);
    const Incarnation life = world.host("node1").incarnation;
    world.auto_power_on = false;
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(20), [&] { return !world.fenced.empty(); }));
    world.host("node2").inbox.push_back(BlockdSession{"node1", life, true, {"link1"}});
    EXPECT_TRUE(world.until(seconds(30), [&] { return world.fenced.size() == 2; }))
        << "it is proven once more";
    EXPECT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node2"); }));
}

// A board is slow, and who ordered the fencing may be off himself before it is done: who registers over a
// request against its own last life fences nobody meanwhile (seed 4757: both were off).
TEST(Witness, WhoRegistersOverAFencingWaitsForItsEnd) {
    World world(2, true);
    request_without_a_board(world);
    world.cut_power("node1");
    cut_off(world, "node1", false);
    world.boot("node1");
    ASSERT_TRUE(world.until(seconds(30), [&] { return world.node("node1").is_acting(); }));
    const Instant registered = world.now();
    ASSERT_TRUE(world.until(seconds(3), [&] { return runs_only_on(world, "node2"); }));
    world.bmc_works = true;
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(20), [&] { return !world.fenced.empty(); }));
    EXPECT_GT(world.now() - registered, milliseconds(4900)) << "its own device may take 5 s";
    EXPECT_TRUE(world.until(seconds(20), [&] { return runs_only_on(world, "node1"); }));
}

}  // namespace
}  // namespace gemel::ha
