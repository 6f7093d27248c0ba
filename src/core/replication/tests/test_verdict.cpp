// Every pair of handshake states: total, symmetric, never a reversed sync, never ambiguous (D7, D8, G4-G7,
// R8).
#include <vector>

#include <gtest/gtest.h>

#include "core/replication/verdict.hpp"

namespace gemel::replication {
namespace {

GenerationId generation_id(std::uint64_t n) {
    return GenerationId::from_random(n, 77);
}
const ReplicaId kA = ReplicaId::from_random(1, 1);
const ReplicaId kB = ReplicaId::from_random(2, 2);
const ReplicaId kStranger = ReplicaId::from_random(3, 3);
const Incarnation kBootA{Uuid::from_random(4, 4), Uuid::from_random(5, 5)};
const Incarnation kBootB{Uuid::from_random(6, 6), Uuid::from_random(7, 7)};
const SessionId kProcessA = SessionId::from_random(8, 8);
const SessionId kProcessB = SessionId::from_random(9, 9);
const LineageId kLineage = LineageId::from_random(10, 10);

// Histories around a record at generation 3 (1 <- 2 <- 3): its own, older, blank, newer, and one beside it.
struct History {
    const char* name;
    Generation generation;
    std::vector<GenerationId> ancestors;
};
const std::vector<History>& histories() {
    static const std::vector<History> all{
        {"blank", {}, {}},
        {"older", {generation_id(2), generation_id(1), 2}, {generation_id(1)}},
        {"record", {generation_id(3), generation_id(2), 3}, {generation_id(2), generation_id(1)}},
        {"newer",
         {generation_id(4), generation_id(3), 4},
         {generation_id(3), generation_id(2), generation_id(1)}},
        {"beside", {generation_id(93), generation_id(2), 3}, {generation_id(2), generation_id(1)}},
    };
    return all;
}

std::vector<HandshakeState> states(bool a) {
    std::vector<HandshakeState> all;
    for (const History& history : histories()) {
        for (const ReplicaState state :
             {ReplicaState::up_to_date, ReplicaState::inconsistent, ReplicaState::failed}) {
            for (unsigned bits = 0; bits < 128; ++bits) {
                HandshakeState s;
                s.replica = a ? kA : kB;
                s.incarnation = a ? kBootA : kBootB;
                s.process = a ? kProcessA : kProcessB;
                s.size_bytes = 1 << 20;
                s.state = state;
                s.generation = history.generation;
                s.ancestors = history.ancestors;
                s.metadata_readable = (bits & 1) == 0;
                if ((bits & 2) != 0) {
                    s.known_peer_process = a ? kProcessB : kProcessA;
                    s.known_peer_incarnation = a ? kBootB : kBootA;
                }
                s.dirty_bytes = (bits & 4) != 0 ? 4096 : 0;
                s.unsettled_bytes = (bits & 8) != 0 ? 4096 : 0;
                s.join_pending = (bits & 16) != 0;
                if ((bits & 32) != 0) s.tracked_peer = a ? kB : kA, s.tracked_since = generation_id(2);
                s.outlived_process = (bits & 64) != 0;
                s.record_revision = 5;
                s.record_lineage = kLineage;
                all.push_back(s);
            }
        }
    }
    return all;
}

CommittedVolume record(bool a_in, bool b_in, int owner) {
    CommittedVolume committed;
    committed.revision = 5;
    committed.lineage = kLineage;
    VolumeRecord& r = committed.record;
    r.size_bytes = 1 << 20;
    r.generation = {generation_id(3), generation_id(2), 3};
    r.ancestors = {generation_id(2), generation_id(1)};
    r.replicas = {{"a", kA, "", ReplicaState::up_to_date, a_in},
                  {"b", kB, "", ReplicaState::up_to_date, b_in}};
    if (owner == 1) r.owner = OwnerRecord{"a", kBootA, 1, "", false, ""};
    if (owner == 2) r.owner = OwnerRecord{"b", kBootB, 1, "", false, ""};
    if (owner == 3) r.owner = OwnerRecord{"a", kBootB, 1, "", false, ""};  // an incarnation that is gone
    return committed;
}

bool makes_source(Verdict v) {
    return v == Verdict::source_bitmap || v == Verdict::source_full || v == Verdict::leave_then_source;
}

TEST(Verdict, every_pair_is_symmetric_and_never_reversed) {
    const auto left = states(true);
    const auto right = states(false);
    std::vector<int> reached(13);
    for (int in = 1; in < 4; ++in) {
        for (int owner = 0; owner < 4; ++owner) {
            const CommittedVolume committed = record((in & 1) != 0, (in & 2) != 0, owner);
            for (std::size_t i = 0; i < left.size(); ++i) {
                // a fixed stride over the other side visits every pair of histories and states with changing
                // flags
                for (std::size_t j = i % 7; j < right.size(); j += 7) {
                    const HandshakeState& a = left[i];
                    const HandshakeState& b = right[j];
                    const Verdict mine = verdict(a, b, committed);
                    ASSERT_EQ(verdict(b, a, committed), mirrored(mine)) << "pair " << i << "/" << j;
                    ++reached[static_cast<std::size_t>(mine)];
                    if (makes_source(mine) || makes_source(mirrored(mine))) {
                        const HandshakeState& source = makes_source(mine) ? a : b;
                        const HandshakeState& target = makes_source(mine) ? b : a;
                        ASSERT_EQ(source.state, ReplicaState::up_to_date)
                            << "an unsound side is never a source";
                        ASSERT_TRUE(source.metadata_readable);
                        ASSERT_EQ(source.generation.id, committed.record.generation.id);
                        ASSERT_TRUE(committed.record.replicas[source.replica == kA ? 0 : 1].in_ack_set);
                        ASSERT_NE(target.generation.id, generation_id(93))
                            << "a foreign history is never a target (D7)";
                        ASSERT_FALSE(source.generation.is_blank());
                    }
                    const bool starts = mine == Verdict::source_bitmap || mine == Verdict::source_full ||
                                        mine == Verdict::target_bitmap || mine == Verdict::target_full;
                    if (starts) {
                        ASSERT_NE(in, 3)
                            << "a resync starts only when the ack set is exactly the source (rule 2)";
                    }
                    if (mine == Verdict::diskless || mine == Verdict::peer_diskless) {
                        const HandshakeState& failed = mine == Verdict::diskless ? a : b;
                        const bool owns =
                            (owner == 1 && failed.replica == kA) || (owner == 2 && failed.replica == kB);
                        ASSERT_TRUE(owns && failed.state == ReplicaState::failed)
                            << "only an owner is served over the network";
                        ASSERT_NE(in, 3) << "its failure is committed first";
                    }
                    if (mine == Verdict::no_resync) {
                        ASSERT_EQ(in, 3);
                        ASSERT_EQ(a.dirty_bytes + b.dirty_bytes, 0U);
                    }
                }
            }
        }
    }
    for (const Verdict v : {Verdict::wait_record, Verdict::no_resync, Verdict::source_bitmap,
                            Verdict::source_full, Verdict::target_bitmap, Verdict::target_full,
                            Verdict::leave_then_source, Verdict::leave_then_target, Verdict::split_brain,
                            Verdict::no_source, Verdict::peer_diskless, Verdict::diskless}) {
        EXPECT_GT(reached[static_cast<std::size_t>(v)], 0) << to_string(v);
    }
}

HandshakeState sound(bool a) {
    for (const auto& s : states(a)) {
        if (s.generation.counter == 3 && s.generation.id == generation_id(3)) return s;
    }
    return {};
}

TEST(Verdict, strangers_clones_and_other_sizes_are_foreign) {  // G6, Z5
    const auto committed = record(true, true, 0);
    HandshakeState b = sound(false);
    b.replica = kStranger;
    EXPECT_EQ(verdict(sound(true), b, committed), Verdict::foreign);
    b.replica = kA;
    EXPECT_EQ(verdict(sound(true), b, committed), Verdict::foreign);
    b = sound(false);
    b.size_bytes = 4096;
    EXPECT_EQ(verdict(sound(true), b, committed), Verdict::foreign);
}

TEST(Verdict, nothing_is_decided_on_different_facts) {
    const auto committed = record(true, true, 0);
    HandshakeState b = sound(false);
    b.record_revision = 4;
    EXPECT_EQ(verdict(sound(true), b, committed), Verdict::wait_record);
    b = sound(false);
    b.record_lineage = LineageId::from_random(11, 11);
    EXPECT_EQ(verdict(sound(true), b, committed), Verdict::wait_record);
}

TEST(Verdict, both_acknowledged_alone_is_split_brain_on_both) {  // D8, G4, G5
    const auto committed = record(true, false, 0);
    HandshakeState b = sound(false);
    b.generation = {generation_id(93), generation_id(2), 3};
    b.ancestors = {generation_id(2)};
    b.record_lineage = LineageId::from_random(11, 11);
    EXPECT_EQ(verdict(sound(true), b, committed), Verdict::split_brain);
    EXPECT_EQ(verdict(b, sound(true), committed), Verdict::split_brain);
}

TEST(Verdict, the_survivor_is_the_source_after_a_writer_crashed) {  // W1, W2
    HandshakeState a = sound(true);
    a.dirty_bytes = 4 << 20;
    a.writer_crashed = true;
    HandshakeState b = sound(false);
    b.known_peer_process = SessionId::from_random(12, 12);
    EXPECT_EQ(verdict(a, b, record(true, true, 0)), Verdict::leave_then_target);
    a.outlived_process = true;
    b.known_peer_process = SessionId{};
    EXPECT_EQ(verdict(a, b, record(true, true, 1)), Verdict::leave_then_source) << "the living owner goes on";
}

}  // namespace
}  // namespace gemel::replication
