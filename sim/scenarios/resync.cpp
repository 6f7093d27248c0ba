// Scenarios R: resync, its beginning, its end, its interruptions.
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kMany = 160;  // blocks that differ

bool resyncing(Stage& s) {
    return s.view(1).sync == replication::SyncState::sync_target && s.view(0).resync_done_bytes > 0;
}

// node2 is away, node1 writes alone, node2 comes back: a resync that takes a while has begun
std::vector<Stage::Handle> begin_resync(Stage& s, std::uint32_t slow = 40) {
    s.cut_links();
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    s.say("node1 writes alone, far apart.");
    std::vector<Stage::Handle> writes;
    for (std::uint64_t i = 0; i < kMany; i += 8) writes.push_back(s.write(i * 20, 8));
    s.finish(writes);
    s.disk(1).faults().slow_factor = slow;
    s.heal_links();
    s.step_until("node2 is half resynced", [&] { return resyncing(s); });
    return writes;
}

bool never_source(Stage& s) {
    return s.told("node2  verdict     source") == 0 && s.told("node2  verdict     leave-then-source") == 0;
}

void r1(Stage& s) {
    s.cut_links();
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    s.written(10);
    s.heal_links();
    s.step_until("the handshake begins",
                 [&] { return s.view(0).connection == replication::ConnectionState::handshake; });
    s.say("A write arrives after each single event until the resync is over.");
    std::vector<Stage::Handle> writes;
    for (std::uint64_t i = 0; i < 60 && !s.both(); ++i) {
        writes.push_back(s.write(100 + i * 3));
        s.world().run_one();
    }
    s.finish(writes);
    s.until_converged();
    s.check("each of them is on both: mirrored or tracked", s.shows(0, writes) && s.shows(1, writes));
    s.end();
}

void r2(Stage& s) {
    begin_resync(s);
    s.say("The guest writes to every block that is being resynced; node2's disk is slow and in no order.");
    std::vector<Stage::Handle> fresh;
    for (std::uint64_t i = 0; i < kMany; i += 8) fresh.push_back(s.write(i * 20, 2));
    s.finish(fresh);
    s.disk(1).faults().slow_factor = 1;
    s.until_converged();
    s.check("the guest's writes won on node2", s.shows(1, fresh));
    s.end();
}

void r3(Stage& s) {
    begin_resync(s, 5);
    s.say("node1 reads slowly for the resync while its guest writes to the same blocks.");
    s.disk(0).faults().slow_factor = 30;
    std::vector<Stage::Handle> fresh;
    for (std::uint64_t i = kMany; i > 0; i -= 8) fresh.push_back(s.write((i - 8) * 20 + 3, 1));
    s.finish(fresh);
    s.disk(0).faults().slow_factor = 1;
    s.disk(1).faults().slow_factor = 1;
    s.until_converged();
    s.check("no resync data read before a write landed after it", s.shows(1, fresh) && s.shows(0, fresh));
    s.end();
}

void r4(Stage& s) {
    begin_resync(s);
    s.power_cut(0);
    s.run(seconds(40));
    s.check("node2, half new and half old, is not promoted", s.owner() != 1 && !s.world().guest().alive());
    s.check("its state says so", s.view(1).local_state == ReplicaState::inconsistent);
    s.disk(1).faults().slow_factor = 1;
    s.power_on(0);
    s.until_converged();
    s.check("it was never a source", never_source(s));
    s.end();
}

void r5(Stage& s) {
    begin_resync(s);
    s.say("The operator wants the guest on node2 now.");
    s.world().control().ask_handover();
    s.until("the guest is served again", [&] { return s.world().guest().connected() && s.owner() != 2; });
    s.check("not by the target", s.owner() == 0 && s.world().guest().node() == 0);
    s.cut_links();
    s.run(seconds(5));
    s.check("with the links cut it is still served from the complete copy", s.owner() == 0);
    s.finish(s.read(0));
    s.disk(1).faults().slow_factor = 1;
    s.heal_links();
    s.end();
}

void r6(Stage& s) {
    begin_resync(s);
    s.world().control().ask_handover();
    s.power_cut(0);
    s.run(seconds(40));
    s.check("nobody serves a mixture: the guest waits", s.owner() != 1 && !s.world().guest().alive());
    s.disk(1).faults().slow_factor = 1;
    s.power_on(0);
    s.end();
}

void r7(Stage& s) {
    const auto writes = begin_resync(s);
    const std::uint64_t before = s.generation();
    s.fault(1, "the operator declares its replica invalid in the middle of the resync");
    s.world().control().replica_replaced(1, s.world().committed().record.replicas[1].replica);
    s.until("the engines compare again", [&] { return s.told("the generation changed") > 0; });
    s.check("under a new generation", s.generation() > before);
    s.disk(1).faults().slow_factor = 1;
    s.until_converged();
    s.check("node2 was never a source", never_source(s));
    s.check("and has everything", s.shows(1, writes.back()));
    s.end();
}

void r8(Stage& s) {
    begin_resync(s);
    s.power_cut(0);
    s.power_cut(1);
    s.say("Both return, node2 first.");
    s.disk(1).faults().slow_factor = 1;
    s.power_on(1);
    s.run(seconds(15));
    s.check("node2 alone serves nothing", s.owner() != 1);
    s.power_on(0);
    s.until_converged();
    s.check("Inconsistent was never a source", never_source(s));
    s.end();
}

void r9(Stage& s) {
    s.cut_links();
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    s.written(10);
    s.heal_links();
    StableMetadata metadata(16U << 20);
    std::uint64_t looked = 0;
    s.step_until("node2 has written the join and it is not committed", [&] {
        metadata.read(s.disk(1).stable(), ++looked);
        return metadata.superblock() && metadata.superblock()->join_pending && s.alone(0);
    });
    const std::uint64_t before = s.generation();
    s.cut_links();
    const auto write = s.write(10);
    s.finish(write);
    s.check("the write was answered only under a new generation without node2",
            s.alone(0) && s.generation() > before);
    s.heal_links();
    s.until_converged();
    s.check("no split brain came of it, and node2 has the write",
            s.told("split-brain") == 0 && s.shows(1, write));
    s.end();
}

void d3(Stage& s) {
    const auto write = s.written(10);
    s.check("it is complete on both and stable on neither", !s.stable_on(0, write) && !s.stable_on(1, write));
    s.power_cut(0);
    s.until_served_by(1);
    s.say("node2 has the write in its cache only, and in no log of its own; now it is the source.");
    s.until_converged();
    s.check("when node1 joined, nothing that was repaired was still in a cache only",
            s.stable_on(0, write) && s.stable_on(1, write));
    s.end();
}

void d4(Stage& s) {
    begin_resync(s);
    for (int i = 0; i < 5; ++i) {
        s.say("Chunks are on their way; node2 loses power, and what it had not flushed.");
        s.power_cut(1);
        s.power_on(1);
        s.step_until("node2 is resyncing again", [&] { return resyncing(s); });
        for (int event = 0; event < 3 * i; ++event) s.world().run_one();
    }
    s.disk(1).faults().slow_factor = 1;
    s.end();
}

}  // namespace

void add_resync(std::vector<Scenario>& all) {
    all.push_back({"D3", "A source whose own copy is only in its cache.",
                   "A bit is cleared on disk when the block is stable on both.", d3});
    all.push_back({"D4", "The target loses power again and again in the middle of a resync.",
                   "A bit is cleared only when the block is stable there.", d4});
    all.push_back({"R1", "Writes arrive while the handshake and the bitmap exchange run.",
                   "Each is mirrored or its bit is set.", r1});
    all.push_back(
        {"R2", "Resync data and a newer write meet at the target's disk.", "The newer write wins.", r2});
    all.push_back(
        {"R3", "The source has read a block, then the guest writes it.", "Old never lands over new.", r3});
    all.push_back({"R4", "The source loses power in the middle of a resync.",
                   "The target is Inconsistent and is not promoted.", r4});
    all.push_back({"R5", "The guest is wanted on the target, then the links are cut.",
                   "It is never served from an Inconsistent replica.", r5});
    all.push_back({"R6", "The guest is wanted on the target, then the source is lost.",
                   "Nobody serves blocks that are not resynced.", r6});
    all.push_back({"R7", "The source's generation changes in the middle of a resync.",
                   "The resync ends, both compare again.", r7});
    all.push_back({"R8", "A resync is interrupted, both lose power, the direction is decided anew.",
                   "Inconsistent can never be the source.", r8});
    all.push_back({"R9", "A new generation is made while a join is on its way.",
                   "The join does not count; no split brain later.", r9});
}

}  // namespace gemel::sim
