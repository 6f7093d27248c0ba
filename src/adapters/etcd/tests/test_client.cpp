#include <condition_variable>
#include <mutex>
#include <set>

#include <gtest/gtest.h>

#include "adapters/etcd/base64.hpp"
#include "adapters/etcd/client.hpp"
#include "adapters/etcd/codec.hpp"
#include "adapters/etcd/tests/harness.hpp"
#include "adapters/etcd/watcher.hpp"

namespace gemel::etcd {
namespace {

using gemel::testing::eventually;
using gemel::testing::StoreCluster;

TEST(Base64, PublishedVectorsAndBytes) {
    const std::pair<std::string, std::string> vectors[] = {
        {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foobar", "Zm9vYmFy"}};
    for (const auto& [plain, text] : vectors) {
        EXPECT_EQ(base64_encoded(plain), text);
        EXPECT_EQ(*base64_decoded(text), plain);
    }
    std::string all;
    for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
    EXPECT_EQ(*base64_decoded(base64_encoded(all)), all);
    for (const char* bad : {"Z", "Zg=", "Zm9$", "===="}) EXPECT_FALSE(base64_decoded(bad)) << bad;
}

TEST(Codec, PrefixEnd) {
    EXPECT_EQ(prefix_end("/gemel/"), "/gemel0");
    EXPECT_EQ(prefix_end("a\xff"), "b");
    EXPECT_EQ(prefix_end("\xff"), std::string(1, '\0'));
}

TEST(Codec, AnswersWithoutEtcdsFormAreErrors) {
    for (const char* bad : {"", "[]", "{}", "{\"header\":{\"revision\":\"x\"}}", "{\"header\":{},\"kvs\":{}}",
                            "{\"header\":{},\"kvs\":[{\"key\":\"$\"}]}"})
        EXPECT_FALSE(codec::range_response(bad)) << bad;
    EXPECT_EQ(codec::failure("{\"error\":\"no leader\",\"code\":14}").code, 14);
    EXPECT_EQ(codec::failure("{\"error\":{\"grpc_code\":14,\"message\":\"gone\"}}").message, "gone");
}

TEST(MemberList, OneThatFailedIsLastUntilItServedAfterTheFailure) {
    const auto at = [](const char* url) { return *http::Address::parse(url); };
    const auto own = at("https://127.0.0.1:1");
    const auto other = at("https://127.0.0.1:2");
    MemberList list({own, other}, std::chrono::hours(1));
    EXPECT_EQ(list.best(), own);
    const auto before = MemberList::Clock::now();
    list.failed(own);
    EXPECT_EQ(list.best(), other);
    list.served(own, before);
    EXPECT_EQ(list.best(), other) << "asked before the failure, answered after it: proves nothing";
    list.failed(other);
    EXPECT_EQ(list.best(), own) << "all failed: in the order of preference";
    list.served(own, MemberList::Clock::now());
    list.set({own, at("https://127.0.0.1:3")});
    EXPECT_EQ(list.in_order().size(), 2U);
    EXPECT_FALSE(list.is_suspect(other)) << "no member any more";
    MemberList forgetful({own, other}, std::chrono::seconds(0));
    forgetful.failed(own);
    EXPECT_TRUE(eventually(seconds(5), [&] { return forgetful.best() == own; }));
}

// One member for all tests of this file: the store is shared, the keys are not.
class ClientTest : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        cluster = std::make_unique<StoreCluster>(1);
        cluster->start_all();
    }
    static void TearDownTestSuite() { cluster.reset(); }
    static std::unique_ptr<StoreCluster> cluster;
    std::unique_ptr<Client> client = cluster->client();
    const Duration limit = seconds(5);
};
std::unique_ptr<StoreCluster> ClientTest::cluster;

TEST_F(ClientTest, TransactionsCompareEverythingTheyName) {
    const std::string value("\0\xff text", 7);
    const auto made = client->commit({{Compare::absent("t/a")}, {Step::put("t/a", value)}, {}}, limit);
    ASSERT_EQ(made.outcome, Outcome::committed) << made.error.message;
    const auto again =
        client->commit({{Compare::absent("t/a")}, {Step::put("t/a", "x")}, {Step::get("t/a")}}, limit);
    ASSERT_EQ(again.outcome, Outcome::compare_failed);
    ASSERT_EQ(again.ranges.size(), 1U);
    ASSERT_EQ(again.ranges[0].size(), 1U);
    const auto& stored = again.ranges[0][0];
    EXPECT_EQ(stored.value, value);
    EXPECT_EQ(stored.mod_revision, made.header.revision);
    EXPECT_EQ(
        client
            ->commit({{Compare::revision_is("t/a", stored.mod_revision), Compare::value_is("t/a", value)},
                      {Step::put("t/a", "two"), Step::put("t/b", "three")},
                      {}},
                     limit)
            .outcome,
        Outcome::committed);
    EXPECT_EQ(
        client->commit({{Compare::value_is("t/a", value)}, {Step::remove_prefix("t/")}, {}}, limit).outcome,
        Outcome::compare_failed);
    const Compare older{"t/a", Compare::Target::create_revision, Compare::Relation::less, 1 << 30};
    EXPECT_EQ(client->commit({{older}, {Step::remove_prefix("t/")}, {}}, limit).outcome, Outcome::committed);
    EXPECT_TRUE(client->get_prefix("t/", limit)->pairs.empty());
}

TEST_F(ClientTest, WhatTheStoreRefusesIsCertainlyNotDone) {
    const auto twice = client->commit({{}, {Step::put("r/a", "1"), Step::put("r/a", "2")}, {}}, limit);
    EXPECT_EQ(twice.outcome, Outcome::not_done);
    EXPECT_TRUE(client->get("r/a", limit)->pairs.empty());
}

TEST_F(ClientTest, LeasesLiveAsLongAsTheyAreKept) {
    const auto lease = client->lease_grant(30, limit);
    ASSERT_TRUE(lease) << lease.error().message;
    ASSERT_EQ(client->commit({{}, {Step::put("l/a", "1", *lease)}, {}}, limit).outcome, Outcome::committed);
    EXPECT_EQ(client->get("l/a", limit)->pairs.at(0).lease, *lease);
    EXPECT_GT(client->lease_keepalive(*lease, limit).value_or(0), 0);
    ASSERT_TRUE(client->lease_revoke(*lease, limit));
    EXPECT_TRUE(client->get("l/a", limit)->pairs.empty());
    EXPECT_EQ(client->lease_keepalive(*lease, limit).value_or(-1), 0);
}

TEST_F(ClientTest, StatusAndMembers) {
    const auto status = client->status(limit);
    ASSERT_TRUE(status) << status.error().message;
    const auto members = client->members(limit);
    ASSERT_TRUE(members) << members.error().message;
    ASSERT_EQ(members->size(), 1U);
    EXPECT_EQ(members->at(0).name, "node1");
    EXPECT_EQ(members->at(0).id, status->leader);
    EXPECT_TRUE(status->version.starts_with("3.")) << status->version;
}

TEST_F(ClientTest, TheNextEndpointIsAskedWhenNobodyListensAtTheFirst) {
    ClientOptions options;
    options.endpoints = {*http::Address::parse("https://127.0.0.1:1"), cluster->member(0).address()};
    options.tls = cluster->member(0).config.tls;
    Client two(options);
    EXPECT_EQ(two.commit({{}, {Step::put("e/a", "1")}, {}}, limit).outcome, Outcome::committed);
    options.endpoints.pop_back();
    Client none(options);
    EXPECT_EQ(none.commit({{}, {Step::put("e/a", "1")}, {}}, limit).outcome, Outcome::not_done);
}

// What a Watcher's callbacks have told, folded into a table.
struct Copy {
    std::mutex mutex;
    std::map<std::string, std::string> table;
    int snapshots = 0;
    int lost = 0;
    std::int64_t revision = 0;

    WatcherCallbacks callbacks() {
        return {[this](const RangeResult& all) {
                    const std::scoped_lock lock(mutex);
                    ++snapshots;
                    table.clear();
                    for (const auto& pair : all.pairs) table[pair.key] = pair.value;
                    revision = all.header.revision;
                },
                [this](const std::vector<WatchEvent>& events, const Header& header) {
                    const std::scoped_lock lock(mutex);
                    for (const auto& event : events) {
                        EXPECT_GT(event.pair.mod_revision, revision);
                        if (event.removed) {
                            table.erase(event.pair.key);
                        } else {
                            table[event.pair.key] = event.pair.value;
                        }
                    }
                    revision = header.revision;
                },
                [this](const Error&) {
                    const std::scoped_lock lock(mutex);
                    ++lost;
                }};
    }
    bool is(const std::map<std::string, std::string>& wanted) {
        const std::scoped_lock lock(mutex);
        return table == wanted;
    }
    int snapshot_count() {
        const std::scoped_lock lock(mutex);
        return snapshots;
    }
};

TEST_F(ClientTest, AWatchFollowsAndARestartReadsAgain) {
    ASSERT_EQ(client->commit({{}, {Step::put("w/a", "1")}, {}}, limit).outcome, Outcome::committed);
    Copy copy;
    WatcherOptions options;
    options.client = {{cluster->member(0).address()}, cluster->member(0).config.tls};
    options.prefix = "w/";
    Watcher watcher(options, copy.callbacks());
    ASSERT_TRUE(eventually(limit, [&] { return copy.is({{"w/a", "1"}}); }));
    ASSERT_EQ(client->commit({{}, {Step::put("w/b", "2"), Step::remove("w/a")}, {}}, limit).outcome,
              Outcome::committed);
    ASSERT_TRUE(eventually(limit, [&] { return copy.is({{"w/b", "2"}}); }));
    EXPECT_EQ(copy.snapshot_count(), 1);
    // Compacted while it did not watch: it cannot miss anything, because it reads everything again.
    const auto last = client->commit({{}, {Step::put("w/c", "3")}, {}}, limit);
    ASSERT_TRUE(client->compact(last.header.revision, limit));
    watcher.restart();
    ASSERT_TRUE(eventually(limit, [&] { return copy.snapshot_count() >= 2; }));
    ASSERT_EQ(client->commit({{}, {Step::put("w/d", "4")}, {}}, limit).outcome, Outcome::committed);
    ASSERT_TRUE(eventually(limit, [&] { return copy.is({{"w/b", "2"}, {"w/c", "3"}, {"w/d", "4"}}); }));
}

TEST_F(ClientTest, CancelEndsAWatcherThatCannotReachAnything) {
    Copy copy;
    WatcherOptions options;
    options.client = {{*http::Address::parse("https://127.0.0.1:1")}, cluster->member(0).config.tls};
    options.prefix = "w/";
    const Watcher watcher(options, copy.callbacks());
    EXPECT_TRUE(eventually(limit, [&] {
        const std::scoped_lock lock(copy.mutex);
        return copy.lost >= 2;
    }));
}

}  // namespace
}  // namespace gemel::etcd
