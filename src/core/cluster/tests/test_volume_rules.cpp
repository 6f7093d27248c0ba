// The operator's force and resolve: ancestry holds only what the replica itself held (promises D7, D8).
#include <algorithm>

#include <gtest/gtest.h>

#include "core/cluster/volume_rules.hpp"

namespace gemel::cluster {
namespace {

const GenerationId kOld = GenerationId::from_random(1, 1);
const GenerationId kCommon = GenerationId::from_random(2, 2);
const GenerationId kAlone = GenerationId::from_random(3, 3);
const GenerationId kFresh = GenerationId::from_random(4, 4);

// node2 left at kCommon; node1 acknowledged alone at kAlone.
VolumeRecord parted() {
    VolumeRecord volume;
    volume.name = "disk1";
    volume.replicas = {{"node1", ReplicaId::from_random(5, 5), "default", ReplicaState::up_to_date, true},
                       {"node2", ReplicaId::from_random(6, 6), "default", ReplicaState::outdated, false}};
    volume.generation = {kAlone, kCommon, 3};
    volume.ancestors = {kCommon, kOld};
    return volume;
}

bool descends(const VolumeRecord& volume, const GenerationId& from) {
    return volume.generation.id == from ||
           std::find(volume.ancestors.begin(), volume.ancestors.end(), from) != volume.ancestors.end();
}

TEST(RestartFrom, WhatTheOtherMadeAloneIsNoAncestor) {
    VolumeRecord volume = parted();
    restart_from(volume, "node2", kCommon, kFresh);
    EXPECT_EQ(volume.generation.id, kFresh);
    EXPECT_EQ(volume.generation.parent, kCommon);
    EXPECT_EQ(volume.generation.counter, 4U);
    EXPECT_TRUE(descends(volume, kCommon));
    EXPECT_TRUE(descends(volume, kOld));
    EXPECT_FALSE(descends(volume, kAlone)) << "node1 would be overwritten without a word";
    EXPECT_EQ(ack_set(volume), std::vector<std::string>{"node2"});
    EXPECT_FALSE(promotable(volume, "node1"));
}

TEST(RestartFrom, AHistoryBesideTheRecordIsTakenUpAlone) {
    VolumeRecord volume = parted();
    const GenerationId beside = GenerationId::from_random(9, 9);
    restart_from(volume, "node2", beside, kFresh);
    EXPECT_TRUE(descends(volume, beside));
    EXPECT_FALSE(descends(volume, kAlone));
    EXPECT_FALSE(descends(volume, kCommon));
}

TEST(RestartFrom, AReplicaAtTheRecordsGenerationKeepsEverything) {
    VolumeRecord volume = parted();
    restart_from(volume, "node1", kAlone, kFresh);
    EXPECT_EQ(volume.generation.parent, kAlone);
    EXPECT_TRUE(descends(volume, kAlone));
    EXPECT_TRUE(descends(volume, kCommon));
    EXPECT_EQ(ack_set(volume), std::vector<std::string>{"node1"});
}

// Setting the other one aside takes its time, and the kept one went on alone meanwhile: what its disk holds
// by then is an ancestor (seed 69021: it was not, and no later resolve could end that).
TEST(RestartFrom, AKeptReplicaThatFollowedTheRecordGoesOnFromIt) {
    VolumeRecord volume = parted();
    EXPECT_EQ(kept_generation(volume, "node1", kCommon), kAlone)
        << "it was at kCommon when the operator asked";
    EXPECT_EQ(kept_generation(volume, "node2", kCommon), kCommon) << "it is not in the ack set";
    const GenerationId beside = GenerationId::from_random(9, 9);
    EXPECT_EQ(kept_generation(volume, "node1", beside), beside);
}

// H39: what a member was before stays known, newest first, so that an old image is told from the newest one.
TEST(NodeRules, FormerNoncesAreRemembered) {
    NodeRecord node;
    renew_nonce(node, Uuid::from_random(1, 1));
    EXPECT_TRUE(node.former_nonces.empty()) << "the first one follows nothing";
    renew_nonce(node, Uuid::from_random(1, 1));
    EXPECT_TRUE(node.former_nonces.empty()) << "repeated, it is no new one";
    for (std::uint64_t i = 2; i <= 40; ++i) renew_nonce(node, Uuid::from_random(i, i));
    EXPECT_EQ(node.member_nonce, Uuid::from_random(40, 40));
    ASSERT_EQ(node.former_nonces.size(), NodeRecord::kMaxFormerNonces);
    EXPECT_EQ(node.former_nonces.front(), Uuid::from_random(39, 39));
    const NodeRecord before = node;
    EXPECT_FALSE(renew_nonce(node, Uuid::from_random(38, 38))) << "a life of before does not come back";
    EXPECT_EQ(node, before);
}

}  // namespace
}  // namespace gemel::cluster
