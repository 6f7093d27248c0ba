// Store records: every record comes back as it went in; everything else is refused with a reason (promise
// C8).
#include <gtest/gtest.h>

#include "core/formats/records.hpp"
#include "core/formats/records_json.hpp"

namespace gemel {
namespace {

template <typename Id>
Id id(std::uint64_t n) {
    return Id::from_random(n, n * 7 + 1);
}
Incarnation life(std::uint64_t n) {
    return {Uuid::from_random(n, 1), Uuid::from_random(n, 2)};
}

VolumeRecord volume() {
    VolumeRecord v;
    v.id = id<VolumeId>(1);
    v.name = "web1";
    v.size_bytes = 1 << 20;
    v.generation = {id<GenerationId>(2), id<GenerationId>(3), 4};
    v.ancestors = {id<GenerationId>(3)};
    v.replicas = {{"node1", id<ReplicaId>(5), "default", ReplicaState::up_to_date, true},
                  {"node2", id<ReplicaId>(6), "default", ReplicaState::outdated, false}};
    v.owner = OwnerRecord{"node1", life(7), 9, "00112233445566778899aabbccddeeff", true, "vm:web1"};
    v.epoch = 9;
    return v;
}
ClusterRecord cluster() {
    ClusterRecord c;
    c.id = id<ClusterId>(1);
    c.name = "demo";
    c.voters = {{"node1", "https://a:2380", "https://a:2379", false},
                {"w", "https://w:2380", "https://w:2379", true}};
    c.adding_voter = "node2";
    return c;
}
GuestRecord guest() {
    GuestRecord g;
    g.name = "web1";
    g.uuid = id<GuestId>(3);
    g.template_text = "<domain>\xc3\xa4\"</domain>";
    g.memory_bytes = 1 << 30;
    g.vcpus = 2;
    g.disks = {{"vda", "web1"}};
    g.nics = {{"br0", "52:54:00:00:00:01"}};
    g.wish = GuestWish::running;
    g.placement = PlacementRecord{"node1", life(1), {{"web1", 9}}, GuestPhase::running};
    g.restarts = 2;
    g.migration =
        MigrationRecord{"node2", life(2), MigrationPhase::prepared, "10.0.0.2:4100", "5ecret", 1 << 20, 250,
                        false,   true,    id<OperationId>(8)};
    return g;
}
NodeRecord node() {
    NodeRecord n;
    n.id = id<NodeId>(1);
    n.name = "node1";
    n.links = {{"link1", "10.0.0.1:7710"}};
    n.incarnation = life(3);
    n.state = NodeState::leaving;
    n.fence = {FenceState::verified, life(2), "node2", "bmc1", 2, true};
    return n;
}
OperationRecord operation() {
    OperationRecord o;
    o.id = id<OperationId>(1);
    o.kind = "vm.start";
    o.object = "vm/web1";
    o.state = OperationState::running;
    o.done = {{"node1", "ok"}};
    return o;
}

template <typename Record>
void comes_back(const Record& record) {
    const auto back = decode<Record>(encode(record));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(*back, record);
}

TEST(Records, ComeBack) {
    comes_back(volume());
    comes_back(cluster());
    comes_back(guest());
    comes_back(node());
    comes_back(operation());
    comes_back(LineageRecord{id<LineageId>(1), {id<LineageId>(2)}, "node1", "fence"});
    comes_back(PoolRecord{"node1", "default", "/pools/default", 5});
    comes_back(FenceDeviceRecord{"bmc1", "node1", "fence_ipmilan", {{"ip", "a"}}, {{"password", "b"}}, 5000});
    comes_back(EventBatchRecord{{{"info", "node.left", "node/node1", "node1", "text", -5}}});
    comes_back(CoordinatorRecord{"node1", life(1)});
    comes_back(AppliedRecord{id<OperationId>(4), "seal"});
    auto handed_over = volume();
    handed_over.handover = HandoverRecord{"node2", life(2), handed_over.epoch + 1, "5ecret"};
    comes_back(handed_over);
    auto ownerless = volume();
    ownerless.owner.reset();
    comes_back(ownerless);
}

struct Bad {
    const char* what;
    const char* from;
    const char* to;
    ErrorCode code = ErrorCode::corrupt;
};

TEST(Records, AnythingElseIsRefused) {
    const Bad table[] = {
        {"newer schema", "\"schema\":1", "\"schema\":2", ErrorCode::unsupported},
        {"no schema", "\"schema\":1,", ""},
        {"schema as text", "\"schema\":1", "\"schema\":\"1\""},
        {"unknown field", "\"schema\":1", "\"schema\":1,\"zz\":0"},
        {"missing field", "\"epoch\":9,\"generation\"", "\"generation\""},
        {"unknown state", "UpToDate", "Excellent"},
        {"negative size", "1048576", "-4096"},
        {"fraction", "1048576", "1048576.5"},
        {"odd size", "1048576", "1048577"},
        {"zero size", "1048576", "0"},
        {"owner of another epoch", "\"epoch\":9,\"incarnation\"", "\"epoch\":8,\"incarnation\""},
        {"bad id", "\"counter\":4,\"id\":\"", "\"counter\":4,\"id\":\"x"},
        {"bad name", "\"name\":\"web1\"", "\"name\":\"-web1\""},
        {"two replicas on one node", "\"node\":\"node2\"", "\"node\":\"node1\""},
        {"wrong type", "\"in_ack_set\":true", "\"in_ack_set\":1"},
        {"cut off", "}", ""},
    };
    for (const auto& bad : table) {
        std::string text = encode(volume());
        const auto at = text.find(bad.from);
        ASSERT_NE(at, std::string::npos) << bad.what << ": " << text;
        text.replace(at, std::string(bad.from).size(), bad.to);
        const auto result = decode<VolumeRecord>(text);
        ASSERT_FALSE(result) << bad.what;
        EXPECT_EQ(result.error().code, bad.code) << bad.what << ": " << result.error().message;
        EXPECT_EQ(result.error().message.find('\n'), std::string::npos);
    }
    EXPECT_FALSE(decode<VolumeRecord>(""));
    EXPECT_FALSE(decode<VolumeRecord>("[]"));
    EXPECT_FALSE(decode<VolumeRecord>("null"));
    EXPECT_FALSE(decode<VolumeRecord>(std::string(kMaxRecordBytes + 1, ' ')));
    EXPECT_FALSE(decode<VolumeRecord>(std::string(100000, '[')));
}

TEST(Records, NumbersAtTheirEdges) {
    auto v = volume();
    v.epoch = v.owner->epoch = ~std::uint64_t{0};
    comes_back(v);
    auto text = encode(FenceDeviceRecord{"b", "n", "a", {}, {}, 0xffffffffU});
    comes_back(FenceDeviceRecord{"b", "n", "a", {}, {}, 0xffffffffU});
    text.replace(text.find("4294967295"), 10, "4294967296");
    EXPECT_FALSE(decode<FenceDeviceRecord>(text));
}

TEST(Names, Table) {
    for (const char* good : {"a", "web1", "a-b", "0", "node-01"}) EXPECT_TRUE(is_valid_name(good)) << good;
    for (const char* bad : {"", "-a", "a-", "A", "a_b", "a/b", "a b", "\xc3\xa4"})
        EXPECT_FALSE(is_valid_name(bad)) << bad;
    EXPECT_TRUE(is_valid_name(std::string(40, 'a')));
    EXPECT_FALSE(is_valid_name(std::string(41, 'a')));
}

TEST(TimeChain, BrokenOnesAreNamed) {
    EXPECT_TRUE(check_time_chain({}));
    EXPECT_EQ(TimingRecord{}.regrant_ms(), 30100U);
    const auto refused = [](auto change) {
        TimingRecord t;
        change(t);
        const auto result = check_time_chain(t);
        return !result && result.error().message.find("timing:") == 0;
    };
    EXPECT_TRUE(refused([](auto& t) { t.suspicion_ms = 500; }));
    EXPECT_TRUE(refused([](auto& t) { t.lease_ms = 3000; }));
    EXPECT_TRUE(refused([](auto& t) { t.watchdog_ms = 10000; }));
    EXPECT_TRUE(refused([](auto& t) { t.margin_ms = 0; }));
    EXPECT_TRUE(refused([](auto& t) { t.heartbeat_ms = 10; }));
    EXPECT_TRUE(refused([](auto& t) { t.fence_bound_ms = 1000; }));
}

}  // namespace
}  // namespace gemel
