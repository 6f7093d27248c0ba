// Bugs that were found and fixed, as scripts: a seed means something else after the next change, a script
// does not.
#include "core/formats/layout.hpp"
#include "sim/checkers/stable_metadata.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

constexpr int kTries = 12;
constexpr std::uint64_t kBlocksPerExtent = formats::kBlocksPerExtent;

bool inconsistent_on(const Image& image) {
    StableMetadata metadata(16U << 20);
    metadata.read(image, 1);
    return metadata.superblock() && metadata.superblock()->state == ReplicaState::inconsistent;
}

// Metadata that the device shows and has forgotten was taken for stable by the next process of that boot.
void shown_and_forgotten(Stage& s) {
    s.cut_links();
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    for (std::uint64_t i = 0; i < 8; ++i) s.written(10 + 20 * i);
    s.run(seconds(3));
    s.say("node2 is to say Inconsistent before the first resync data; its write of that fails.");
    for (int i = 0; i < kTries; ++i) {
        s.disk(1).faults().fail_next_metadata_write = true;
        s.heal_links();
        s.until("node2's replica is failed", [&] { return s.view(1).local_state == ReplicaState::failed; });
        if (inconsistent_on(s.disk(1).current()) && !inconsistent_on(s.disk(1).stable())) break;
        s.cut_links();
        s.kill_blockd(1);
        s.start_blockd(1);
        s.world().link().allow(1);
        s.run(seconds(3));
    }
    s.check("its device shows Inconsistent and has forgotten it",
            inconsistent_on(s.disk(1).current()) && !inconsistent_on(s.disk(1).stable()));
    s.kill_blockd(1);
    s.start_blockd(1);
    s.world().link().allow(1);
    s.until("node2 asks for resync data",
            [&] { return s.view(1).sync == replication::SyncState::sync_target; });
    s.until("data comes", [&] { return s.view(0).resync_done_bytes > 0 || s.both(); });
    s.check("Inconsistent was stable before", inconsistent_on(s.disk(1).stable()) || s.both());
    s.end();
}

// A source sent a block out of its cache, and its cleared bit was stable before the block was: after a power
// cut the target had more than the source, and nobody said so. Only where no log names the block: the source
// got it as Secondary, and the target's disk had failed by then (over the network, full resync).
void cleared_before_own_flush(Stage& s) {
    // whichever is faster, the flush or the page with the cleared bits: it must not matter
    for (std::uint64_t i = 0; i < 6; ++i) {
        const std::uint32_t failed = s.owner();
        const std::uint32_t source = 1 - failed;
        s.written(10);
        s.disk(failed).faults().fail_next_flush = true;
        s.fault(failed, "its next flush fails");
        s.finish(s.flush());
        const auto write = s.written(kBlocksPerExtent * 2 + i);
        s.check("a write over the network is in the other one's cache, and nowhere else",
                !s.shows(failed, write) && s.shows(source, write) && !s.stable_on(source, write));
        s.kill_blockd(failed);
        s.start_blockd(failed);
        s.world().link().allow(failed);
        s.until_converged();
        s.check("what was sent is stable where it came from", s.stable_on(source, write));
    }
    s.end();
}

// A learner took itself for one of two voters: it fenced the only voter, which had gone on without it, and
// forced what it had.
void learner_forces_nothing(Stage& s) {
    s.power_cut(1);
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    s.finish(s.write(10));
    s.power_on(1);
    const auto store_of_node2 = [&](const char* is) {
        return s.world().control().state_text().find(std::string("clusterd on node2: store ") + is) !=
               std::string::npos;
    };
    s.step_until(
        "node2's old store is set aside", [&] { return store_of_node2("old"); }, seconds(60));
    s.step_until(
        "node2's member has been added again, as a learner",
        [&] { return store_of_node2("quorate (runs), acting"); }, seconds(60));
    s.run(milliseconds(300));  // it reads that its replica is current again
    s.check("its vote is not committed yet", !s.world().control().settled());
    s.say("All paths between the nodes are cut, the fence devices are reached.");
    s.world().cut_nodes_apart(true);
    s.until("node1 may acknowledge alone again", [&] { return s.alone(0); });
    const auto write = s.written(20);
    s.finish(s.flush());
    s.run(seconds(40));
    s.check("nobody has fenced node1, which owns the volume", s.world().host(0).up() && s.owner() == 0);
    s.world().cut_nodes_apart(false);
    s.until_converged();
    s.check("what node1 acknowledged is there", s.shows(0, write) && s.shows(1, write));
    s.end();
}

// A guest on a node whose disk had failed was served by the other one, until it could not be any more; then
// it stood there, for ever, or got errors (seed 4788).
void guest_follows_its_copy(Stage& s) {
    const auto over_network = [&s](std::uint32_t owner) {
        s.disk(owner).faults().fail_next_flush = true;
        s.fault(owner, "its next flush fails");
        s.finish(s.flush());
        s.check("its disk is out, the guest is served over the network",
                s.view(owner).local_state == ReplicaState::failed && s.alone(1 - owner));
    };
    over_network(0);
    const auto first = s.written(10);
    s.say("The new process cannot know what was answered: it serves nothing in that epoch.");
    s.kill_blockd(0);
    s.start_blockd(0);
    s.until_served_by(1);
    s.check("what was acknowledged is there", s.shows(1, first));
    s.until_converged();
    over_network(1);
    s.written(20);
    s.say("The only copy forgets what was answered and not flushed.");
    s.power_cut(0);
    s.power_on(0);
    s.until("node2's guest has lost its disk",
            [&] { return s.view(1).frozen == replication::FreezeReason::disk_lost; });
    s.until_served_by(0);
    s.kill_blockd(1);
    s.start_blockd(1);
    s.end();
}

}  // namespace

void add_regressions(std::vector<Scenario>& all) {
    all.push_back({"metadata-shown-and-forgotten",
                   "A failed write of Inconsistent, then a new process in the same boot.",
                   "What the device shows is written again before it is trusted (D10, F4).",
                   shown_and_forgotten});
    all.push_back({"cleared-before-own-flush",
                   "A source sends what only its cache holds, to a target that knows nothing of it.",
                   "The cleared bits are stable only after the source's own copy is (D3, D4).",
                   cleared_before_own_flush});
    all.push_back({"learner-forces-nothing",
                   "Two voters: one is cut off while it is being added to the store again.",
                   "It neither fences nor forces: the only voter went on without it (C6, D1).",
                   learner_forces_nothing,
                   {{}, Voters::two, true}});
    all.push_back({"guest-follows-its-copy",
                   "The owner's disk has failed, and the guest cannot be served over the network any more.",
                   "It is started where the copy is (C12, K2).",
                   guest_follows_its_copy,
                   {{}, Voters::three, true}});
}

}  // namespace gemel::sim
