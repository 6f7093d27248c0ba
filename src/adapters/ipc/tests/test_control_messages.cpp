#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "adapters/ipc/control_messages.hpp"

namespace gemel::ipc {
namespace {

CommittedVolume example() {
    CommittedVolume out;
    out.record.id = VolumeId::from_random(1, 2);
    out.record.name = "web1";
    out.record.size_bytes = 1 << 20;
    out.record.generation = {GenerationId::from_random(3, 4), {}, 1};
    out.record.replicas = {
        {"node1", ReplicaId::from_random(5, 6), "default", ReplicaState::up_to_date, true}};
    out.revision = 17;
    out.lineage = LineageId::from_random(7, 8);
    return out;
}

TEST(ControlMessages, RoundTrips) {
    replication::View view;
    view.attached = true;
    view.role = replication::Role::primary;
    view.local_state = ReplicaState::up_to_date;
    view.connection = replication::ConnectionState::connected;
    view.frozen = replication::FreezeReason::peer_lost;
    view.epoch = 3;
    view.lease_until = Instant{123456789};
    view.problem = "why";
    const auto json = encode_view(view);
    EXPECT_EQ(json["role"], "primary");
    EXPECT_EQ(json["local_state"], "UpToDate");
    const auto back = decode_view(json);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(encode_view(*back), json);

    const auto committed = decode_committed(encode_committed(example()));
    ASSERT_TRUE(committed) << committed.error().message;
    EXPECT_EQ(*committed, example());

    const replication::Propose propose{4, replication::ProposalKind::peer_joined, 17, example().lineage,
                                       example().record};
    auto event = encode_propose(propose);
    event["event"] = "propose";
    event["volume"] = "web1";
    const auto proposed = decode_propose(event);
    ASSERT_TRUE(proposed) << proposed.error().message;
    EXPECT_EQ(proposed->next, propose.next);
    EXPECT_EQ(proposed->kind, propose.kind);
}

TEST(ControlMessages, WhatIsNotKnownIsRefused) {
    auto view = encode_view({});
    view["more"] = 1;
    EXPECT_FALSE(decode_view(view));
    view.erase("more");
    view["role"] = "king";
    EXPECT_FALSE(decode_view(view));
    EXPECT_FALSE(decode_view(nlohmann::json::array()));
    auto committed = encode_committed(example());
    committed["record"]["schema"] = 99;
    EXPECT_FALSE(decode_committed(committed));
    EXPECT_FALSE(parse_outcome("perhaps"));
}

}  // namespace
}  // namespace gemel::ipc
