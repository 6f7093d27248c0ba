// Guard: no vCPU runs without a lease, and nobody is killed who could still be allowed (C1, C2, H40).
#include <gtest/gtest.h>

#include "core/ha/guard.hpp"

namespace gemel::ha {
namespace {

const GuestId kGuest = GuestId::from_random(1, 1);
const VolumeId kVolume = VolumeId::from_random(2, 2);
const VolumeId kSecond = VolumeId::from_random(3, 3);

struct Bench {
    Guard guard{GuardConfig{}};
    Instant now = Instant{} + seconds(100);
    GuardOutputs last;

    GuardOutputs step(const GuardInput& input) {
        last.clear();
        guard.step(now, input, last);
        return last;
    }
    GuardOutputs after(Duration duration) {
        now = now + duration;
        return step(GuardTick{});
    }
    template <typename Output>
    bool said() const {
        for (const auto& output : last) {
            if (std::holds_alternative<Output>(output)) return true;
        }
        return false;
    }
    GuardState state() const { return guard.view().at(0).state; }
    void run(bool regrant_possible = false) {
        step(Register{kGuest, "web1", {{kVolume, 7}}, regrant_possible});
        step(LeaseUntil{kVolume, 7, now + seconds(10)});
        step(DomainSeen{kGuest, SeenDomain::running});
        EXPECT_EQ(state(), GuardState::allowed);
    }
    void freeze() {
        after(seconds(10));
        EXPECT_TRUE(said<FreezeDomain>());
        step(DomainSeen{kGuest, SeenDomain::paused});
        EXPECT_EQ(state(), GuardState::frozen);
    }
};

TEST(Guard, ARenewedLeaseKeepsItRunning) {
    Bench b;
    b.run();
    for (int i = 0; i < 20; ++i) {
        b.step(LeaseUntil{kVolume, 7, b.now + seconds(10)});
        b.after(seconds(5));
        EXPECT_TRUE(b.last.empty());
    }
}

// L5: a guest that moved here runs before its lease does, for as long as that takes; then it stands still.
TEST(Guard, AGuestThatMovedHereAwaitsItsLease) {
    Bench b;
    b.step(Register{kGuest, "web1", {{kVolume, 8}}, false, true});
    b.step(DomainSeen{kGuest, SeenDomain::running});
    b.after(milliseconds(2900));
    EXPECT_EQ(b.state(), GuardState::allowed);
    b.step(LeaseUntil{kVolume, 8, b.now + seconds(10)});
    b.step(Register{kGuest, "web1", {{kVolume, 8}}, true});  // placed here now
    b.after(seconds(9));
    EXPECT_EQ(b.state(), GuardState::allowed);

    Bench other;
    other.step(Register{kGuest, "web1", {{kVolume, 8}}, false, true});
    other.step(DomainSeen{kGuest, SeenDomain::running});
    other.after(seconds(3));
    EXPECT_TRUE(other.said<FreezeDomain>());
    other.step(DomainSeen{kGuest, SeenDomain::paused});
    other.after(seconds(60));
    EXPECT_EQ(other.state(), GuardState::frozen);
    other.step(LeaseUntil{kVolume, 8, other.now + seconds(10)});
    EXPECT_TRUE(other.said<ThawDomain>());
}

TEST(Guard, H40FrozenNotKilledAndResumedByAFreshLease) {
    Bench b;
    b.run();
    b.freeze();
    b.after(seconds(3600));
    EXPECT_EQ(b.state(), GuardState::frozen);
    b.step(LeaseUntil{kVolume, 7, b.now + seconds(10)});
    EXPECT_TRUE(b.said<ThawDomain>());
    b.step(DomainSeen{kGuest, SeenDomain::running});
    EXPECT_EQ(b.state(), GuardState::allowed);
}

TEST(Guard, KilledBeforeAnotherNodeCouldBeGranted) {
    Bench b;
    b.run(true);
    b.freeze();
    b.after(milliseconds(4900));
    EXPECT_EQ(b.state(), GuardState::frozen);
    b.after(milliseconds(200));
    EXPECT_TRUE(b.said<KillDomain>());
    Bench told;
    told.run();
    told.freeze();
    told.step(KillAt{kVolume, 7, told.now + seconds(1)});
    told.after(seconds(1));
    EXPECT_TRUE(told.said<KillDomain>());
}

TEST(Guard, AKillThatIsTakenBackDoesNotHappen) {
    Bench b;
    b.run();
    b.freeze();
    b.step(KillAt{kVolume, 7, b.now + seconds(1)});
    b.step(KillAt{kVolume, 7, Instant::never()});
    b.after(seconds(60));
    EXPECT_EQ(b.state(), GuardState::frozen);
}

TEST(Guard, ACommittedLossKillsAtOnce) {
    Bench b;
    b.run();
    b.step(OwnershipLost{kVolume, 6});
    EXPECT_EQ(b.state(), GuardState::allowed);  // another epoch
    b.step(OwnershipLost{kVolume, 7});
    EXPECT_TRUE(b.said<KillDomain>());
    b.step(DomainSeen{kGuest, SeenDomain::gone});
    b.step(Forget{kGuest});
    EXPECT_TRUE(b.guard.view().empty());
}

TEST(Guard, WhatCannotBeVerifiedStopsTheWatchdog) {
    Bench b;
    b.run();
    b.after(seconds(10));
    b.after(seconds(2));  // not seen paused
    EXPECT_TRUE(b.said<KillDomain>());
    b.after(seconds(2));  // not seen gone
    ASSERT_TRUE(b.said<FeedWatchdog>());
    EXPECT_FALSE(std::get<FeedWatchdog>(b.last.front()).feed);
    EXPECT_TRUE(b.said<KillDomain>());
    b.step(DomainSeen{kGuest, SeenDomain::gone});
    ASSERT_TRUE(b.said<FeedWatchdog>());
    EXPECT_TRUE(std::get<FeedWatchdog>(b.last.back()).feed);
}

// Its old lease's end lay in the past and was the next deadline for ever: the daemon's loop did not sleep.
TEST(Guard, AGuestWhoseProcessEndedWakesNobodyAndMayStartAgain) {
    for (const bool killed : {false, true}) {
        Bench b;
        b.run();
        if (killed) b.step(OwnershipLost{kVolume, 7});
        b.step(DomainSeen{kGuest, SeenDomain::gone});
        b.after(seconds(60));
        EXPECT_TRUE(b.last.empty());
        EXPECT_EQ(b.guard.next_deadline(), Instant::never());
        b.step(Register{kGuest, "web1", {{kVolume, 8}}, false});
        b.step(LeaseUntil{kVolume, 8, b.now + seconds(10)});
        b.step(DomainSeen{kGuest, SeenDomain::running});
        EXPECT_FALSE(b.said<KillDomain>() || b.said<FreezeDomain>());
        EXPECT_EQ(b.state(), GuardState::allowed);
    }
}

TEST(Guard, ResumedByHandItIsFrozenAgain) {
    Bench b;
    b.run();
    b.freeze();
    b.step(DomainSeen{kGuest, SeenDomain::running});
    EXPECT_TRUE(b.said<FreezeDomain>());
}

TEST(Guard, EveryDiskCountsAndLeasesOnlyGrow) {
    Bench b;
    b.step(Register{kGuest, "web1", {{kVolume, 7}, {kSecond, 1}}, false});
    b.step(LeaseUntil{kVolume, 7, b.now + seconds(10)});
    b.step(LeaseUntil{kSecond, 1, b.now + seconds(4)});
    b.step(LeaseUntil{kVolume, 7, b.now + seconds(2)});
    b.step(DomainSeen{kGuest, SeenDomain::running});
    EXPECT_EQ(b.guard.next_deadline(), b.now + seconds(4));
    b.after(milliseconds(3999));
    EXPECT_EQ(b.state(), GuardState::allowed);
    b.after(milliseconds(1));
    EXPECT_TRUE(b.said<FreezeDomain>());
}

TEST(Guard, AGuestWithoutAnyLeaseIsFrozenAsSoonAsItIsSeen) {
    Bench b;
    b.step(Register{kGuest, "web1", {{kVolume, 7}}, false});
    EXPECT_TRUE(b.guard.view().size() == 1);
    b.step(DomainSeen{kGuest, SeenDomain::running});
    EXPECT_TRUE(b.said<FreezeDomain>());
}

}  // namespace
}  // namespace gemel::ha
