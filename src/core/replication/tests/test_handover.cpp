// Live migration as the engines see it (docs/design/0011): the destination's front end is open before its
// epoch is granted, what it is asked waits without a lock, and exactly one epoch is served at any time.
#include <gtest/gtest.h>

#include "core/replication/tests/harness.hpp"

namespace gemel::replication {
namespace {

using harness::healthy;
using harness::Pair;

class Handovers : public testing::TestWithParam<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, Handovers, testing::Range<std::uint64_t>(1, 41));

constexpr std::uint64_t kNext = 2;  // the pair's first epoch is 1

void offer(Pair& p) {
    auto& record = p.store.record;
    record.handover = HandoverRecord{p.node(1).name, p.node(1).incarnation, kNext, "other secret"};
    ++p.store.revision;
    p.tell_all();
    p.settle();
}

void withdraw(Pair& p) {
    p.store.record.handover.reset();
    ++p.store.revision;
    p.tell_all();
    p.settle();
}

void commit_switch(Pair& p) {
    auto& record = p.store.record;
    const HandoverRecord handover = *record.handover;
    record.handover.reset();
    record.epoch = handover.epoch;
    record.owner = OwnerRecord{handover.node, handover.incarnation, handover.epoch, handover.secret,
                               false,         record.owner->purpose};
    ++p.store.revision;
    p.tell_all();
}

std::uint64_t ask(Pair& p, FrontOperation operation, std::uint64_t sector) {
    return p.request(1, operation, sector, operation == FrontOperation::flush ? 0 : 8, false, kNext);
}

TEST_P(Handovers, what_the_destination_is_asked_waits_for_its_grant) {  // L3, D13
    const auto p = healthy(GetParam());
    offer(*p);
    EXPECT_EQ(p->node(1).served, kNext) << "its front end is open";
    EXPECT_EQ(p->view(1).incoming_epoch, kNext);
    EXPECT_EQ(p->view(1).role, Role::secondary);
    const auto early = ask(*p, FrontOperation::write, 8);
    const auto read = ask(*p, FrontOperation::read, 8);
    p->settle(seconds(3));
    EXPECT_FALSE(p->ended(early));
    EXPECT_FALSE(p->ended(read));
    EXPECT_EQ(p->view(1).early_requests, 2U);
    // the owner goes on, on the same block: nothing there is locked
    const auto owners = p->write(0, 8);
    p->settle();
    EXPECT_TRUE(p->done(owners));
    EXPECT_EQ(p->node(1).disk.read(8), owners);

    p->step(0, RefuseEpoch{1});
    p->settle();
    EXPECT_EQ(p->node(0).refused, 1U);
    EXPECT_EQ(p->node(0).served, 0U);
    EXPECT_EQ(p->view(0).refused_epoch, 1U);
    EXPECT_FALSE(p->ended(early)) << "refused there is not granted here";
    commit_switch(*p);
    p->settle(seconds(1));
    EXPECT_EQ(p->view(1).role, Role::primary);
    EXPECT_EQ(p->view(1).epoch, kNext);
    EXPECT_TRUE(p->done(early));
    EXPECT_TRUE(p->done(read));
    EXPECT_EQ(p->view(1).early_requests, 0U);
    const auto flush = ask(*p, FrontOperation::flush, 0);
    p->settle();
    EXPECT_TRUE(p->done(flush));
    EXPECT_EQ(p->node(0).disk.data_stable[8], early);
    EXPECT_TRUE(p->equal());
}

TEST_P(Handovers, a_handover_that_is_withdrawn_changes_nothing) {  // L4
    const auto p = healthy(GetParam());
    offer(*p);
    const auto early = ask(*p, FrontOperation::write, 8);
    p->settle();
    withdraw(*p);
    EXPECT_TRUE(p->ended(early));
    EXPECT_FALSE(p->done(early)) << "refused";
    EXPECT_EQ(p->node(1).served, 0U);
    EXPECT_EQ(p->view(1).incoming_epoch, 0U);
    EXPECT_EQ(p->view(0).epoch, 1U);
    const auto goes_on = p->write(0, 8);
    p->settle();
    EXPECT_TRUE(p->done(goes_on));
    EXPECT_TRUE(p->equal());
}

TEST_P(Handovers, the_destination_restarts_and_opens_it_again) {
    const auto p = healthy(GetParam());
    offer(*p);
    p->kill(1);
    p->disconnect();
    p->start(1);
    p->connect();
    p->tell_all();
    p->settle(seconds(1));
    EXPECT_EQ(p->node(1).served, kNext);
    const auto early = ask(*p, FrontOperation::write, 8);
    p->step(0, RefuseEpoch{1});
    p->settle();
    commit_switch(*p);
    p->settle(seconds(1));
    EXPECT_TRUE(p->done(early));
}

TEST_P(Handovers, a_grant_to_another_ends_the_handover) {
    const auto p = healthy(GetParam());
    offer(*p);
    const auto early = ask(*p, FrontOperation::write, 8);
    p->step(0, RefuseEpoch{1});
    p->settle();
    p->store.record.handover.reset();
    p->store.record.epoch = kNext;  // never given to another
    p->grant(1);
    p->settle(seconds(1));
    EXPECT_FALSE(p->done(early)) << "another QEMU's front end";
    EXPECT_EQ(p->view(1).epoch, kNext + 1);
    EXPECT_EQ(p->node(1).served, kNext + 1);
}

}  // namespace
}  // namespace gemel::replication
