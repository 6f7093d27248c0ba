// The control plane's stories in virtual time: two nodes, mostly with a witness. A story names what it
// shows.
#include <gtest/gtest.h>

#include "core/ha/tests/stories.hpp"

namespace gemel::ha {
namespace {

using namespace testing;

TEST(Witness, OwnerLosesPowerTwice) {
    World world(2, true);
    prepare(world);
    const Instant cut = world.now();
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(8), [&] { return runs_only_on(world, "node2"); }))
        << world.host("node2").log.back();
    EXPECT_LE((world.now() - cut).milliseconds(), 6000);
    EXPECT_EQ(world.fenced, std::vector<std::string>{"node1"});
    // powered on once, resynced, taken back into the ack set
    ASSERT_TRUE(world.until(seconds(60), [&] { return acks(world, "node2").size() == 2; }))
        << world.host("node2").log.back();
    EXPECT_EQ(world.host("node1").boots, 2U);
    world.run(seconds(5));
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return runs_only_on(world, "node1"); }))
        << world.host("node1").log.back();
    ASSERT_TRUE(world.until(seconds(60), [&] { return acks(world, "node1").size() == 2; }));
    EXPECT_EQ(world.started, (std::vector<std::string>{"web1@node1", "web1@node2", "web1@node1"}));
    const auto stopped = world.ask("node1", GuestStop{"web1", false, 10000});
    ASSERT_TRUE(stopped);
    EXPECT_EQ(stopped->state, OperationState::succeeded);
    EXPECT_TRUE(world.runners("web1").empty());
    EXPECT_FALSE(world.tables("node1").volumes.at("web1").record.owner);
}

TEST(Witness, SurvivingOwnerGoesOnAloneWithoutFencing) {
    World world(2, true);
    prepare(world);
    world.cut_power("node2");
    ASSERT_TRUE(
        world.until(seconds(3), [&] { return acks(world, "node1") == std::vector<std::string>{"node1"}; }));
    world.run(seconds(20));
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(runs_only_on(world, "node1"));
}

TEST(Witness, TwoThatDoNotHearEachOtherKeepOneCoordinator) {
    World world(2, true);
    prepare(world);
    world.host("node2").isolated = true;  // from the other node; both reach the store
    world.run(seconds(10));
    ASSERT_TRUE(world.tables("node1").coordinator);
    const auto term = world.tables("node1").coordinator->created;
    world.run(seconds(30));
    ASSERT_TRUE(world.tables("node1").coordinator);
    EXPECT_EQ(world.tables("node1").coordinator->created, term);
}

TEST(Witness, H28ClusterdRestartsNothingHappens) {
    World world(2, true);
    prepare(world);
    world.host("node1").clusterd_silent = true;
    world.run(seconds(30));
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(runs_only_on(world, "node1"));
}

// clusterd dies between the commit and its answer; blockd asks the next process (C4; seed 17131).
TEST(Witness, AProposalThatWasCommittedIsNotRefusedToWhoAsksAgain) {
    World world(2, true);
    prepare(world);
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return acks(world, "node1").size() == 1; }));
    world.start_clusterd("node1");
    ASSERT_TRUE(world.until(seconds(20), [&] { return world.node("node1").is_acting(); }));
    Host& host = world.host("node1");
    host.answered.reset();
    host.inbox.push_back(*host.proposed);
    ASSERT_TRUE(world.until(seconds(2), [&] { return host.answered.has_value(); }));
    EXPECT_EQ(*host.answered, replication::ProposalOutcome::committed);
}

// Its blockd may be away for as long as it likes: while the store says that nobody else was granted the disk,
// the guard pauses and kills nothing. A node that does not reach the store any more is not told so.
TEST(Witness, H40TheGuardHearsOfEveryReadThatShowsTheOwner) {
    World world(2, true);
    prepare(world);
    world.run(seconds(30));
    EXPECT_GT(world.host("node1").guard_until, world.now() + seconds(8));
    EXPECT_EQ(world.host("node2").guard_until, Instant{});
    world.host("node1").store_cut = true;
    world.run(seconds(20));
    EXPECT_LT(world.host("node1").guard_until, world.now() - seconds(8));
}

TEST(Witness, H28AMemberOfTheStoreThatWasKilledIsStartedAgain) {
    World world(2, true);
    prepare(world);
    for (const auto* victim : {"node1", "node2"}) {
        world.host(victim).member_running = false;
        ASSERT_TRUE(world.until(seconds(10), [&] { return world.host(victim).member_running; })) << victim;
        world.run(seconds(5));
        EXPECT_TRUE(world.node(victim).is_acting()) << victim;
    }
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(runs_only_on(world, "node1"));
}

// Its lease would be kept alive through the others' members, and who answers is not deposed.
TEST(Witness, ACoordinatorWhoseMemberWasRemovedLeadsNoLonger) {
    World world(2, true);
    prepare(world);
    const std::string former = world.tables("node1").coordinator->record.node;
    const std::string other = former == "node1" ? "node2" : "node1";
    StoreHealth removed;
    removed.running = removed.answers = removed.rejected = true;
    world.host(former).inbox.push_back(removed);
    EXPECT_TRUE(world.until(seconds(3), [&] { return world.node(other).is_coordinator(); }));
    EXPECT_FALSE(world.node(former).is_coordinator());
    EXPECT_TRUE(world.fenced.empty());
}

TEST(Witness, G2StaleNodeWithWitnessStartsNothing) {
    World world(2, true);
    prepare(world);
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(5), [&] { return acks(world, "node1").size() == 1; }));
    world.run(seconds(2));
    world.cut_power("node1");
    world.boot("node2");
    world.run(seconds(60));
    EXPECT_TRUE(world.runners("web1").empty());
    EXPECT_TRUE(world.node("node2").is_acting());
    const auto explained = world.node("node2").explain("vm", "web1");
    ASSERT_TRUE(explained);
    world.boot("node1");
    EXPECT_TRUE(world.until(seconds(60), [&] { return !world.runners("web1").empty(); }))
        << world.host("node1").log.back();
    EXPECT_TRUE(runs_only_on(world, "node1"));
}

TEST(L7, ADomainWithoutARightIsDestroyed) {
    World world(2, true);
    prepare(world);
    const auto uuid = world.tables("node1").guests.at("web1").record.uuid;
    world.host("node2").domains[uuid] = {uuid, "web1", DomainState::running, "qemu"};
    world.host("node2").inbox.push_back(DomainList{{{uuid, "web1", DomainState::running, "qemu"}}});
    ASSERT_TRUE(world.until(seconds(5), [&] { return world.host("node2").domains.empty(); }));
    EXPECT_TRUE(runs_only_on(world, "node1"));
}

TEST(Guests, ACrashedGuestIsStartedAgainWithABound) {
    World world(2, true);
    prepare(world);
    const auto crash = [&] {
        for (const char* name : {"node1", "node2"}) {
            world.host(name).domains.clear();
            world.host(name).inbox.push_back(DomainList{});
        }
    };
    for (int i = 0; i < 6; ++i) {
        crash();
        world.until(seconds(200), [&] { return !world.runners("web1").empty(); });
    }
    world.run(seconds(400));
    EXPECT_LE(world.started.size(), 6U);
    EXPECT_TRUE(world.runners("web1").empty());
    EXPECT_EQ(world.node("node1").status().guests.at(0).phase, "blocked");
    const auto again = world.ask("node1", GuestStart{"web1", ""});
    ASSERT_TRUE(again);
    EXPECT_EQ(again->state, OperationState::succeeded);
}

// What the ended QEMU had in flight is still held by blockd: another QEMU on the same epoch could read a
// block before that write lands on it (promise D12). Found by the simulator.
TEST(Guests, H28AGuestThatEndsWhileClusterdIsAwayGetsANewEpoch) {
    World world(2, true);
    prepare(world);
    const std::uint64_t before = world.tables("node1").volumes.at("web1").record.epoch;
    world.host("node1").domains.clear();
    world.start_clusterd("node1");
    ASSERT_TRUE(world.until(seconds(60), [&] { return !world.runners("web1").empty(); }));
    EXPECT_GT(world.tables("node2").volumes.at("web1").record.epoch, before);
}

// Nothing can serve this guest in this epoch any more, and a copy of its disk is current elsewhere (C12;
// found by the simulator: it got errors, or waited, for ever).
TEST(Guests, K2AGuestWhoseDiskIsServedNoMoreStartsWhereTheCopyIs) {
    for (const auto disk : {FakeDisk::lost, FakeDisk::unknown}) {
        for (const bool stopping : {false, true}) {
            World world(2, true);
            prepare(world);
            world.host("node1").disk = FakeDisk::over_network;
            ASSERT_TRUE(world.until(
                seconds(5), [&] { return acks(world, "node2") == std::vector<std::string>{"node2"}; }));
            world.run(seconds(10));
            EXPECT_TRUE(runs_only_on(world, "node1")) << "served over the network it goes on";
            EXPECT_EQ(world.started.size(), 1U);
            world.host("node1").disk = disk;
            if (stopping) {
                ASSERT_TRUE(world.ask("node1", GuestStop{"web1", false, 20000}));
            }
            const auto over = [&] {
                return stopping ? world.runners("web1").empty() : runs_only_on(world, "node2");
            };
            ASSERT_TRUE(world.until(seconds(10), over));
            world.host("node1").disk = FakeDisk::works;  // replaced
            world.run(seconds(10));
            EXPECT_TRUE(over());
            EXPECT_EQ(world.violations, std::vector<std::string>{});
        }
    }
}

// Its disk died with gemel-blockd: the record still counts both, and nobody else may propose that it leaves.
TEST(Guests, AGuestWhoseDiskCannotBeAttachedStartsWhereTheOtherCopyIs) {
    World world(2, true);
    prepare(world);
    world.host("node1").disk = FakeDisk::unattached;
    world.run(seconds(30));
    world.host("node1").disk = FakeDisk::works;  // it only took long
    world.run(seconds(40));
    EXPECT_EQ(world.started.size(), 1U);
    world.host("node1").disk = FakeDisk::unattached;
    world.run(seconds(50));
    EXPECT_TRUE(runs_only_on(world, "node1"));
    ASSERT_TRUE(world.until(seconds(30), [&] { return runs_only_on(world, "node2"); }));
    EXPECT_TRUE(
        world.until(seconds(5), [&] { return acks(world, "node2") == std::vector<std::string>{"node2"}; }));
    EXPECT_EQ(world.violations, std::vector<std::string>{});
}

TEST(Leave, CleanLeaveMovesTheGuest) {
    World world(2, true);
    prepare(world);
    world.host("node1").inbox.push_back(LeaveNode{});
    ASSERT_TRUE(world.until(seconds(30), [&] { return runs_only_on(world, "node2"); }))
        << world.host("node2").log.back();
    ASSERT_TRUE(world.until(seconds(30), [&] {
        return world.tables("node2").nodes.at("node1").record.state == NodeState::left;
    }));
    EXPECT_TRUE(world.fenced.empty());
}

// The last list of domains is from before the start, and does not show it (C1; the simulator's seed 3957).
TEST(Leave, AGuestWhoseStartIsUnderWayIsNotTakenForGone) {
    World world(2, true);
    prepare(world);
    world.start_takes = seconds(3);
    world.lists_take = milliseconds(400);
    world.host("node1").domains.clear();
    world.host("node1").inbox.push_back(DomainList{});
    ASSERT_TRUE(world.until(seconds(20), [&] { return world.started.size() == 2; }));
    ASSERT_EQ(world.started.back(), "web1@node2");
    world.host("node2").inbox.push_back(LeaveNode{});
    bool without_lease = false;
    EXPECT_TRUE(world.until(seconds(60), [&] {
        const auto& owner = world.tables("node1").volumes.at("web1").record.owner;
        without_lease = without_lease || (runs_only_on(world, "node2") && (!owner || owner->node != "node2"));
        return runs_only_on(world, "node1");
    }));
    EXPECT_FALSE(without_lease);
}

// The back-off counts from attempts of this term: the second failover is as quick as the first, though the
// lost coordinator's node had just taken the guest over.
TEST(Witness, TheSecondFailoverWaitsNoLongerThanTheFirst) {
    World world(2, true);
    prepare(world);
    std::vector<Duration> took;
    for (const auto& [owner, other] : {std::pair("node1", "node2"), std::pair("node2", "node1")}) {
        ASSERT_TRUE(world.until(seconds(60), [&] {
            return world.host(other).on && world.node(other).is_acting() && acks(world, owner).size() == 2;
        })) << world.host(owner).log.back();
        const Instant cut = world.now();
        world.cut_power(owner);
        ASSERT_TRUE(world.until(seconds(30), [&, other = std::string(other)] {
            return runs_only_on(world, other);
        })) << world.host(other).log.back();
        took.push_back(world.now() - cut);
    }
    EXPECT_LT(took[1], took[0] + seconds(2)) << took[1].milliseconds() << " ms";
}

TEST(Leave, TheOtherVoterGoesOnAloneWithoutFencing) {
    World world(2, false);
    prepare(world);
    auto refused = world.ask("node2", NodeLeave{"node1", "node1"});
    ASSERT_FALSE(refused) << "a node leaves by its own word";
    EXPECT_NE(refused.error().message.find("on node1"), std::string::npos) << refused.error().message;
    const auto left = world.ask("node1", NodeLeave{"node1", "node1"});
    ASSERT_TRUE(left) << left.error().message;
    ASSERT_EQ(left->state, OperationState::succeeded) << left->error << left->step;
    ASSERT_TRUE(world.until(seconds(30), [&] { return runs_only_on(world, "node2"); }));
    EXPECT_EQ(world.node("node1").status().nodes.at(0).state, "left");
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(20), [&] {
        return world.node("node2").is_acting() && world.host("node2").group->voters.size() == 1;
    })) << world.host("node2").log.back();
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(runs_only_on(world, "node2"));
    world.boot("node1");
    EXPECT_TRUE(world.until(seconds(90), [&] { return world.node("node1").is_acting(); }))
        << world.host("node1").log.back();
}

TEST(Leave, AnOwnerElsewhereIsNotLeftFrozen) {
    World world(2, false);
    prepare(world);
    const auto left = world.ask("node2", NodeLeave{"node2", "node2"});
    ASSERT_TRUE(left) << left.error().message;
    ASSERT_EQ(left->state, OperationState::succeeded) << left->error << left->step;
    EXPECT_EQ(acks(world, "node1"), std::vector<std::string>{"node1"}) << "committed while both still voted";
    world.cut_power("node2");
    world.run(seconds(30));
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(runs_only_on(world, "node1"));
    EXPECT_EQ(world.started.size(), 1U);
}

TEST(Leave, WhoHasLeftNeitherFencesNorForcesUntilItJoinsAgain) {
    World world(2, false);
    prepare(world);
    const auto left = world.ask("node1", NodeLeave{"node1", "node1"});
    ASSERT_TRUE(left) << left.error().message;
    ASSERT_TRUE(world.until(seconds(30), [&] { return runs_only_on(world, "node2"); }));
    world.auto_power_on = false;
    world.cut_power("node2");
    world.run(seconds(90));
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(world.runners("web1").empty()) << "what node2 wrote since is not here";
    EXPECT_FALSE(world.node("node1").is_acting());
    world.boot("node2");
    ASSERT_TRUE(world.until(seconds(60), [&] { return runs_only_on(world, "node2"); }))
        << world.host("node2").log.back();
    world.start_clusterd("node1");  // the operator wants it back, without a boot
    EXPECT_TRUE(world.until(seconds(60), [&] { return world.node("node1").is_acting(); }))
        << world.host("node1").log.back();
}

TEST(Witness, AwayForLongItIsRemovedAndAddedAgainWhenItReturns) {
    World world(2, true);
    prepare(world);
    const auto voters = [&] { return world.tables("node1").cluster->record.voters.size(); };
    world.witness_on = false;
    world.run(seconds(60));
    EXPECT_EQ(voters(), 3U) << "not yet long";
    ASSERT_TRUE(world.until(seconds(700), [&] { return voters() == 2; })) << world.host("node1").log.back();
    ASSERT_TRUE(world.until(seconds(60), [&] { return !world.host("node1").group->learners.empty(); }))
        << "it has a place to come back to, and no vote";
    world.run(seconds(300));
    EXPECT_EQ(voters(), 2U);
    // Meanwhile the pair does what pairs do.
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(60), [&] { return voters() == 1; })) << world.host("node1").log.back();
    ASSERT_TRUE(world.until(seconds(120), [&] { return world.host("node2").on && voters() == 2; }))
        << world.host("node1").log.back();
    world.witness_on = true;
    ASSERT_TRUE(world.until(seconds(120), [&] { return voters() == 3; })) << world.host("node1").log.back();
    EXPECT_TRUE(world.tables("node1").cluster->record.adding_voter.empty());
    EXPECT_EQ(world.host("node1").group->voters.size(), 3U);
    EXPECT_TRUE(runs_only_on(world, "node1"));
}

// A guard that believes nobody else could be granted would pause a cut-off guest instead of killing it.
TEST(Witness, TheGuardIsToldWhenThePeerCouldBeGrantedAgain) {
    World world(2, true);
    prepare(world);
    EXPECT_TRUE(world.host("node1").regrant_told.at("web1"));
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(8), [&] { return runs_only_on(world, "node2"); }));
    EXPECT_FALSE(world.host("node2").regrant_told.at("web1"));
    EXPECT_TRUE(world.until(seconds(60), [&] { return acks(world, "node2").size() == 2; }));
    EXPECT_TRUE(world.until(seconds(5), [&] { return world.host("node2").regrant_told.at("web1"); }));
}

TEST(Resources, WhatCanOnlyFailLaterIsRefusedAtOnce) {
    World world(2, true);
    prepare(world);
    HostFacts facts;
    facts.resources = {true, 1ULL << 30, {{"default", 100ULL << 20}}, {"br0"}};
    for (const char* name : {"node1", "node2"}) world.host(name).inbox.push_back(facts);
    world.run(seconds(1));
    VolumeCreate volume;
    volume.name = "big";
    volume.size_bytes = 64ULL << 20;
    const auto full = world.ask("node1", volume);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, ErrorCode::out_of_space) << full.error().message;
    volume.size_bytes = 16ULL << 20;
    EXPECT_TRUE(world.ask("node1", volume));
    GuestCreate guest;
    guest.name = "web2";
    guest.memory_bytes = 1 << 30;
    guest.vcpus = 1;
    guest.disks = {{"vda", "big"}};
    guest.nics = {{"br1", ""}};
    const auto wrong = world.ask("node1", guest);
    ASSERT_FALSE(wrong);
    EXPECT_NE(wrong.error().message.find("no bridge br1"), std::string::npos) << wrong.error().message;
    guest.nics = {{"br0", ""}};
    guest.memory_bytes = 1ULL << 50;
    EXPECT_FALSE(world.ask("node1", guest)) << "more than a node has";
    guest.memory_bytes = 1 << 30;
    EXPECT_TRUE(world.ask("node1", guest));
    EXPECT_EQ(world.node("node1").status().nodes.at(1).memory_free_bytes, 1ULL << 30) << "of the peer too";
}

// What one request made, the next one finds, however late the store's watch is.
TEST(Operations, WhatWasDoneIsSeen) {
    World world(2, true);
    prepare(world);
    world.watch_lag = seconds(18);
    for (int i = 0; i < 5; ++i) {
        const std::string name = "new" + std::to_string(i);
        ASSERT_NO_FATAL_FAILURE(define_guest(world, name, 64 << 20));
        const auto started = world.ask("node1", GuestStart{name, "node1"});
        ASSERT_TRUE(started) << started.error().message;
    }
}

// A link is known only by carrying a connection: where the volumes want none, nobody is sent to ping it.
TEST(Status, LinksThatNoVolumeTriesAreNotDown) {
    World world(2, true);
    prepare(world);
    const auto links_of_peer = [&] {
        std::set<std::string> states;
        for (const auto& node : world.node("node1").status().nodes) {
            for (const auto& link : node.links) {
                if (node.name == "node2" && link.name != "control") states.insert(link.state);
            }
        }
        return states;
    };
    EXPECT_EQ(links_of_peer(), std::set<std::string>{"up"});
    world.host("node1").standalone = true;
    EXPECT_TRUE(world.until(seconds(5), [&] { return links_of_peer() == std::set<std::string>{"unknown"}; }));
    world.host("node1").standalone = false;
    world.host("node2").isolated = true;
    EXPECT_TRUE(world.until(seconds(5), [&] { return links_of_peer() == std::set<std::string>{"down"}; }));
}

TEST(Volumes, ExportUnexportDelete) {
    World world(2, true);
    prepare(world);
    EXPECT_FALSE(world.ask("node1", VolumeExport{"web1", false}));
    ASSERT_TRUE(world.ask("node1", GuestStop{"web1", true, 10000}));
    const auto exported = world.ask("node2", VolumeExport{"web1", false});
    ASSERT_TRUE(exported) << exported.error().message;
    ASSERT_EQ(exported->state, OperationState::succeeded) << exported->error;
    EXPECT_EQ(exported->result.at("node"), "node2");
    EXPECT_EQ(exported->result.at("secret").size(), 32U);
    EXPECT_FALSE(world.ask("node1", GuestStart{"web1", ""}));
    const auto closed = world.ask("node1", VolumeUnexport{"web1"});
    ASSERT_TRUE(closed) << closed.error().message;
    EXPECT_EQ(closed->state, OperationState::succeeded);
    EXPECT_FALSE(world.ask("node1", VolumeDelete{"web1", "web1"}));  // a guest's disk
    const auto gone = world.ask("node1", GuestDelete{"web1", "web1", true});
    ASSERT_TRUE(gone) << gone.error().message;
    EXPECT_TRUE(world.until(seconds(10), [&] { return world.tables("node2").volumes.empty(); }));
    EXPECT_TRUE(world.host("node1").backing.empty());
    EXPECT_TRUE(world.host("node2").backing.empty());
}

}  // namespace
}  // namespace gemel::ha
