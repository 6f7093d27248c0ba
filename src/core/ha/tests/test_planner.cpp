// The planner, decision by decision: one world, one change, one expected plan.
#include <functional>

#include <gtest/gtest.h>

#include "core/cluster/volume_rules.hpp"
#include "core/ha/planner.hpp"

namespace gemel::ha {
namespace {

using namespace cluster;

Incarnation life(std::uint64_t n) {
    return {Uuid::from_random(n, 1), Uuid::from_random(n, 2)};
}

// node1 runs web1 on volume web1; both replicas current; both nodes well; a fence device each.
struct Bench {
    Tables tables;
    PlanInput input;

    Bench() {
        tables.cluster = Row<ClusterRecord>{};
        for (std::uint64_t i = 1; i <= 2; ++i) {
            NodeRecord node;
            node.name = "node" + std::to_string(i);
            node.incarnation = life(i);
            tables.nodes[node.name] = {node, i, i};
            NodeFacts facts;
            facts.incarnation = node.incarnation;
            facts.alive = facts.acting = facts.answers = true;
            input.nodes[node.name] = facts;
            FenceDeviceRecord device;
            device.name = "bmc" + std::to_string(i);
            device.node = node.name;
            tables.fence_devices[device.name] = {device, 1, 1};
        }
        VolumeRecord volume;
        volume.name = "web1";
        volume.size_bytes = 1 << 20;
        volume.generation = {GenerationId::from_random(1, 1), {}, 1};
        volume.replicas = {
            {"node1", ReplicaId::from_random(1, 1), "default", ReplicaState::up_to_date, true},
            {"node2", ReplicaId::from_random(2, 2), "default", ReplicaState::up_to_date, true}};
        volume.owner = OwnerRecord{"node1", life(1), 3, "s", false, "vm:web1"};
        volume.epoch = 3;
        tables.volumes["web1"] = {volume, 5, 5};
        GuestRecord guest;
        guest.name = "web1";
        guest.disks = {{"vda", "web1"}};
        guest.wish = GuestWish::running;
        guest.placement = PlacementRecord{"node1", life(1), {{"web1", 3}}, GuestPhase::running};
        tables.guests["web1"] = {guest, 6, 6};
        input.self = "node2";
        input.now = Instant{} + seconds(1000);
    }
    NodeRecord& node(const char* name) { return tables.nodes.at(name).record; }
    VolumeRecord& volume() { return tables.volumes.at("web1").record; }
    GuestRecord& guest() { return tables.guests.at("web1").record; }
    void lose(const char* name, Duration since = seconds(5)) {
        auto& facts = input.nodes[name];
        facts.alive = facts.acting = facts.answers = false;
        facts.lost_since = input.now - since;
    }
    void fenced(const char* name) {
        node(name).fence = {FenceState::verified, node(name).incarnation, "node2", "bmc1", 1, true};
    }
    Plan plan() {
        input.tables = &tables;
        return ha::plan(input);
    }
};

template <typename Step>
const Step* only(const Plan& plan) {
    const Step* found = nullptr;
    for (const auto& step : plan) {
        if (std::holds_alternative<Blocked>(step)) continue;
        if (found != nullptr || !std::holds_alternative<Step>(step)) return nullptr;
        found = &std::get<Step>(step);
    }
    return found;
}
bool nothing(const Plan& plan) {
    for (const auto& step : plan) {
        if (!std::holds_alternative<Blocked>(step)) return false;
    }
    return true;
}

TEST(Planner, AllWellNothingToDo) {
    Bench b;
    EXPECT_TRUE(b.plan().empty());
}

TEST(Planner, ALostOwnerIsFencedOnce) {
    Bench b;
    b.lose("node1");
    ASSERT_NE(only<RequestFence>(b.plan()), nullptr);
    b.node("node1").fence = {FenceState::requested, life(1), "node2", "", 1, false};
    const auto plan = b.plan();
    ASSERT_NE(only<RunFence>(plan), nullptr);
    EXPECT_EQ(only<RunFence>(plan)->device, "bmc1");
    b.node("node1").fence.incarnation = life(9);  // of an earlier life
    EXPECT_NE(only<RequestFence>(b.plan()), nullptr);
}

TEST(Planner, AskedFirstWhereAnythingAnswers) {
    Bench b;
    b.lose("node1");
    b.input.nodes["node1"].answers = true;
    EXPECT_TRUE(nothing(b.plan()));  // restart grace
    b.input.nodes["node1"].lost_since = b.input.now - seconds(20);
    EXPECT_NE(only<AskNode>(b.plan()), nullptr);
    b.input.nodes["node1"].release_refused = true;
    EXPECT_NE(only<RequestFence>(b.plan()), nullptr);
}

struct NotFenced {
    const char* why;
    std::function<void(Bench&)> change;
};
TEST(Planner, NotFencedWhere) {
    const NotFenced table[] = {
        {"it answers", [](Bench& b) { b.input.nodes["node1"].alive = true; }},
        {"no device", [](Bench& b) { b.tables.fence_devices.clear(); }},
        {"nothing is at stake",
         [](Bench& b) {
             b.volume().owner.reset();
             b.guest().placement.reset();
             b.guest().wish = GuestWish::stopped;
         }},
        {"no replica elsewhere is current",
         [](Bench& b) {
             b.volume().replicas[1].in_ack_set = false;
             b.volume().replicas[1].state = ReplicaState::outdated;
         }},
        {"the operator's word is being waited out",
         [](Bench& b) {
             b.node("node1").fence = {FenceState::requested, life(1), "node2", "operator", 1, false};
         }},
    };
    for (const auto& one : table) {
        Bench b;
        b.lose("node1");
        one.change(b);
        EXPECT_TRUE(nothing(b.plan())) << one.why;
    }
}

TEST(Planner, AfterTheFenceTheGuestStartsElsewhere) {
    Bench b;
    b.lose("node1");
    b.fenced("node1");
    const auto plan = b.plan();
    const auto* grant = only<GrantGuest>(plan);
    ASSERT_NE(grant, nullptr);
    EXPECT_EQ(grant->node, "node2");
    EXPECT_TRUE(grant->after_host_loss);
}

TEST(Planner, TheProofMustBeOfThatLife) {
    Bench b;
    b.lose("node1");
    b.fenced("node1");
    b.node("node1").fence.incarnation = life(9);
    EXPECT_EQ(only<GrantGuest>(b.plan()), nullptr);
}

TEST(Planner, ARebootIsAProofToo) {
    Bench b;
    b.node("node1").incarnation = life(11);
    b.input.nodes["node1"].incarnation = life(11);
    EXPECT_NE(only<GrantGuest>(b.plan()), nullptr);
}

TEST(Planner, NeverFromAReplicaThatIsNotCurrent) {
    Bench b;
    b.lose("node1");
    b.fenced("node1");
    b.volume().replicas[1].in_ack_set = false;
    b.volume().replicas[1].state = ReplicaState::outdated;
    EXPECT_TRUE(nothing(b.plan()));
}

TEST(Planner, OrderByPriorityAndEachVolumeOnce) {
    Bench b;
    b.guest().placement.reset();
    b.volume().owner.reset();
    GuestRecord other = b.guest();
    other.name = "db";
    other.priority = 900;
    b.tables.guests["db"] = {other, 7, 7};
    const auto plan = b.plan();
    ASSERT_NE(only<GrantGuest>(plan), nullptr);
    EXPECT_EQ(only<GrantGuest>(plan)->guest, "db");
}

TEST(Planner, PreferredPinnedUsable) {
    Bench b;
    b.guest().placement.reset();
    b.volume().owner.reset();
    b.guest().preferred_node = "node2";
    EXPECT_EQ(only<GrantGuest>(b.plan())->node, "node2");
    b.guest().pinned_node = "node1";
    EXPECT_EQ(only<GrantGuest>(b.plan())->node, "node1");
    b.guest().pinned_node.clear();
    b.input.nodes["node2"].acting = false;
    EXPECT_EQ(only<GrantGuest>(b.plan())->node, "node1");
    b.node("node1").state = NodeState::leaving;
    EXPECT_TRUE(nothing(b.plan()));
}

TEST(Planner, C10Bounds) {
    Bench b;
    b.guest().placement.reset();
    b.volume().owner.reset();
    b.guest().restarts = GuestRecord::kMaxRestarts;
    EXPECT_TRUE(nothing(b.plan()));
    b.guest().restarts = 1;
    b.input.retry_not_before["web1"] = b.input.now + seconds(1);
    EXPECT_TRUE(nothing(b.plan()));
    b.input.retry_not_before["web1"] = b.input.now;
    EXPECT_NE(only<GrantGuest>(b.plan()), nullptr);
    b.guest().host_losses = 1;
    EXPECT_NE(only<GrantGuest>(b.plan()), nullptr) << "one host may be lost by chance";
    b.guest().host_losses = 2;
    EXPECT_TRUE(nothing(b.plan()));
}

TEST(Planner, ALostExportIsReleasedAndTheVictimPoweredOnOnce) {
    Bench b;
    b.lose("node1");
    b.fenced("node1");
    b.tables.guests.clear();
    b.volume().owner->purpose = "export";
    EXPECT_NE(only<ReleaseVolume>(b.plan()), nullptr);
    b.volume().owner.reset();
    b.node("node1").fence.power_on_done = false;
    EXPECT_NE(only<PowerOnVictim>(b.plan()), nullptr);
    b.node("node1").fence.power_on_done = true;
    EXPECT_TRUE(b.plan().empty());
}

TEST(Grant, ShrinksTheAckSetOnlyWhereItMust) {
    Bench b;
    Grant grant{"node2", life(2), "secret", "vm:web1", GenerationId::from_random(5, 5)};
    b.fenced("node1");
    auto next = granted(b.tables, b.volume(), grant);
    EXPECT_EQ(ack_set(next), std::vector<std::string>{"node2"});
    EXPECT_EQ(next.replicas[0].state, ReplicaState::outdated);
    EXPECT_EQ(next.generation.counter, 2U);
    EXPECT_EQ(next.generation.parent, b.volume().generation.id);
    EXPECT_EQ(next.owner->epoch, 4U);
    Bench well;
    well.volume().owner.reset();
    next = granted(well.tables, well.volume(), grant);
    EXPECT_EQ(ack_set(next).size(), 2U);
    EXPECT_EQ(next.generation, well.volume().generation);
}

TEST(Planner, ARebootedOwnerIsNotGivenItsGuestBackWhileTheSurvivorCanTakeIt) {
    Bench bench;
    bench.guest().preferred_node = "node1";
    bench.node("node1").incarnation = life(7);  // registered anew, faster than anybody fenced it
    bench.input.nodes["node1"].incarnation = life(7);
    const auto plan = bench.plan();
    const auto* grant = only<GrantGuest>(plan);
    ASSERT_NE(grant, nullptr);
    EXPECT_EQ(grant->node, "node2") << "it is ready; the other one still boots";
    bench.lose("node2");
    bench.volume().replicas[1].in_ack_set = false;
    const auto* home = only<GrantGuest>(bench.plan());
    ASSERT_NE(home, nullptr) << "where nobody else can, it is its own successor";
    EXPECT_EQ(home->node, "node1");
}

}  // namespace
}  // namespace gemel::ha
