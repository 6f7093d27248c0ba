// Scenarios W: the write path and its order.
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

void w1(Stage& s) {
    const auto old = s.written(10);
    s.finish(s.flush());
    s.say("The frames of node1 are held back, so that the write lands there and never on node2.");
    s.cut_links_one_way(0);
    const auto lost = s.write(10);
    s.step_until("node1's disk shows the write, node2 has not got it",
                 [&] { return s.shows(0, lost) && !s.shows(1, lost); });
    s.power_cut(0);
    s.heal_links();
    s.check("the guest was never told", !s.done(lost));
    s.until_served_by(1);
    const auto seen = s.read(10);
    s.finish(seen);
    s.check("the survivor's version is the old write", s.read_shows(seen, old));
    s.until_converged();
    s.check("node1's extent was repaired from the survivor: it shows the old write",
            s.shows(0, old) && !s.shows(0, lost));
    s.end();
}

void w2(Stage& s) {
    s.written(10);
    s.finish(s.flush());
    s.say("node2 has the write and its answer is held back; node1's own disk takes long.");
    s.disk(0).faults().hang_next = true;
    s.cut_links_one_way(1);
    const auto fresh = s.write(10);
    s.step_until("node2's disk shows the write, node1's does not",
                 [&] { return s.shows(1, fresh) && !s.shows(0, fresh); });
    s.power_cut(0);
    s.heal_links();
    s.check("the guest was never told", !s.done(fresh));
    s.until_served_by(1);
    const auto seen = s.read(10);
    s.finish(seen);
    s.check("the survivor's version is the new write, and once read it stays", s.read_shows(seen, fresh));
    s.until_converged();
    s.check("node1 shows the survivor's version", s.shows(0, fresh));
    s.end();
}

void w3(Stage& s) {
    s.written(10);
    s.cut_links_one_way(1);
    const auto held = s.write(10);
    s.step_until("both disks show the write, the answer of node2 is lost",
                 [&] { return s.shows(0, held) && s.shows(1, held); });
    s.check("it is not acknowledged", !s.done(held));
    s.until("node1 has lost its peer",
            [&] { return s.view(0).frozen == replication::FreezeReason::peer_lost; });
    s.check("it is still held back while the record names both", !s.done(held) || s.alone(0));
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    s.finish(held);
    s.check("its block is tracked as different", s.view(0).dirty_bytes >= kBlockBytes);
    s.heal_links();
    s.end();
}

void w4(Stage& s) {
    s.say("Two writes of different queues overlap in block 11; the disks take their time in any order.");
    s.disk(1).faults().slow_factor = 20;
    const auto first = s.write(10, 2);
    const auto second = s.write(11, 2);
    s.run(microseconds(400));
    s.disk(0).faults().slow_factor = 20;
    const auto third = s.write(11, 1);
    s.finish(first);
    s.finish(second);
    s.finish(third);
    s.check("the third one was applied last on both", s.shows(0, third) && s.shows(1, third));
    const auto seen = s.read(11);
    s.finish(seen);
    s.check("a read shows it", s.read_shows(seen, third));
    s.disk(0).faults().slow_factor = 1;
    s.disk(1).faults().slow_factor = 1;
    s.end();
}

void w7(Stage& s) {
    s.say("A write hangs in node1's disk; the guest flushes meanwhile.");
    const auto before = s.written(10);
    s.disk(0).faults().hang_next = true;
    const auto hangs = s.write(20);
    s.run(milliseconds(5));
    const auto flush = s.flush();
    s.finish(flush);
    s.check("the flush covers the write that had completed",
            s.stable_on(0, before) && s.stable_on(1, before));
    s.check("it does not pretend to cover the one that runs", !s.done(hangs));
    s.finish(hangs);
    s.finish(s.flush());
    s.check("the next flush covers it", s.stable_on(0, hangs) && s.stable_on(1, hangs));
    s.end();
}

void w8(Stage& s) {
    s.say("node1's kernel writes a part of the next request only, then of the rest a part again.");
    s.disk(0).faults().short_writes = 2;
    const auto write = s.write(10, 8);
    s.step_until("node1's disk shows a part of it",
                 [&] { return s.disk(0).faults().short_writes == 0 && !s.shows(0, write); });
    s.check("it is not acknowledged", !s.done(write));
    s.finish(write);
    s.check("the rest was submitted again: all of it is on both", s.shows(0, write) && s.shows(1, write));
    s.end();
}

void w9(Stage& s) {
    s.say("The guest changes its buffer while the write is on its way.");
    s.disk(0).faults().slow_factor = 10;
    const auto write = s.write(10);
    s.run(microseconds(150));
    s.fault(0, "the guest writes into the buffer it has submitted");
    s.world().guest().scribble(write);
    s.finish(write);
    s.check("disk and wire were fed from one copy: both replicas hold the same",
            s.shows(0, write) && s.shows(1, write));
    s.disk(0).faults().slow_factor = 1;
    s.end();
}

void w10(Stage& s) {
    s.say("node2 has a write, its answer is lost with the session; after the reconnect it is sent again.");
    s.disk(0).faults().slow_factor = 100;
    const auto first = s.write(10);
    s.step_until("node2's disk shows it, node1 still writes",
                 [&] { return s.shows(1, first) && !s.shows(0, first); });
    s.reset_session();
    const auto second = s.write(10);
    s.disk(0).faults().slow_factor = 1;
    s.finish(first);
    s.finish(second);
    s.check("the repeated write did not overwrite the newer one", s.shows(0, second) && s.shows(1, second));
    s.end();
}

}  // namespace

void add_write_path(std::vector<Scenario>& all) {
    all.push_back({"W1", "Power cut on the writer after its local write, before the peer has it.",
                   "The active extent is resynced from the survivor; the old value wins; the write was never "
                   "acknowledged.",
                   w1});
    all.push_back({"W2", "Power cut after the peer's write, before the local write and the answer.",
                   "The survivor's version wins everywhere; a value once read is stable.", w2});
    all.push_back({"W3", "The peer's answer is lost, the link drops.",
                   "The write is held; with permission it is answered from here, and its block is dirty.",
                   w3});
    all.push_back({"W4", "Overlapping writes of one guest are in flight together.",
                   "They are serialised: the same order on both replicas.", w4});
    all.push_back({"W7", "A flush is asked for while a write still runs.",
                   "It covers what had completed and nothing else.", w7});
    all.push_back({"W8", "Short writes.",
                   "The remainder is submitted again; the answer comes when all is written.", w8});
    all.push_back(
        {"W9", "The guest modifies a buffer during its write.", "One copy feeds disk and wire (D11).", w9});
    all.push_back({"W10", "A write is delivered twice: resent after a reconnect.",
                   "It never overwrites a newer one.", w10});
}

}  // namespace gemel::sim
