// Random faults on a pair, then healing: nothing acknowledged and flushed is lost, reads at the owner are
// never older than an acknowledged write, and both replicas end equal (D1, D12, D16, C12).
#include <gtest/gtest.h>

#include "core/replication/tests/harness.hpp"

namespace gemel::replication {
namespace {

using harness::Pair;

// What the guest knows. One life of the guest ends when its host or its epoch does.
class Guest {
  public:
    explicit Guest(Pair& pair) : pair_(pair) {}

    void write() {
        const std::uint64_t sector = pair_.random.below(kSpots) * kSpread;
        const auto tag = pair_.write(owner(), sector, 8, pair_.random.chance(1, 8));
        submitted_[tag] = sector;
    }
    void flush() {
        Flush f;
        collect();
        f.covers = acknowledged_;
        flushes_[pair_.request(owner(), FrontOperation::flush, 0, 0)] = f;
    }
    // Take in the answers: newest acknowledged write of each spot, and what a flush made stable.
    void collect() {
        for (auto it = submitted_.begin(); it != submitted_.end();) {
            if (pair_.done(it->first)) {
                acknowledged_[it->second] = std::max(acknowledged_[it->second], it->first);
                it = submitted_.erase(it);
            } else if (pair_.ended(it->first)) {
                lost_.insert(it->first);
                it = submitted_.erase(it);
            } else {
                ++it;
            }
        }
        for (auto it = flushes_.begin(); it != flushes_.end();) {
            if (pair_.done(it->first)) {
                for (const auto& [sector, tag] : it->second.covers)
                    stable_[sector] = std::max(stable_[sector], tag);
            }
            it = pair_.ended(it->first) ? flushes_.erase(it) : std::next(it);
        }
    }
    // The host lost power: what was not flushed may be gone, but never what was.
    void died() {
        collect();
        submitted_.clear();
        flushes_.clear();
        acknowledged_ = stable_;
    }
    // The disk of the current owner, when nothing is in flight.
    void check(int node) {
        collect();
        for (const auto& [sector, tag] : acknowledged_) {
            const auto found = pair_.node(node).disk.read(sector);
            EXPECT_GE(found, tag) << "sector " << sector << " on node " << node
                                  << " is older than what was acknowledged";
        }
    }
    int owner() const { return pair_.store.record.owner && pair_.store.record.owner->node == "b" ? 1 : 0; }

  private:
    static constexpr std::uint64_t kSpots = 60;
    static constexpr std::uint64_t kSpread = 2048;
    struct Flush {
        std::map<std::uint64_t, std::uint64_t> covers;
    };
    Pair& pair_;
    std::map<std::uint64_t, std::uint64_t> submitted_;  // tag -> sector
    std::map<std::uint64_t, std::uint64_t> acknowledged_;
    std::map<std::uint64_t, std::uint64_t> stable_;
    std::map<std::uint64_t, Flush> flushes_;
    std::set<std::uint64_t> lost_;
};

class Chaos {
  public:
    explicit Chaos(std::uint64_t seed) : pair(seed), guest(pair), random(seed * 7 + 1) {}

    void run() {
        pair.start(0);
        pair.start(1);
        pair.settle();
        pair.tell_all();
        pair.connect();
        pair.settle();
        pair.grant(0);
        pair.settle();
        for (int round = 0; round < 12 && !testing::Test::HasFailure(); ++round) {
            load();
            fault();
            load();
            pair.settle(milliseconds(static_cast<std::int64_t>(20 + random.below(600))));
            if (random.chance(2, 3)) heal();
        }
        heal();
        pair.settle(seconds(6));
        finish();
    }

  private:
    void load() {
        for (std::uint64_t i = 0; i < 12; ++i) {
            if (!pair.node(guest.owner()).engine) return;
            random.chance(1, 6) ? guest.flush() : guest.write();
            steps(random.below(30));
        }
    }
    void steps(std::uint64_t count) {
        for (std::uint64_t i = 0; i < count; ++i) {
            if (pair.events.empty() && pair.links[0].empty() && pair.links[1].empty()) return;
            pair.one();
        }
    }
    void fault() {
        const int victim = static_cast<int>(random.below(2));
        switch (random.below(7)) {
            case 0: pair.disconnect(); break;
            case 1:
                if (!pair.session.is_nil()) pair.connect();
                break;
            case 2:
                pair.kill(victim);
                pair.disconnect();
                break;
            case 3:
            case 4:
                if (pair.node(victim).engine) power_cut(victim);
                break;
            case 5: pair.store_writable = !pair.store_writable; break;
            case 6:
                if (pair.node(0).engine && pair.node(1).engine && !pair.session.is_nil()) move_owner();
                break;
        }
    }
    // Clean handover between epochs: the guest has stopped.
    void move_owner() {
        pair.store_writable = true;
        pair.settle(seconds(2));
        const int target = 1 - guest.owner();
        if (!pair.both_in_ack_set() || pair.view(target).local_state != ReplicaState::up_to_date) return;
        if (pair.view(guest.owner()).requests_in_flight != 0) return;
        guest.check(guest.owner());
        pair.grant(target);
    }
    void power_cut(int victim) {
        const bool owner = guest.owner() == victim;
        guest.collect();
        pair.cut_power(victim);
        down[static_cast<std::size_t>(victim)] = true;
        pair.disconnect();
        if (owner) guest.died();
    }
    void heal() {
        pair.store_writable = true;
        const int owner = guest.owner();
        const bool owner_down = down[static_cast<std::size_t>(owner)];
        const int other = 1 - owner;
        // The coordinator: a dead owner is fenced, the other takes over if the committed record allows it.
        if (owner_down && pair.node(other).engine &&
            pair.store.record.replicas[static_cast<std::size_t>(other)].in_ack_set &&
            pair.view(other).attached) {
            pair.promote_alone(other);
        }
        for (int i = 0; i < 2; ++i) {
            if (pair.node(i).engine) continue;
            pair.start(i, !down[static_cast<std::size_t>(i)]);
            down[static_cast<std::size_t>(i)] = false;
        }
        pair.settle(milliseconds(40));
        pair.tell_all();
        if (pair.store.record.owner && pair.store.record.owner->node == pair.node(owner).name && owner_down) {
            pair.grant(owner);  // same node again, new incarnation
        }
        if (pair.session.is_nil()) pair.connect();
        pair.settle(milliseconds(static_cast<std::int64_t>(random.below(2500))));
    }
    void finish() {
        guest.check(guest.owner());
        for (int i = 0; i < 2; ++i) {
            const View v = pair.view(i);
            EXPECT_EQ(v.connection, ConnectionState::connected) << i << " " << v.problem;
            EXPECT_EQ(v.sync, SyncState::off);
            EXPECT_EQ(v.requests_in_flight, 0U) << "node " << i << " role " << static_cast<int>(v.role)
                                                << " frozen " << static_cast<int>(v.frozen);
        }
        EXPECT_TRUE(pair.both_in_ack_set());
        EXPECT_TRUE(pair.equal());
        EXPECT_EQ(pair.view(guest.owner()).role, Role::primary);
        if (testing::Test::HasFailure()) {
            for (int i = 0; i < 2; ++i) {
                for (const auto& text : pair.node(i).notices) printf("%d %s\n", i, text.c_str());
            }
        }
    }

  public:
    Pair pair;

  private:
    Guest guest;
    Prng random;
    std::array<bool, 2> down{};
};

class Faults : public testing::TestWithParam<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Seeds, Faults, testing::Range<std::uint64_t>(1, 41));

TEST_P(Faults, lose_nothing_and_heal) {
    Chaos chaos(GetParam());
    chaos.run();
}

}  // namespace
}  // namespace gemel::replication
