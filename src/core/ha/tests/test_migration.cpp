// Live migration in virtual time: a guest moves, with every interruption between the request and the last
// step (docs/design/0011; scenarios L3 to L5, promises C1, C9). A story names what it shows.
#include <gtest/gtest.h>

#include "core/ha/tests/stories.hpp"

namespace gemel::ha {
namespace {

using namespace testing;

const GuestRecord& record_of(World& world, const std::string& name, const std::string& seen_by) {
    return world.tables(seen_by).guests.at(name).record;
}

// Nobody moves any more: guest and volumes say so, as `seen_by` knows it.
bool at_rest(World& world, const std::string& seen_by) {
    for (const auto& [name, row] : world.tables(seen_by).guests)
        if (row.record.migration) return false;
    for (const auto& [name, row] : world.tables(seen_by).volumes)
        if (row.record.handover) return false;
    return world.copies.empty();
}
bool settled_on(World& world, const std::string& where, const std::string& name = "web1") {
    for (const char* node : {"node1", "node2"}) {
        if (!world.host(node).on || !world.tables(node).guests.contains(name)) continue;
        const auto& placement = record_of(world, name, node).placement;
        if (!at_rest(world, node) || !placement || placement->node != where) return false;
    }
    return world.runners(name) == std::vector<std::string>{where} &&
           world.running(name) == std::vector<std::string>{where};
}
std::size_t starts(const World& world, const std::string& name = "web1") {
    std::size_t count = 0;
    for (const auto& one : world.started) count += one.starts_with(name + "@") ? 1U : 0U;
    return count;
}
Result<OperationRecord> move(World& world, const std::string& to, const std::string& name = "web1") {
    GuestMigrate order;
    order.name = name;
    order.node = to;
    return world.ask("node1", order);
}
// Asks and does not wait for the end.
void begin_move(World& world, const std::string& to, const std::string& asked = "node1") {
    GuestMigrate order;
    order.name = "web1";
    order.node = to;
    world.host(asked).inbox.push_back(ApiRequest{9, OperationId::from_random(77, 1), order});
}
bool copying(World& world) {
    return !world.copies.empty() && world.copies.front().step == FakeCopy::Step::copying;
}
// In the middle of a move from node1 to node2.
void copy_for_a_while(World& world) {
    begin_move(world, "node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return copying(world); }));
    world.run(milliseconds(500));
}
bool resumed_there(World& world) {
    return !world.copies.empty() && world.copies.front().step == FakeCopy::Step::resumed;
}
std::string text(World& world) {
    std::string all;
    for (const char* node : {"node1", "node2"}) {
        const auto& log = world.host(node).log;
        for (std::size_t i = log.size() > 12 ? log.size() - 12 : 0; i < log.size(); ++i)
            all += std::string(node) + ": " + log[i] + "\n";
    }
    for (const auto& violation : world.violations) all += "VIOLATION " + violation + "\n";
    return all;
}
std::string refusal(World& world, const std::string& name, const std::string& node) {
    const auto answer = move(world, node, name);
    return answer ? answer->error : answer.error().message;
}

TEST(Migration, ThereAndBack) {
    World world(2, true);
    prepare(world);
    for (const char* to : {"node2", "node1", "node2"}) {
        const auto moved = move(world, to);
        ASSERT_TRUE(moved) << moved.error().message;
        EXPECT_EQ(world.destroyed, 0U) << "libvirt had not ended its own part\n" << text(world);
        EXPECT_EQ(moved->state, OperationState::succeeded) << moved->error << text(world);
        ASSERT_TRUE(world.until(seconds(5), [&] { return settled_on(world, to); })) << text(world);
    }
    world.run(seconds(20));
    EXPECT_TRUE(settled_on(world, "node2")) << text(world);
    EXPECT_EQ(starts(world), 1U);
    EXPECT_EQ(record_of(world, "web1", "node1").restarts, 0U);
    EXPECT_TRUE(world.fenced.empty());
    EXPECT_TRUE(world.violations.empty()) << text(world);
    EXPECT_EQ(world.tables("node1").volumes.at("web1").record.owner->node, "node2");
}

TEST(Migration, TwoVotersMoveAGuestToo) {
    World world(2, false);
    prepare(world);
    const auto moved = move(world, "node2");
    ASSERT_TRUE(moved) << moved.error().message;
    EXPECT_EQ(moved->state, OperationState::succeeded) << moved->error;
    EXPECT_TRUE(world.until(seconds(5), [&] { return settled_on(world, "node2"); })) << text(world);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

TEST(Migration, TwoDisksAreOneUnit) {
    World world(2, true);
    prepare(world);
    VolumeCreate volume;
    volume.name = "web1-data";
    volume.size_bytes = 1 << 20;
    ASSERT_TRUE(world.ask("node1", volume));
    GuestCreate two;
    two.name = "db1";
    two.memory_bytes = 1 << 30;
    two.vcpus = 1;
    volume.name = "db1";
    ASSERT_TRUE(world.ask("node1", volume));
    two.disks = {{"vda", "db1"}, {"vdb", "web1-data"}};
    ASSERT_TRUE(world.ask("node1", two));
    const auto started = world.ask("node1", GuestStart{"db1", "node1"});
    ASSERT_TRUE(started && started->state == OperationState::succeeded) << text(world);
    world.run(seconds(2));
    const auto moved = move(world, "node2", "db1");
    ASSERT_TRUE(moved) << moved.error().message;
    EXPECT_EQ(moved->state, OperationState::succeeded) << moved->error;
    ASSERT_TRUE(world.until(seconds(5), [&] { return settled_on(world, "node2", "db1"); })) << text(world);
    const auto& placement = *record_of(world, "db1", "node1").placement;
    for (const char* name : {"db1", "web1-data"}) {
        const auto& owned = world.tables("node1").volumes.at(name).record;
        EXPECT_EQ(owned.owner->node, "node2") << name;
        EXPECT_EQ(placement.epochs.at(name), owned.epoch) << name;
    }
    EXPECT_TRUE(runs_only_on(world, "node1"));
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

TEST(Migration, CancelledWhileItsMemoryIsCopied) {
    World world(2, true);
    prepare(world);
    world.copy_takes = seconds(600);
    begin_move(world, "node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return copying(world); })) << text(world);
    const auto epoch = world.tables("node1").volumes.at("web1").record.epoch;
    const auto cancelled = world.ask("node2", GuestMigrateCancel{"web1"});
    ASSERT_TRUE(cancelled) << cancelled.error().message;
    ASSERT_TRUE(world.until(seconds(5), [&] { return settled_on(world, "node1"); })) << text(world);
    const auto operation = world.node("node1").operation(OperationId::from_random(77, 1));
    ASSERT_TRUE(operation);
    EXPECT_EQ(operation->state, OperationState::failed);
    EXPECT_NE(operation->error.find("cancelled"), std::string::npos) << operation->error;
    EXPECT_EQ(world.tables("node1").volumes.at("web1").record.owner->epoch, epoch);
    world.copy_takes = seconds(1);
    const auto moved = move(world, "node2");
    ASSERT_TRUE(moved) << moved.error().message;
    EXPECT_EQ(moved->state, OperationState::succeeded) << moved->error;
    EXPECT_EQ(starts(world), 1U);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

TEST(Migration, DestinationsClusterdIsRestartedWhileItCopies) {
    World world(2, true);
    prepare(world);
    ASSERT_NO_FATAL_FAILURE(copy_for_a_while(world));
    world.start_clusterd("node2");
    ASSERT_TRUE(world.until(seconds(30), [&] { return settled_on(world, "node1"); })) << text(world);
    EXPECT_EQ(starts(world), 1U);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

TEST(Migration, DestinationIsLostWhileItCopies) {
    World world(2, true);
    prepare(world);
    world.auto_power_on = false;
    ASSERT_NO_FATAL_FAILURE(copy_for_a_while(world));
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(30), [&] { return settled_on(world, "node1"); })) << text(world);
    world.run(seconds(30));
    EXPECT_TRUE(settled_on(world, "node1")) << text(world);
    EXPECT_EQ(starts(world), 1U);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

TEST(Migration, SourceIsLostWhileItCopies) {
    World world(2, true);
    prepare(world);
    world.auto_power_on = false;
    ASSERT_NO_FATAL_FAILURE(copy_for_a_while(world));
    const auto promised = world.tables("node2").volumes.at("web1").record.handover->epoch;
    world.cut_power("node1");
    ASSERT_TRUE(world.until(seconds(30), [&] { return settled_on(world, "node2"); })) << text(world);
    EXPECT_EQ(world.fenced, std::vector<std::string>{"node1"});
    EXPECT_EQ(starts(world), 2U) << text(world);
    EXPECT_GT(world.tables("node2").volumes.at("web1").record.epoch, promised);
    world.run(seconds(20));
    EXPECT_EQ(starts(world), 2U);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

// L5: libvirt has resumed both. The source, whose epoch was never touched, keeps it.
TEST(Migration, L5TheReplyIsLostAndBothRun) {
    World world(2, true);
    prepare(world);
    world.finish = FakeFinish::reply_lost;
    begin_move(world, "node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return world.running("web1").size() == 2; })) << text(world);
    ASSERT_TRUE(world.until(seconds(10), [&] { return world.runners("web1").size() == 1; })) << text(world);
    world.run(seconds(5));
    const auto owner = world.tables("node1").volumes.at("web1").record.owner->node;
    EXPECT_TRUE(settled_on(world, owner)) << owner << text(world);
    EXPECT_EQ(starts(world), 1U) << text(world);
    EXPECT_LT(world.ran_twice.milliseconds(), 2000);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

// The source's domain stays paused: what runs at the destination is the guest.
TEST(Migration, TheReplyIsLostAndTheSourceStaysPaused) {
    World world(2, true);
    prepare(world);
    world.finish = FakeFinish::left_paused;
    begin_move(world, "node2");
    ASSERT_TRUE(world.until(seconds(40), [&] { return settled_on(world, "node2"); })) << text(world);
    EXPECT_EQ(starts(world), 1U) << text(world);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

// At each moment of a move one clusterd is restarted. The guest is never restarted, and runs once.
void restarted_at_each_step(const std::string& victim, FakeFinish finish) {
    for (std::int64_t at = 0; at <= 4000; at += 60) {
        World world(2, true);
        prepare(world);
        world.finish = finish;
        begin_move(world, "node2", victim == "node1" ? "node2" : "node1");
        world.run(milliseconds(at));
        world.start_clusterd(victim);
        const auto rests = [&] { return settled_on(world, "node1") || settled_on(world, "node2"); };
        world.run(seconds(3));
        ASSERT_TRUE(world.until(seconds(60), rests)) << at << " ms\n" << text(world);
        world.run(seconds(15));
        ASSERT_TRUE(rests()) << at << " ms\n" << text(world);
        const auto& owner = world.tables("node1").volumes.at("web1").record.owner;
        ASSERT_TRUE(owner && settled_on(world, owner->node)) << at << " ms\n" << text(world);
        ASSERT_EQ(starts(world), 1U) << at << " ms\n" << text(world);
        ASSERT_TRUE(world.violations.empty()) << at << " ms\n" << text(world);
    }
}
TEST(Migration, SourcesClusterdIsRestartedAtEachStep) {
    restarted_at_each_step("node1", FakeFinish::well);
}
TEST(Migration, DestinationsClusterdIsRestartedAtEachStep) {
    restarted_at_each_step("node2", FakeFinish::well);
}
TEST(Migration, ClusterdIsRestartedWhereTheSourceStaysPaused) {
    restarted_at_each_step("node1", FakeFinish::left_paused);
    restarted_at_each_step("node2", FakeFinish::left_paused);
}

// At each moment one node loses its power. The guest runs in the end, once, and was started anew once at
// most.
void lost_at_each_step(const std::string& victim, bool witness) {
    for (std::int64_t at = 0; at <= 4000; at += 100) {
        World world(2, witness);
        prepare(world);
        begin_move(world, "node2");
        world.run(milliseconds(at));
        world.cut_power(victim);
        const std::string other = victim == "node1" ? "node2" : "node1";
        ASSERT_TRUE(world.until(seconds(60), [&] { return settled_on(world, other); })) << at << " ms\n"
                                                                                        << text(world);
        world.run(seconds(40));
        ASSERT_TRUE(settled_on(world, other)) << at << " ms\n" << text(world);
        ASSERT_LE(starts(world), 2U) << at << " ms\n" << text(world);
        ASSERT_TRUE(world.violations.empty()) << at << " ms\n" << text(world);
    }
}
TEST(Migration, SourceIsLostAtEachStep) {
    lost_at_each_step("node1", true);
    lost_at_each_step("node1", false);
}
TEST(Migration, DestinationIsLostAtEachStep) {
    lost_at_each_step("node2", true);
    lost_at_each_step("node2", false);
}

// The source has given its epoch up, and the destination dies before the switch.
TEST(Migration, DestinationDiesBetweenReleaseAndSwitch) {
    World world(2, true);
    prepare(world);
    world.auto_power_on = false;
    world.finish = FakeFinish::left_paused;
    begin_move(world, "node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return resumed_there(world); }));
    world.lost_replies_percent = 100;  // nothing can be committed meanwhile
    const auto& id = world.tables("node1").volumes.at("web1").record.id;
    ASSERT_TRUE(world.until(seconds(10), [&] { return world.host("node1").volumes.at(id).refused != 0; }));
    world.cut_power("node2");
    world.lost_replies_percent = 0;
    ASSERT_TRUE(world.until(seconds(90), [&] { return settled_on(world, "node1"); })) << text(world);
    EXPECT_EQ(starts(world), 2U) << text(world);
    world.run(seconds(30));
    EXPECT_EQ(starts(world), 2U) << text(world);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

TEST(Migration, StoppedWhileItMoves) {
    World world(2, true);
    prepare(world);
    begin_move(world, "node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return copying(world); }));
    const auto stopped = world.ask("node1", GuestStop{"web1", false, 20000});
    ASSERT_TRUE(stopped) << stopped.error().message;
    EXPECT_EQ(stopped->state, OperationState::succeeded) << stopped->error << text(world);
    world.run(seconds(5));
    EXPECT_TRUE(world.runners("web1").empty()) << text(world);
    EXPECT_FALSE(world.tables("node1").volumes.at("web1").record.owner);
    EXPECT_TRUE(at_rest(world, "node1"));
    const auto again = world.ask("node1", GuestStart{"web1", "node2"});
    ASSERT_TRUE(again);
    EXPECT_EQ(again->state, OperationState::succeeded) << again->error << text(world);
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

TEST(Migration, ADestinationThatCannotOpenItsGateIsGivenUp) {
    World world(2, true);
    prepare(world);
    world.gates_fail = true;
    const auto moved = move(world, "node2");
    ASSERT_TRUE(moved) << moved.error().message;
    EXPECT_EQ(moved->state, OperationState::failed);
    EXPECT_NE(moved->error.find("did not get ready"), std::string::npos) << moved->error;
    EXPECT_TRUE(settled_on(world, "node1")) << text(world);
    EXPECT_EQ(starts(world), 1U);
}

void second_guest(World& world, const std::string& name) {
    ASSERT_NO_FATAL_FAILURE(define_guest(world, name, 1 << 30));
    const auto started = world.ask("node1", GuestStart{name, "node1"});
    ASSERT_TRUE(started && started->state == OperationState::succeeded) << text(world);
}

TEST(Migration, DrainMovesAllAndUndrainTakesGuestsAgain) {
    World world(2, true);
    prepare(world);
    second_guest(world, "web2");
    second_guest(world, "web3");
    world.run(seconds(3));
    const auto drained = world.ask("node1", NodeDrain{"node1"}, seconds(90));
    ASSERT_TRUE(drained) << drained.error().message;
    EXPECT_EQ(drained->state, OperationState::succeeded) << drained->error << drained->step << text(world);
    for (const char* name : {"web1", "web2", "web3"}) {
        EXPECT_TRUE(world.until(seconds(5), [&] { return settled_on(world, "node2", name); }))
            << name << text(world);
        EXPECT_EQ(starts(world, name), 1U) << name;
    }
    EXPECT_NE(refusal(world, "web1", "node1").find("drained"), std::string::npos);
    EXPECT_FALSE(world.ask("node1", NodeDrain{"node2"}));  // nobody else is left
    const auto undrained = world.ask("node2", NodeUndrain{"node1"});
    ASSERT_TRUE(undrained) << undrained.error().message;
    const auto moved = move(world, "node1");
    ASSERT_TRUE(moved) << moved.error().message;
    EXPECT_EQ(moved->state, OperationState::succeeded) << moved->error;
    EXPECT_TRUE(world.violations.empty()) << text(world);
}

TEST(Migration, ADrainSaysWhyAGuestCannotMove) {
    World world(2, true);
    prepare(world);
    world.auto_power_on = false;
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return acks(world, "node1").size() == 1; }));
    world.boot("node2");
    world.host("node2").disk = FakeDisk::unattached;
    ASSERT_TRUE(world.until(seconds(20), [&] { return world.node("node2").is_acting(); }));
    const auto drained = world.ask("node1", NodeDrain{"node1"}, seconds(10));
    ASSERT_TRUE(drained) << drained.error().message;
    EXPECT_EQ(drained->state, OperationState::running);
    EXPECT_NE(drained->step.find("Outdated"), std::string::npos) << drained->step;
    world.host("node2").disk = FakeDisk::works;
    ASSERT_TRUE(world.until(seconds(60), [&] { return settled_on(world, "node2"); })) << text(world);
    EXPECT_EQ(starts(world), 1U);
}

TEST(Migration, RefusedInOneLine) {
    World world(2, true);
    prepare(world);
    EXPECT_NE(refusal(world, "web1", "node1").find("runs on node1 already"), std::string::npos);
    EXPECT_NE(refusal(world, "web1", "node7").find("no node named node7"), std::string::npos);
    EXPECT_NE(refusal(world, "web9", "node2").find("web9"), std::string::npos);
    world.copy_takes = seconds(30);
    begin_move(world, "node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return copying(world); }));
    EXPECT_NE(refusal(world, "web1", "node2").find("is moving to node2 already"), std::string::npos);
    ASSERT_TRUE(world.ask("node1", GuestMigrateCancel{"web1"}));
    ASSERT_TRUE(world.until(seconds(10), [&] { return settled_on(world, "node1"); }));
    EXPECT_FALSE(world.ask("node1", GuestMigrateCancel{"web1"}));
    world.auto_power_on = false;
    world.cut_power("node2");
    ASSERT_TRUE(world.until(seconds(10), [&] { return acks(world, "node1").size() == 1; }));
    world.run(seconds(5));
    EXPECT_NE(refusal(world, "web1", "node2").find("does not answer"), std::string::npos)
        << refusal(world, "web1", "node2");
    world.boot("node2");
    world.host("node2").disk = FakeDisk::unattached;
    ASSERT_TRUE(world.until(seconds(20), [&] { return world.node("node2").is_acting(); }));
    EXPECT_NE(refusal(world, "web1", "node2").find("wait until it is UpToDate"), std::string::npos)
        << refusal(world, "web1", "node2");
    const auto stopped = world.ask("node1", GuestStop{"web1", false, 10000});
    ASSERT_TRUE(stopped && stopped->state == OperationState::succeeded);
    EXPECT_NE(refusal(world, "web1", "node2").find("does not run"), std::string::npos);
}

}  // namespace
}  // namespace gemel::ha
