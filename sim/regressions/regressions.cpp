// Bugs that were found and fixed, as scripts: a seed means something else after the next change, a script
// does not.
#include "sim/checkers/stable_metadata.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

constexpr int kTries = 12;

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

}  // namespace

void add_regressions(std::vector<Scenario>& all) {
    all.push_back({"metadata-shown-and-forgotten",
                   "A failed write of Inconsistent, then a new process in the same boot.",
                   "What the device shows is written again before it is trusted (D10, F4).",
                   shown_and_forgotten});
}

}  // namespace gemel::sim
