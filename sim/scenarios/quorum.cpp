// Scenarios H7 to H10, H12, H13, H28 and H39 with three voters: what the store says, late, twice, or from an
// old disk.
#include <fmt/format.h>

#include "sim/scenarios/cluster.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

void h7(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    c.witness(false);
    s.run(seconds(30));
    s.finish(s.write(20));
    s.check("two of three decide: nothing happens", c.guest_runs_on(0) && s.told(" frozen ") == 0);
    s.power_cut(1);
    const auto frozen = s.write(30);
    s.run(seconds(90));
    s.check("one of three decides nothing: no fence instead of a quorum, nothing is answered",
            !s.done(frozen) && c.fences_begun(1) == 0 && c.forcings() == 0);
    s.check("the guest was stopped, and killed before anybody could be granted its disk",
            !s.world().guest().alive());
    c.show_status(0);
    s.check("status says that there is no quorum", c.says(0, "no quorum"));
    s.say("The witness comes back.");
    c.witness(true);
    s.until("the guest runs", [&] { return c.guest_runs_on(0); });
    s.check("by a quorum, after node2 was verified off", c.fenced(1) == 1 && c.starts(0) == 1);
    s.end();
}

void h7_removed(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    c.witness(false);
    s.until(
        "both nodes, healthy, have committed the witness out",
        [&] { return c.truth().cluster->record.voters.size() == 2; }, seconds(900));
    s.run(seconds(2));
    s.power_cut(1);
    s.finish(s.write(20));
    s.check("now they are two voters: node2 verified off, then forced",
            c.fenced(1) == 1 && c.forcings() == 1);
    s.say("The old witness returns with its old store, and node2 with its: they are a quorum of the past.");
    c.witness(true);
    s.until_converged();
    s.check("it went nowhere: node1's guest ran on, nothing was started",
            c.guest_runs_on(0) && c.starts(1) == 0);
    s.check("the witness' old store votes for nobody", c.store().rejected(kWitness));
    c.witness_begins_anew();
    s.until(
        "the witness is added again", [&] { return c.truth().cluster->record.voters.size() == 3; },
        seconds(200));
    s.end();
}

// In the daemon the witness is a plain etcd member; whoever empties its disk adds it again (docs/guide).
void h8(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.say("The witness is down for long, and is committed out; its disk is lost.");
    c.witness(false);
    s.until(
        "it is committed out", [&] { return c.truth().cluster->record.voters.size() == 2; }, seconds(900));
    s.fault(kWorld, "the witness' disk is lost");
    c.store().set_aside(kWitness);
    s.run(seconds(2));
    s.power_cut(0);
    s.until_served_by(1);
    const auto only_there = s.written(20);
    c.witness(true);
    s.run(seconds(30));
    s.check("an empty store votes for nobody: node2 serves on", s.owner() == 1 && c.guest_runs_on(1));
    s.until_converged();
    s.check("what only node2 had is on both", s.shows(0, only_there));
    c.witness_begins_anew();
    s.until(
        "the witness is added again", [&] { return c.truth().cluster->record.voters.size() == 3; },
        seconds(200));
    s.end();
}

void h9(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.fault(0, "its wall clock jumps an hour ahead");
    c.plane().node(0).set_wall_clock(3'600'000);
    s.run(seconds(30));
    s.fault(1, "its wall clock jumps an hour back");
    c.plane().node(1).set_wall_clock(-3'600'000);
    s.run(seconds(30));
    s.finish(s.write(20));
    s.check("nothing happens", c.guest_runs_on(0) && c.fences_begun(0) + c.fences_begun(1) == 0 &&
                                   s.told(" frozen ") == 0 && s.told("coordinator, term") == 0);
    const Instant cut = s.world().now();
    s.power_cut(0);
    s.until_served_by(1);
    s.check("a failover takes no longer than without", s.world().now() - cut < seconds(8));
    s.end();
}

void h10(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.fault(kWorld, "the store does as node1 asks, and the reply is lost");
    c.store().lose_next_reply(0, [](const cluster::Txn& txn) { return Cluster::ack_set_in(txn) == 1; });
    const std::uint64_t before = s.generation();
    s.cut_links();
    const auto write = s.write(20);
    s.until("the loss of the links is decided in the store", [&] { return s.generation() > before; });
    s.check("node1 does not know it yet: the write is not answered", !s.done(write));
    s.finish(write);
    s.check("read back by its operation: done once", s.generation() == before + 1 && s.alone(0));
    s.heal_links();
    s.until_converged();
    s.say("The same with an operator's request.");
    c.store().lose_next_reply(
        0, [](const cluster::Txn& txn) { return Cluster::touches(txn, keys::kOperations); });
    const auto stop = c.ask(0, cluster::GuestStop{"web1", true, 20000}, "vm stop web1 --power-off");
    s.check("he is answered all the same, and it is done",
            stop.accepted && c.outcome(0, stop, seconds(60)) == "succeeded");
    c.ask(0, cluster::GuestStart{"web1", "node1"}, "vm start web1 --node node1");
    s.until("the guest runs", [&] { return c.guest_runs_on(0); });
    s.check("started once", c.starts(0) == 1 && c.starts(1) == 0);
    s.end();
}

void h12(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.fault(kWorld, "watches lag by seconds");
    c.store().set_slow_watches(true);
    s.power_cut(0);
    s.until_served_by(1);
    s.check("node1 was fenced once, the guest started once", c.fenced(0) == 1 && c.starts(1) == 1);
    s.until_converged();
    s.say("The other way, and node1's watch falls behind what the store keeps.");
    s.fault(0, "its watch is compacted away");
    for (int i = 0; i < 3; ++i) {
        s.world().network().cut_both_ways(Cable::control, 0, kWitness, true);
        c.kill_store(0);
        s.run(seconds(2));
        s.world().network().cut_both_ways(Cable::control, 0, kWitness, false);
        s.run(seconds(4));
    }
    s.power_cut(1);
    s.until_served_by(0);
    s.check("node2 was fenced once, the guest started once", c.fenced(1) == 1 && c.starts(0) == 1);
    c.store().set_slow_watches(false);
    s.end();
}

void h13(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.say("clusterd of the owner crashes whenever it has run for two seconds.");
    for (int i = 0; i < 12; ++i) {
        if (i == 0) {
            s.kill_clusterd(0);
        } else {
            s.world().stop_clusterd(0);
        }
        s.run(seconds(3));
        s.world().start_clusterd(0);
        s.run(seconds(2));
        s.finish(s.write(20 + static_cast<std::uint64_t>(i)));
    }
    s.check("the guest ran on, nobody was fenced, no watchdog fired",
            c.guest_runs_on(0) && c.starts(0) + c.starts(1) == 0 &&
                c.fences_begun(0) + c.fences_begun(1) == 0 && s.count("host.power_off", 0) == 0);
    s.say("It stays away for two minutes.");
    s.kill_clusterd(0);
    for (int i = 0; i < 12; ++i) {
        s.run(seconds(10));
        s.finish(s.write(40 + static_cast<std::uint64_t>(i)));
    }
    s.check("blockd and the guard need it for nothing",
            c.guest_runs_on(0) && s.count("host.power_off", 0) == 0 && c.fences_begun(0) == 0);
    s.start_clusterd(0);
    s.end();
}

void h28_three(Stage& s) {
    Cluster c(s);
    c.restart_all_daemons();
    s.check("nobody was fenced", c.fences_begun(0) + c.fences_begun(1) == 0);
    s.check("the guest runs where it ran, and was started nowhere",
            c.guest_runs_on(0) && c.starts(0) + c.starts(1) == 0);
    s.end();
}

void h39(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.fault(1, "somebody takes an image of its store");
    c.plane().take_store_image(1);
    s.run(seconds(5));
    s.power_cut(1);
    s.finish(s.write(20));
    s.power_on(1);
    s.until_converged();
    s.run(seconds(5));
    s.power_cut(1);
    s.finish(s.write(30));
    s.check("the old image is put back while it is off", c.plane().restore_store_image(1));
    s.power_on(1);
    s.until("node2 sets that store aside", [&] { return s.told("lost or restored disk") >= 1; });
    s.check("it was never believed: node1 serves on", c.guest_runs_on(0) && s.owner() == 0);
    s.until(
        "it is a voter again", [&] { return c.acting(1) && c.truth().cluster->record.voters.size() == 3; },
        seconds(120));
    s.end();
}

}  // namespace

void add_quorum(std::vector<Scenario>& all) {
    const StageOptions three{{}, Voters::three, true};
    StageOptions impatient = three;
    impatient.volume.timing.witness_absent_ms = 60'000;
    all.push_back({"H7", "The witness is down, then the peer dies.",
                   "A fence never replaces the quorum: frozen.", h7, three});
    all.push_back(
        {"H7-removed", "The witness is away for long and was committed out while both were healthy.",
         "Then they are two voters, and it comes back by a committed change.", h7_removed, impatient});
    all.push_back(
        {"H8", "The witness returns with an empty disk.", "An empty store never votes.", h8, impatient});
    all.push_back({"H9", "Wall clocks jump by an hour.", "Nothing decides by them.", h9, three});
    all.push_back(
        {"H10", "The reply of a transaction is lost.", "Read back by its operation: done once.", h10, three});
    all.push_back({"H12", "Watches lag or are compacted while a node decides.", "Old tables decide nothing.",
                   h12, three});
    all.push_back({"H13", "clusterd crashes in a loop, then stays away.", "The data plane does not need it.",
                   h13, three});
    all.push_back({"H28-witness", "Daemons and etcd are restarted on healthy nodes of three voters.",
                   "Nothing is taken for death.", h28_three, three});
    all.push_back({"H39", "A node returns with an old image of its store.",
                   "No vote until it is added again.", h39, three});
}

}  // namespace gemel::sim
