// Scenarios F and M: what is stable, and what the metadata says of it.
#include <array>

#include "core/formats/layout.hpp"
#include "sim/checkers/stable_metadata.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

constexpr std::uint64_t kBlocksPerExtent = formats::kBlocksPerExtent;
constexpr std::uint64_t kLarge = 200ULL << 20;  // 50 extents: more than the intent log holds at once here

void f1(Stage& s) {
    const auto write = s.written(10);
    s.check("it is complete on both and stable on neither", !s.stable_on(0, write) && !s.stable_on(1, write));
    s.power_cut(1);
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    s.until("what node2 had not flushed counts as different",
            [&] { return s.view(0).dirty_bytes >= kBlockBytes; });
    s.power_on(1);
    s.until_converged();
    s.check("node2 has the write again", s.shows(1, write));
    s.end();
}

void f2(Stage& s) {
    s.written(10);
    s.written(1100);
    const std::uint64_t before = s.generation();
    s.power_cut(0);
    s.power_cut(1);
    s.power_on(0);
    s.power_on(1);
    s.until_converged();
    s.check("one side was chosen as source, after a committed leave", s.generation() > before);
    s.end();
}

void f3(Stage& s) {
    for (std::uint64_t i = 0; i < 8; ++i) s.written(10 + 3 * i);
    s.disk(1).faults().fail_next_flush = true;
    s.fault(1, "its next flush fails");
    const auto flush = s.flush();
    s.until("the flush is answered", [&] { return s.done(flush); });
    s.check("node2 had left the ack set before", s.acknowledged(flush) && s.alone(0));
    s.say("node2's device still shows what it has forgotten; blockd is started again in the same boot.");
    s.kill_blockd(1);
    s.start_blockd(1);
    s.world().link().allow(1);
    s.end();
}

void f4(Stage& s) {
    const auto write = s.written(10);
    s.disk(0).faults().fail_next_flush = true;
    s.fault(0, "its next flush fails, and the one after would succeed");
    const auto flush = s.flush();
    s.until("node1's replica is failed", [&] { return s.view(0).local_state == ReplicaState::failed; });
    s.check("the flush is not answered while the record names node1", !s.acknowledged(flush) || s.alone(1));
    s.finish(flush);
    s.check("it was answered when node1 had left the ack set, by node2's disk",
            s.alone(1) && s.stable_on(1, write));
    const auto seen = s.read(10);
    s.finish(seen);
    s.check("a read is answered from node2", s.read_shows(seen, write));
    s.say("The operator looks after the disk and restarts blockd.");
    s.kill_blockd(0);
    s.start_blockd(0);
    s.world().link().allow(0);
    s.end();
}

void m1(Stage& s) {
    const auto covered = s.written(10);
    s.say("The next write needs a new transaction of the intent log; the power goes while that is written.");
    const auto write = s.write(2 * kBlocksPerExtent);
    s.run(microseconds(120));
    s.power_cut(0);
    s.check("no byte of it was submitted before", !s.shows(0, write) && !s.shows(1, write));
    s.until_served_by(1);
    s.power_on(0);
    s.until_converged();
    s.check("the transaction before still covered what was open", s.shows(0, covered));
    s.end();
}

void m2(Stage& s) {
    s.disk(0).faults().fail_next_metadata_write = true;
    s.fault(0, "its next metadata write fails");
    const auto write = s.write(2 * kBlocksPerExtent);
    s.until("node1's replica is failed", [&] { return s.view(0).local_state == ReplicaState::failed; });
    s.check("the data was not submitted here", !s.shows(0, write) && !s.done(write));
    s.finish(write);
    s.check("it is answered when node1 has left the ack set, by node2's disk",
            s.alone(1) && s.shows(1, write));
    s.kill_blockd(0);
    s.start_blockd(0);
    s.world().link().allow(0);
    s.end();
}

void m3(Stage& s) {
    s.cut_links();
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    std::vector<Stage::Handle> writes;
    for (std::uint64_t extent = 0; extent < 40; ++extent)
        writes.push_back(s.write(extent * kBlocksPerExtent + 5));
    s.finish(writes);
    s.finish(s.flush());
    s.check("more extents were written than the intent log holds", s.view(0).active_extents < 40);
    s.power_cut(0);
    s.world().check_tracking();
    s.check("every difference is tracked on node1's disk", true);
    s.power_on(0);
    s.until_served_by(0);
    s.heal_links();
    s.until_converged();
    s.check("node2 got all of them", s.shows(1, writes));
    s.end();
}

void m4(Stage& s) {
    s.cut_links();
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    for (std::uint64_t extent = 0; extent < 10; ++extent) s.written(extent * kBlocksPerExtent + 7);
    s.disk(1).faults().slow_factor = 10;
    s.heal_links();
    s.step_until("node2 is resyncing", [&] { return s.view(1).sync == replication::SyncState::sync_target; });
    std::vector<Stage::Handle> writes;
    for (std::uint64_t extent = 0; extent < 48; ++extent)
        writes.push_back(s.write(extent * kBlocksPerExtent + 9));
    s.finish(writes);
    s.check("48 writes in 48 extents went through while the resync ran", true);
    s.disk(1).faults().slow_factor = 1;
    s.end();
}

void m5(Stage& s) {
    const auto old = s.written(10);
    s.finish(s.flush());
    s.cut_links_one_way(0);
    const auto lost = s.write(10);
    s.step_until("node1 has a write that node2 lacks", [&] { return s.shows(0, lost) && !s.shows(1, lost); });
    s.power_cut(0);
    s.heal_links();
    s.until_served_by(1);
    const auto other = s.written(2 * kBlocksPerExtent);
    s.say("Now each side knows of a difference the other does not know of.");
    s.until_converged();
    s.check("the union was repaired: node2's write reached node1, node1's lost write is gone",
            s.shows(0, other) && s.shows(0, old) && !s.shows(0, lost));
    s.end();
}

// the newest superblock of that image, and where it lies
std::uint64_t newest_slot(const Image& image, std::uint64_t data_bytes) {
    StableMetadata metadata(data_bytes);
    metadata.read(image, 1);
    return formats::Layout::superblock_offset(metadata.superblock()->sequence);
}

void break_superblock(Stage& s, const Image* foreign) {
    constexpr std::uint64_t kData = 16U << 20;
    s.power_cut(1);
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    Image image = s.disk(1).copy_of_stable();
    const std::uint64_t slot = newest_slot(image, kData);
    std::array<std::byte, formats::kPageBytes> page{};
    if (foreign != nullptr) {
        foreign->metadata.read(newest_slot(*foreign, kData), page);
    } else {
        image.metadata.read(slot, page);
        page[600] ^= std::byte{0x10};
    }
    image.metadata.write(slot, page);
    s.world().restore(1, image);
    s.power_on(1);
    s.until_converged();
    s.check("node2 did not take its older superblock for the truth", s.told("freshness is unknown") == 1);
    s.check("it was a target and never a source",
            s.told("node2  verdict     source") == 0 && s.told("node2  verdict     target") > 0);
    s.end();
}

void m6(Stage& s) {
    s.written(10);
    s.say("node2 loses power; when it comes back a bit of its newest superblock has rotted.");
    break_superblock(s, nullptr);
}

void m7(Stage& s) {
    s.written(10);
    s.say("A stray write put node1's superblock over node2's newest one.");
    const Image neighbour = s.disk(0).copy_of_stable();
    break_superblock(s, &neighbour);
}

void m8(Stage& s) {
    s.written(10);
    s.finish(s.flush());
    const Image old = s.disk(1).copy_of_stable();
    s.say("Two times node2 is away and comes back; each time the generation moves.");
    for (int i = 0; i < 2; ++i) {
        s.power_cut(1);
        s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
        s.written(20);
        s.power_on(1);
        s.until_converged();
    }
    const auto newest = s.written(10);
    s.power_cut(1);
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    s.fault(1, "its disk is restored from an image two generations old");
    s.world().restore(1, old);
    s.power_on(1);
    s.until_converged();
    s.check("it was never taken for in sync, nor for a source",
            s.told("node2  verdict     source") == 0 && s.told("no-resync") == 0);
    s.check("it shows the newest write", s.shows(1, newest));
    s.power_cut(1);
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    const Image own = s.disk(1).copy_of_stable();
    s.fault(1, "its disk is replaced by a clone of node1's");
    s.world().restore(1, s.disk(0).copy_of_stable());
    s.power_on(1);
    s.until("node2 refuses the clone", [&] { return !s.view(1).problem.empty(); });
    s.check("it does not attach", !s.view(1).attached);
    s.power_cut(1);
    s.world().restore(1, own);
    s.power_on(1);
    s.end();
}

}  // namespace

void add_flush_and_metadata(std::vector<Scenario>& all) {
    const StageOptions large{{kLarge, 32, false}, Voters::three, false};
    all.push_back({"F1", "The peer acknowledges from its cache, loses power and returns.",
                   "What it had not flushed is resent (D14, fact 3).", f1});
    all.push_back({"F2", "Both lose power with completed writes that nobody flushed.",
                   "The union of both logs is resynced from one side.", f2});
    all.push_back({"F3", "A flush fails on the peer.",
                   "The peer leaves the ack set before the flush is answered.", f3});
    all.push_back({"F4", "fsync fails here, and a retry would succeed.",
                   "The replica is failed; the guest goes on over the network, from the other.", f4});
    all.push_back({"M1", "Power cut in the middle of an intent transaction.",
                   "The data was not submitted; the transaction before covers the rest.", m1});
    all.push_back(
        {"M2", "An intent transaction fails.", "The data is not submitted; the replica is failed.", m2});
    all.push_back({"M3", "Extents are evicted from the intent log and the power goes.",
                   "Their bits were stable before.", m3, large});
    all.push_back({"M4", "The intent log is full while a resync runs.", "No deadlock.", m4, large});
    all.push_back({"M5", "Both sides know of differences.", "The union is repaired.", m5});
    all.push_back({"M6", "The newest superblock is damaged, an older one is readable.",
                   "The older one is not the truth: the replica can only be a target.", m6});
    all.push_back({"M7", "Another disk's metadata lands on the superblock.",
                   "It is recognised by replica and place, and not believed.", m7});
    all.push_back({"M8", "A replica is restored from an old image; a disk is cloned.",
                   "Full resync as a target; the clone is refused.", m8});
}

}  // namespace gemel::sim
