// Scenarios H30 to H33, H37 and H38: where the volume's engine and the committed record meet.
#include <vector>

#include <fmt/format.h>

#include "sim/scenarios/cluster.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

void h30(Stage& s) {
    Cluster c(s);
    s.finish(s.write(5));
    s.finish(s.flush());
    const std::vector<Stage::Handle> writes = {s.written(10), s.written(20), s.written(30)};
    const std::uint64_t before = s.generation();
    s.world().set_boot_time(milliseconds(150));
    s.power_cut(1);
    s.power_on(1);
    const auto flush = s.flush();
    s.until("node2's blockd is there again", [&] { return s.view(1).attached; });
    s.finish(flush);
    s.check("a flush was answered only after its loss was committed, or when it had them stably",
            s.generation() > before &&
                (s.alone(0) ||
                 (s.stable_on(1, writes[0]) && s.stable_on(1, writes[1]) && s.stable_on(1, writes[2]))));
    s.until_converged();
    s.check("what it had forgotten is on it again", s.shows(1, writes));
    s.check("it was neither fenced nor was anything moved", c.fences_begun(1) == 0 && c.guest_runs_on(0));
    s.end();
}

bool joins(const cluster::Txn& txn) {
    return Cluster::ack_set_in(txn) == 2;
}

// node2 has been away; that it joins is held back on its way to the store.
void hold_join_of_node2(Stage& s, Cluster& c, const std::string& what) {
    s.power_cut(1);
    s.finish(s.write(10));
    c.store().hold_next(0, joins);
    s.power_on(1);
    s.until(what, [&] { return c.store().holds_one(); });
}

void h31(Stage& s) {
    Cluster c(s);
    hold_join_of_node2(s, c, "node2 is current: that it joins is under way to the store");
    const auto between = s.write(20);
    s.finish(between);
    s.check("a write acknowledged meanwhile is on node2 already", s.shows(1, between));
    s.finish(s.flush());
    s.check("a flushed one stably", s.stable_on(1, between));
    c.store().release_held();
    s.until("node2 has joined", [&] { return s.both(); });
    s.power_cut(0);
    s.until_served_by(1);
    const auto read = s.read(20);
    s.finish(read);
    s.check("the promoted node2 has it", s.read_shows(read, between));
    s.end();
}

void h32(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.say(
        "A planned move: the guest stops, gives its lease back and starts on node2; replies are lost on the "
        "way.");
    const auto stop = c.ask(0, cluster::GuestStop{"web1", true, 20000}, "vm stop web1 --power-off");
    c.store().set_lost_replies(70);
    s.run(seconds(4));
    c.store().set_lost_replies(0);
    s.until("nobody owns the volume", [&] { return s.owner() == 2; });
    s.check("the stop is done", c.outcome(0, stop, seconds(40)) == "succeeded");
    const auto start = c.ask(0, cluster::GuestStart{"web1", "node2"}, "vm start web1 --node node2");
    s.until("node2 is granted", [&] { return s.owner() == 1; });
    s.fault(kWorld, "in this moment");
    c.part(true);
    s.run(seconds(60));
    s.check("one owner: node2, whether it knows or not", s.owner() == 1 && c.starts(0) == 0);
    c.heal_parted();
    s.until_served_by(1);
    s.check("started there once", c.starts(1) <= 2 && c.outcome(1, start, seconds(30)) == "succeeded");
    s.end();
}

// One front-end session per epoch is blockd's socket, which is not simulated; its engine refuses the rest.
void h33(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.fault(0, "somebody writes to the volume on the owner's own node, with a name of a former epoch");
    GuestRequest request;
    request.tag = ~std::uint64_t{0} - 1;
    request.operation = GuestOperation::write;
    request.offset = 10ULL * kBlockBytes;
    request.length = kBlockBytes;
    request.stamp = 666;
    s.world().block(0).front_submit(s.world().committed().record.epoch - 1, request);
    s.run(seconds(1));
    s.check("it reached neither disk", s.disk(0).current().data.get(10ULL * kSectorsPerBlock) != 666 &&
                                           s.disk(1).current().data.get(10ULL * kSectorsPerBlock) != 666);
    s.fault(0, "the guest is started a second time on its own node");
    const auto again = c.ask(0, cluster::GuestStart{"web1", "node1"}, "vm start web1 --node node1");
    s.run(seconds(5));
    s.check("it runs once, in the same epoch", c.starts(0) == 0 && c.guest_runs_on(0) && again.accepted);
    s.check("and not on the other one either",
            !c.ask(0, cluster::GuestStart{"web1", "node2"}, "vm start web1 --node node2").accepted);
    s.end();
}

void h37(Stage& s) {
    Cluster c(s);
    hold_join_of_node2(s, c, "that node2 is UpToDate is under way to the store");
    s.fault(0, "that transaction is late; clusterd of node1 dies, and knows nothing of it any more");
    s.kill_clusterd(0);
    s.power_cut(1);
    s.start_clusterd(0);
    const auto write = s.write(20);
    const std::uint64_t before = s.generation();
    s.finish(write);
    s.check("node2 left again: by a new generation, though the record had it outside already",
            s.generation() > before && s.alone(0));
    s.fault(kWorld, "now the late one arrives");
    c.store().release_held();
    s.run(seconds(5));
    s.check("it does not land: node2 is not trusted", s.alone(0));
    s.end();
}

void h38(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.disk(0).faults().slow_factor = 2000;
    s.disk(1).faults().slow_factor = 2000;
    s.say(
        "Both disks are slow; the owner's blockd is killed with writes in them, and a newer write follows.");
    const std::vector<Stage::Handle> old = {s.write(20), s.write(21), s.write(22)};
    s.run(milliseconds(2));
    s.kill_blockd(0);
    s.start_blockd(0);
    const auto newer = s.write(20);
    s.run(seconds(1));
    s.disk(0).faults().slow_factor = 1;
    s.disk(1).faults().slow_factor = 1;
    s.finish(old);
    s.finish(newer);
    const auto read = s.read(20);
    s.finish(read);
    s.check("the newer one stands on both",
            s.read_shows(read, newer) && s.shows(0, newer) && s.shows(1, newer));
    s.say("The same on the peer; and its dead process ate the error of a flush.");
    const auto unflushed = s.written(30);
    s.disk(1).faults().fail_next_flush = true;
    const auto flush = s.flush();
    s.run(microseconds(300));
    s.kill_blockd(1);
    s.start_blockd(1);
    s.finish(flush);
    s.check("the flush was answered with the write stable wherever it counts",
            s.stable_on(0, unflushed) && (s.alone(0) || s.stable_on(1, unflushed)));
    s.check("nobody was fenced, nothing moved",
            c.fences_begun(0) + c.fences_begun(1) == 0 && c.guest_runs_on(0));
    s.end();
}

}  // namespace

void add_volume_and_store(std::vector<Scenario>& all) {
    const StageOptions three{{}, Voters::three, true};
    all.push_back({"H30", "The peer reboots faster than it is missed.",
                   "Another boot id is a lost peer: what it had not flushed is not forgotten.", h30, three});
    all.push_back({"H31", "A resync ends, and its end is slow to be committed.",
                   "The target is in the ack set before it is proposed.", h31, three});
    all.push_back(
        {"H32", "A move, with lost replies and a cut at the grant.", "One owner, always.", h32, three});
    all.push_back({"H33", "The volume is opened again on the owner's own node.", "Refused.", h33, three});
    all.push_back({"H37", "A delayed 'UpToDate' arrives after that node has left again.",
                   "Leaving changed the record: it cannot land.", h37, three});
    all.push_back({"H38", "blockd is replaced with its old I/O still in the disk.",
                   "Old data never lands over new, no flush covers what is lost.", h38, three});
}

}  // namespace gemel::sim
