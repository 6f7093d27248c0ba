// The store side of the seam with a real etcd: what the machine would see and ask.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <mutex>

#include <gtest/gtest.h>

#include "adapters/etcd/tests/harness.hpp"
#include "core/formats/records_json.hpp"
#include "daemons/clusterd/store_driver.hpp"

namespace gemel::clusterd {
namespace {

using cluster::Input;
using gemel::testing::StoreCluster;

class Inbox {
  public:
    Sink sink() {
        return [this](Input input) {
            const std::scoped_lock lock(mutex_);
            all_.push_back(std::move(input));
            changed_.notify_all();
        };
    }
    // Waits for the first input of that kind that fits, and takes it out.
    template <typename Kind, typename Fits>
    std::optional<Kind> wait(Fits fits, std::chrono::milliseconds limit = std::chrono::seconds(20)) {
        std::unique_lock lock(mutex_);
        std::optional<Kind> found;
        changed_.wait_for(lock, limit, [&] {
            for (auto it = all_.begin(); it != all_.end(); ++it) {
                const auto* one = std::get_if<Kind>(&*it);
                if (one == nullptr || !fits(*one)) continue;
                found = *one;
                all_.erase(it);
                return true;
            }
            return false;
        });
        return found;
    }
    template <typename Kind>
    std::optional<Kind> wait() {
        return wait<Kind>([](const Kind&) { return true; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<Input> all_;
};

// A driver for the first member of a store; node.toml knows that member only.
class DriverOfOneMember : public ::testing::Test {
  protected:
    explicit DriverOfOneMember(int members) : cluster_(members) {
        auto& member = cluster_.member(0);
        settings_.file.name = "node1";
        settings_.file.cluster = ClusterId::from_random(1, 2);
        settings_.file.state_dir = member.state.string();
        settings_.file.client_url = member.config.client_url;
        settings_.file.peer_url = member.config.peer_url;
        settings_.file.members = {{"node1", member.config.peer_url, member.config.client_url}};
        settings_.tls = member.config.tls;
        driver_ = std::make_unique<StoreDriver>(settings_, inbox_.sink());
    }
    StoreCluster cluster_;
    Settings settings_;
    Inbox inbox_;
    cluster::Tag tag_ = 0;
    std::unique_ptr<StoreDriver> driver_;
};

class StoreDriverTest : public DriverOfOneMember {
  protected:
    StoreDriverTest() : DriverOfOneMember(1) {}
    cluster::StoreCommandDone command(cluster::StoreCommandKind kind) {
        const cluster::Tag tag = ++tag_;
        driver_->handle(cluster::StoreCommand{tag, std::move(kind)});
        const auto done =
            inbox_.wait<cluster::StoreCommandDone>([&](const auto& one) { return one.tag == tag; });
        return done.value_or(cluster::StoreCommandDone{0, false, "no answer"});
    }
    cluster::TxnDone commit(cluster::Txn txn) {
        const cluster::Tag tag = ++tag_;
        driver_->handle(cluster::SubmitTxn{tag, std::move(txn)});
        return inbox_.wait<cluster::TxnDone>([&](const auto& one) { return one.tag == tag; })
            .value_or(cluster::TxnDone{});
    }
    void begin() {
        std::ofstream(settings_.bootstrap_pending()) << "";
        driver_->start();
        ASSERT_TRUE(command(cluster::StartStore{}).ok);
        ASSERT_TRUE(inbox_.wait<cluster::TableSnapshot>());
    }
};

TEST_F(StoreDriverTest, AStoreIsBegunOnlyWhereItWasAskedForAndOnlyOnce) {
    EXPECT_FALSE(driver_->boot_facts()->store_present);
    const auto refused = command(cluster::StartStore{});
    EXPECT_FALSE(refused.ok);
    EXPECT_NE(refused.detail.find("no store here"), std::string::npos) << refused.detail;
    begin();
    EXPECT_TRUE(std::filesystem::exists(settings_.bootstrap_pending()));
    const auto first =
        commit({{{"/gemel/a", cluster::CompareKind::mod_revision, 0, ""}}, {{"/gemel/a", "1", 0}}, {}});
    EXPECT_EQ(first.outcome, cluster::TxnOutcome::committed);
    EXPECT_FALSE(std::filesystem::exists(settings_.bootstrap_pending()));
    EXPECT_EQ(commit({{{"/gemel/a", cluster::CompareKind::mod_revision, 0, ""}}, {{"/gemel/a", "2", 0}}, {}})
                  .outcome,
              cluster::TxnOutcome::compare_failed);
    const auto event = inbox_.wait<cluster::WatchEvents>();
    ASSERT_TRUE(event);
    ASSERT_EQ(event->changes.size(), 1U);
    EXPECT_EQ(event->changes[0].value, "1");
    EXPECT_EQ(event->changes[0].mod_revision, first.revision);
    const auto facts = driver_->boot_facts();
    EXPECT_TRUE(facts->store_running);
    EXPECT_TRUE(facts->store_present);
}

TEST_F(StoreDriverTest, ReadsLeasesAndHealth) {
    begin();
    driver_->handle(cluster::GrantLease{5});
    const auto lease = inbox_.wait<cluster::LeaseGranted>();
    ASSERT_TRUE(lease && lease->id != 0);
    const auto put = commit({{}, {{"/gemel/coordinator", "me", lease->id}, {"/gemel/b", "1", 0}}, {}});
    ASSERT_EQ(put.outcome, cluster::TxnOutcome::committed);
    driver_->handle(cluster::StoreRead{99, {"/gemel/coordinator", "/gemel/none"}, false});
    const auto read = inbox_.wait<cluster::ReadDone>();
    ASSERT_TRUE(read && read->ok);
    EXPECT_EQ(read->tag, 99U);
    ASSERT_EQ(read->values.size(), 1U);
    EXPECT_EQ(read->values[0].create_revision, put.revision);
    driver_->handle(cluster::StoreRead{100, {"/gemel/"}, true});
    EXPECT_EQ(inbox_.wait<cluster::ReadDone>()->values.size(), 2U);
    driver_->handle(cluster::RevokeLease{lease->id});
    const auto gone = inbox_.wait<cluster::WatchEvents>([](const cluster::WatchEvents& events) {
        return !events.changes.empty() && !events.changes[0].value;
    });
    EXPECT_TRUE(gone) << "the key goes with its lease";
    const auto health =
        inbox_.wait<cluster::StoreHealth>([](const auto& one) { return !one.leader.empty(); });
    ASSERT_TRUE(health);
    EXPECT_TRUE(health->running && health->answers);
    EXPECT_EQ(health->leader, "node1");
    ASSERT_EQ(health->members.size(), 1U);
    EXPECT_EQ(health->members[0].peer_url, settings_.file.peer_url);
}

TEST_F(StoreDriverTest, ForcingAndSettingAside) {
    begin();
    ASSERT_EQ(commit({{}, {{"/gemel/lineage", "one", 0}}, {}}).outcome, cluster::TxnOutcome::committed);
    EXPECT_FALSE(command(cluster::ForceActivate{}).ok) << "nothing was prepared";
    const cluster::Txn first{
        {{"/gemel/lineage", cluster::CompareKind::value, 0, "one"}}, {{"/gemel/lineage", "two", 0}}, {}};
    const auto prepared = command(cluster::ForcePrepare{first});
    ASSERT_TRUE(prepared.ok) << prepared.detail;
    ASSERT_TRUE(command(cluster::ForceActivate{}).ok);
    const auto forced = inbox_.wait<cluster::TableSnapshot>(
        [](const auto& tables) { return tables.all.size() == 1 && tables.all[0].value == "two"; });
    EXPECT_TRUE(forced);
    const Uuid nonce = Uuid::from_random(5, 6);
    ASSERT_TRUE(command(cluster::WriteMemberNonce{nonce, {}}).ok);
    EXPECT_EQ(driver_->boot_facts()->member_nonce, nonce);
    ASSERT_TRUE(command(cluster::SetStoreAside{"superseded"}).ok);
    EXPECT_FALSE(driver_->boot_facts()->store_present);
    EXPECT_FALSE(command(cluster::StartStore{}).ok) << "bootstrap is over: it has to be added";
    EXPECT_TRUE(inbox_.wait<cluster::StoreHealth>([](const auto& one) { return !one.running; }));
}

// A node's own member hangs, as a process that was stopped does: its connections stay open and silent.
// The other members must come from the committed voters.
class OwnMemberHangsTest : public DriverOfOneMember {
  protected:
    OwnMemberHangsTest() : DriverOfOneMember(3) { cluster_.start_all(); }
    void signal_member(std::size_t index, int signal) {
        ASSERT_EQ(::kill(cluster_.member(index).process().find(), signal), 0);
    }
    void commit_voters() {
        ClusterRecord record;
        record.id = settings_.file.cluster;
        record.name = "test";
        for (std::size_t i = 0; i < 3; ++i) {
            const auto& config = cluster_.member(i).config;
            record.voters.push_back({config.name, config.peer_url, config.client_url, false});
        }
        const auto done = cluster_.client()->commit(
            {{}, {etcd::Step::put(std::string(keys::kCluster), encode(record))}, {}}, seconds(5));
        ASSERT_EQ(done.outcome, etcd::Outcome::committed) << done.error.message;
    }
    void send_read() { driver_->handle(cluster::StoreRead{++tag_, {"/gemel/lineage"}, true, false}); }
    // Reads again, as the machine does, until one is answered: the first ones may meet an election.
    bool read_is_answered() {
        return gemel::testing::eventually(seconds(20), [&] {
            send_read();
            const auto done = inbox_.wait<cluster::ReadDone>([&](const auto& one) { return one.tag == tag_; },
                                                             std::chrono::seconds(5));
            return done && done->ok;
        });
    }
    bool write_is_committed(const std::string& key) {
        return gemel::testing::eventually(seconds(20), [&] {
            driver_->handle(cluster::SubmitTxn{++tag_, {{}, {{key, "1", 0}}, {}}});
            const auto done = inbox_.wait<cluster::TxnDone>([&](const auto& one) { return one.tag == tag_; },
                                                            std::chrono::seconds(5));
            return done && done->outcome == cluster::TxnOutcome::committed;
        });
    }
    // Reads as the machine does, four times a second, until an event of the key has come.
    bool event_of(const std::string& key) {
        return gemel::testing::eventually(seconds(20), [&] {
            send_read();
            const auto tables = inbox_.wait<cluster::TableSnapshot>(
                [&](const auto& one) {
                    return std::any_of(one.all.begin(), one.all.end(),
                                       [&](const auto& pair) { return pair.key == key; });
                },
                std::chrono::milliseconds(125));
            const auto events = inbox_.wait<cluster::WatchEvents>(
                [&](const auto& one) { return !one.changes.empty() && one.changes[0].key == key; },
                std::chrono::milliseconds(125));
            return tables || events;
        });
    }
    // What was sent to a leader that hangs is lost: sent again, until another one leads.
    void put_at(std::size_t member, const std::string& key) {
        const auto client = cluster_.member(member).client();
        ASSERT_TRUE(gemel::testing::eventually(seconds(20), [&] {
            return client->commit({{}, {etcd::Step::put(key, "x")}, {}}, seconds(1)).outcome ==
                   etcd::Outcome::committed;
        }));
    }
};

TEST_F(OwnMemberHangsTest, AnotherOneIsUsedMeanwhileAndTheOwnOneAgainWhenItServes) {
    commit_voters();
    driver_->start();
    ASSERT_TRUE(inbox_.wait<cluster::TableSnapshot>());
    signal_member(0, SIGSTOP);
    EXPECT_TRUE(read_is_answered()) << "the others are a quorum";
    EXPECT_TRUE(write_is_committed("/gemel/hangs"));
    EXPECT_TRUE(event_of("/gemel/hangs")) << "a watch that is silent while others see changes is given up";
    signal_member(0, SIGCONT);
    // Back on its own: the two others can hang one after the other.
    ASSERT_TRUE(
        inbox_.wait<cluster::TableSnapshot>([](const auto&) { return true; }, std::chrono::seconds(20)))
        << "the watch returns to our own member";
    for (const std::size_t other : {1U, 2U}) {
        signal_member(other, SIGSTOP);
        put_at(0, "/gemel/back" + std::to_string(other));
        EXPECT_TRUE(event_of("/gemel/back" + std::to_string(other)));
        signal_member(other, SIGCONT);
    }
}

// Booted after a blackout, alone: the member is started but meets no quorum, and answers nobody.
class BootedAloneTest : public DriverOfOneMember {
  protected:
    BootedAloneTest() : DriverOfOneMember(2) { cluster_.start_all(); }
};

TEST_F(BootedAloneTest, WhatIsOnItsDiskIsReadAllTheSame) {
    const auto put =
        cluster_.client()->commit({{}, {etcd::Step::put("/gemel/lineage", "one")}, {}}, seconds(5));
    ASSERT_EQ(put.outcome, etcd::Outcome::committed) << put.error.message;
    for (const std::size_t member : {0U, 1U}) ASSERT_TRUE(cluster_.member(member).process().stop(seconds(3)));
    ASSERT_TRUE(cluster_.member(0).process().start({cluster_.initial_cluster(), false}));
    std::optional<cluster::ReadDone> done;
    EXPECT_TRUE(gemel::testing::eventually(seconds(40), [&] {
        driver_->handle(cluster::StoreRead{++tag_, {"/gemel/"}, true, true});
        done = inbox_.wait<cluster::ReadDone>([&](const auto& one) { return one.tag == tag_; });
        return done && done->ok;
    }));
    ASSERT_TRUE(done && done->values.size() == 1U);
    EXPECT_EQ(done->values[0].value, "one");
    EXPECT_EQ(done->revision, static_cast<std::uint64_t>(put.header.revision));
    EXPECT_NE(cluster_.member(0).process().find(), 0) << "the member itself waits for the other one";
    EXPECT_FALSE(cluster_.member(0).directory.has_copy());
}

// Before our member is started the others' are asked what they know of it, quorum or not (H8, H39).
class OthersAreAskedTest : public DriverOfOneMember {
  protected:
    OthersAreAskedTest() : DriverOfOneMember(3) {
        cluster_.start_all();
        for (const std::size_t other : {1U, 2U}) {
            const auto& config = cluster_.member(other).config;
            settings_.file.members.push_back(
                {"node" + std::to_string(other + 1), config.peer_url, config.client_url});
        }
        driver_ = std::make_unique<StoreDriver>(settings_, inbox_.sink());
    }
    std::optional<cluster::ReadDone> ask(const std::string& member) {
        driver_->handle(cluster::StoreRead{++tag_, {"/gemel/nodes/node1"}, true, true, member});
        return inbox_.wait<cluster::ReadDone>([&](const auto& one) { return one.tag == tag_; });
    }
};

TEST_F(OthersAreAskedTest, WhatAnotherMemberHasAppliedIsReadWithoutAQuorum) {
    const auto put =
        cluster_.client()->commit({{}, {etcd::Step::put("/gemel/nodes/node1", "later")}, {}}, seconds(5));
    ASSERT_EQ(put.outcome, etcd::Outcome::committed) << put.error.message;
    for (const std::size_t member : {0U, 2U}) ASSERT_TRUE(cluster_.member(member).process().stop(seconds(3)));
    std::optional<cluster::ReadDone> done;
    // a follower may apply it a moment later
    EXPECT_TRUE(gemel::testing::eventually(seconds(20), [&] {
        done = ask("node2");
        return done && done->ok && !done->values.empty();
    }));
    ASSERT_TRUE(done && done->values.size() == 1U);
    EXPECT_EQ(done->values[0].value, "later");
    const auto nobody = ask("node3");
    ASSERT_TRUE(nobody.has_value()) << "one attempt, then an answer";
    EXPECT_FALSE(nobody->ok);
    const auto stranger = ask("node9");
    ASSERT_TRUE(stranger.has_value());
    EXPECT_FALSE(stranger->ok);
}

}  // namespace
}  // namespace gemel::clusterd
