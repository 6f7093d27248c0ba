// Scenarios H17, H27, H28, H34 to H36: two voters, one store that cannot decide without both, and who may go
// on without the other.
#include <fmt/format.h>

#include "sim/scenarios/cluster.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

void h17(Stage& s) {
    Cluster c(s);
    s.power_on(0);
    s.run(seconds(60));
    s.check("node1 alone begins nothing, and waits", !c.acting(0));
    c.show_status(0);
    s.check("status says that it waits for its peer",
            c.store_state(0) == "waiting-for-peer" || c.store_state(0) == "unknown");
    s.power_on(1);
    s.until(
        "both take part, the guest runs", [&] { return s.world().converged(); }, seconds(120));
    s.finish(s.write(10));
    s.finish(s.flush());
    const std::uint32_t first = s.world().guest().node();
    const std::uint32_t other = 1 - first;
    s.say(fmt::format("Everything goes dark; only node{} comes back.", first + 1));
    s.power_cut(0);
    s.power_cut(1);
    s.run(seconds(5));
    s.power_on(first);
    s.run(seconds(60));
    s.check("without standing it neither fences nor forces", c.fences_begun(other) == 0 && c.forcings() == 0);
    c.show_status(first);
    s.check("status names the command", c.says(first, "gemel cluster start --alone --accept-loss"));
    s.check("the cluster's name must be typed", !c.ask(first, cluster::StartAlone{"web", true},
                                                       "cluster start --alone --accept-loss (named 'web')")
                                                     .accepted);
    s.check("and the loss accepted",
            !c.ask(first, cluster::StartAlone{"sim", false}, "cluster start --alone").accepted);
    const auto alone = c.ask(first, cluster::StartAlone{"sim", true}, "cluster start --alone --accept-loss");
    s.check("accepted", alone.accepted);
    s.until("the guest runs on it", [&] { return c.guest_runs_on(first); });
    s.check("after the other one was verified off, once", c.fenced(other) == 1 && c.forcings() == 1);
    s.end();
}

// node1 dies and boots again; what was written meanwhile (block 20) is on node2 only.
void node2_goes_on_alone(Stage& s) {
    s.power_cut(0);
    s.until_served_by(1);
    s.finish(s.write(20));
    s.until("node1 is powered on again", [&] { return s.world().host(0).powered; });
}

void h27(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.power_cut(0);
    s.until_served_by(1);
    const auto only_there = s.written(20);
    s.finish(s.flush());
    s.check("node2 acts alone after a verified fence", s.alone(1) && c.fenced(0) == 1 && c.forcings() == 1);
    s.say("node2 dies before node1 has come back; node1 boots alone.");
    s.until("node1 is powered on again", [&] { return s.world().host(0).powered; });
    s.power_cut(1);
    s.run(seconds(120));
    s.check(
        "node1 waits: it has no standing, fences nobody, starts nothing",
        c.fences_begun(1) == 0 && c.starts(0) == 0 && !c.clusterd(0)->has_standing() && c.forcings() == 1);
    c.show_status(0);
    s.check("status says why and what overrides", c.says(0, "no standing") && c.says(0, "--accept-loss"));
    s.power_on(1);
    s.until_served_by(1);
    s.finish(s.read(20));
    s.check("the newer store went on", c.forcings() == 1);
    s.until_converged();
    s.check("and what only node2 had is on both", s.shows(0, only_there) && s.shows(1, only_there));
    s.end();
}

void h27_override(Stage& s) {
    Cluster c(s);
    const auto early = s.written(10);
    s.finish(s.flush());
    node2_goes_on_alone(s);
    c.power_cut_with_bmc(1);
    s.run(seconds(30));
    const auto refused = c.ask(0, cluster::StartAlone{"sim", true}, "cluster start --alone --accept-loss");
    s.run(seconds(30));
    s.check("even the operator's acceptance needs a proof: node2's BMC is dead",
            refused.accepted && c.fenced(1) == 0 && c.starts(0) == 0 && c.forcings() == 1);
    c.show_status(0);
    s.say("The BMC comes back; he asks again.");
    s.world().network().set_bmc(1, true);
    c.ask(0, cluster::StartAlone{"sim", true}, "cluster start --alone --accept-loss");
    s.until("node2 is verified off", [&] { return c.fenced(1) == 1; });
    s.until("the guest runs on node1", [&] { return c.guest_runs_on(0); });
    s.check("with what node1 has", s.shows(0, early));
    s.run(seconds(40));
    s.check("node2, powered on, has another history: said on both, nothing is overwritten",
            c.store_state(1) == "split-brain" && s.told("split brain split brain") == 2);
    c.show_status(1);
}

void h28_two(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    c.restart_all_daemons();
    s.kill_clusterd(0);
    s.run(seconds(12));
    s.start_clusterd(0);
    s.run(seconds(20));
    s.check("nobody was fenced, nothing was forced",
            c.fences_begun(0) + c.fences_begun(1) == 0 && c.forcings() == 0);
    s.check("the guest runs where it ran, and was started nowhere",
            c.guest_runs_on(0) && c.starts(0) + c.starts(1) == 0);
    s.end();
}

// The entry "node2 Outdated" is stored by node2, which never learns that it was committed.
void h34(Stage& s) {
    Cluster c(s);
    s.finish(s.write(5));
    s.until("node1's member leads the store", [&] {
        if (c.store().leader_of(0) == 1U) c.kill_store(1);
        s.run(seconds(5));
        return c.store().leader_of(0) == 0U;
    });
    s.fault(kWorld, "followers learn late what was committed");
    s.world().control().set_late_commits(true);
    const std::uint64_t before = s.generation();
    s.cut_links();
    const auto write = s.write(10);
    s.until("the loss of node2 is decided in the store", [&] { return s.generation() > before; });
    s.check("and not yet told to the guest: the barrier is not through", !s.done(write));
    s.fault(kWorld, "in this moment node1 loses its power");
    s.power_cut(0);
    s.world().control().set_late_commits(false);
    s.until_served_by(1);
    s.check("node2 forced a store that may have dropped the entry, and took over",
            c.forcings() == 1 && s.alone(1));
    s.check("the guest was never told of that write", !s.acknowledged(write));
    s.heal_links();
    s.end();
}

void h35(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.power_cut(0);
    s.until("node2 makes a single member of a copy", [&] { return s.told("making a single member") == 1; });
    s.run(milliseconds(500));
    s.fault(kWorld, "in the middle of it node2 loses its power too");
    s.power_cut(1);
    s.power_on(1);
    s.run(seconds(60));
    s.check("the unfinished copy is gone: the store is the old one, and waits",
            c.forcings() == 0 && !c.acting(1));
    c.show_status(1);
    s.power_on(0);
    s.until_converged();
    s.check("with both there it is quorate as before, nothing was forced", c.forcings() == 0);
    s.say("Now forced to its end; then the single member is restarted, twice.");
    const std::uint32_t owner = s.owner();
    const std::uint32_t other = 1 - owner;
    c.power_cut_with_bmc(owner);
    s.world().network().set_bmc(owner, true);
    s.until_served_by(other);
    const std::size_t forced = c.forcings();
    s.fence(owner, FenceMood::fails);
    for (int i = 0; i < 2; ++i) {
        s.power_cut(other);
        s.power_on(other);
        s.until("it takes part again", [&] { return c.acting(other); });
    }
    s.check("forced once: a restart forces nothing again", forced == 1 && c.forcings() == 1);
    s.end();
}

// Both force: possible only by an operator's wrong word.
void h35_split(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    node2_goes_on_alone(s);
    s.power_cut(1);
    s.run(seconds(20));
    c.ask(0, cluster::StartAlone{"sim", true}, "cluster start --alone --accept-loss");
    s.until("node1 acts", [&] { return c.acting(0); });
    s.run(seconds(20));
    s.power_on(1);
    s.run(seconds(40));
    s.check("node2 says that there are two histories, and both stores are kept",
            c.store_state(1) == "split-brain" && c.store().has_directory(0) && c.store().has_directory(1));
    s.check("it starts nothing", !c.acting(1) && c.starts(1) == 1);
    c.show_status(1);
}

// The path of decisions is cut and the two blockd have no protocol in common, so that node1 asks.
void h35_release(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.cut_control();
    s.fault(1, "its blockd comes back as another version");
    s.kill_blockd(1);
    s.world().link().set_protocol(1, 7);
    s.start_blockd(1);
    const auto write = s.write(20);
    s.until("node2 releases", [&] { return s.told("boot: released to node1") == 1; });
    s.fault(0, "in this moment its clusterd dies");
    s.world().stop_clusterd(0);
    s.run(seconds(3));
    s.start_clusterd(0);
    s.heal_control();
    s.run(seconds(40));
    s.check("node1 met nobody in this life: it forces nothing", c.forcings() == 0 && !s.done(write));
    c.show_status(0);
    s.check("status names the way out", c.says(0, "gemel cluster start --alone --accept-loss"));
    s.check("which is accepted though node2 answers: it has no store any more",
            c.ask(0, cluster::StartAlone{"sim", true}, "cluster start --alone --accept-loss").accepted);
    s.until("node2 is verified off", [&] { return c.fenced(1) == 1; });
    s.say("It still spoke while it was being switched off, which proves nothing yet; he repeats his order.");
    s.run(seconds(5));
    c.ask(0, cluster::StartAlone{"sim", true}, "cluster start --alone --accept-loss");
    s.until("node1 acts", [&] { return c.acting(0); });
    s.check("forced once", c.forcings() == 1);
    s.end();
}

// Asked while it stood still: its answer comes when nobody waits in `asking` any more.
void h35_late(Stage& s) {
    Cluster c(s);
    s.cut_control();
    s.fault(1, "its blockd comes back as another version");
    s.kill_blockd(1);
    s.world().link().set_protocol(1, 7);
    s.start_blockd(1);
    const auto write = s.write(20);
    s.until("node1 asks", [&] { return s.told("asking node2") == 1; });
    s.pause(1, seconds(8));
    s.until("node1 has given up waiting", [&] { return s.told("did not answer in time") == 1; });
    s.until("node2 releases all the same", [&] { return s.told("boot: released to node1") == 1; });
    s.finish(write);
    s.check("its release was the proof: nobody was fenced, the same guest goes on",
            c.fences_begun(1) == 0 && c.forcings() == 1 && c.guest_runs_on(0) && c.starts(0) == 0);
    s.end();
}

void h36(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.say("node2 stands still for minutes, its BMC cannot be reached: node1 goes on by the operator's word.");
    c.cut_management(1, true);
    s.pause(1, seconds(300));
    const auto write = s.write(20);
    s.run(seconds(125));
    c.show_status(0);
    c.ask(0, cluster::ConfirmDown{"node2", "node2"}, "node confirm-down node2");
    s.finish(write);
    s.check("node1 acknowledges alone", s.alone(0) && c.forcings() == 1);
    s.finish(s.write(30));
    s.say("node1 loses its power; node2 wakes, and its word 'node1 is off' would be true.");
    s.power_cut(0);
    s.until(
        "node2 is awake", [&] { return !s.world().host(1).paused; }, seconds(300));
    s.run(seconds(60));
    s.check(
        "it has no standing: it fences nobody, forces nothing, starts nothing",
        c.fences_begun(0) == 0 && c.forcings() == 1 && c.starts(1) == 0 && !c.clusterd(1)->has_standing());
    c.show_status(1);
    c.cut_management(1, false);
    s.power_on(0);
    s.until_served_by(0);
    s.end();
}

void h36_bound(Stage& s) {
    Cluster c(s);
    const auto early = s.written(10);
    s.finish(s.flush());
    c.power_cut_with_bmc(0);
    s.run(seconds(90));
    s.say("The bound of a proof is long over when node1's BMC answers again.");
    s.world().network().set_bmc(0, true);
    s.run(seconds(60));
    s.check("node2 fences nobody any more, forces nothing, starts nothing",
            c.fenced(0) == 0 && c.forcings() == 0 && c.starts(1) == 0);
    c.show_status(1);
    s.check("status says what proves it now", c.says(1, "node confirm-down node1"));
    const auto word = c.ask(1, cluster::ConfirmDown{"node1", "node1"}, "node confirm-down node1");
    s.check("the operator's word is taken", word.accepted);
    s.until_served_by(1);
    s.power_on(0);
    s.until_converged();
    s.check("and both have what was flushed", s.shows(0, early) && s.shows(1, early));
    s.end();
}

}  // namespace

void add_two_voters(std::vector<Scenario>& all) {
    const StageOptions two{{}, Voters::two, true};
    StageOptions dark = two;
    dark.formed = false;
    all.push_back({"H17", "The cluster is started with only one node.",
                   "It waits, and says how the operator may start it alone.", h17, dark});
    all.push_back({"H27", "node1 is fenced, node2 acts alone and dies, node1 boots.",
                   "No standing: it waits for the newer one.", h27, two});
    all.push_back({"H27-override", "The same, and the operator starts node1 alone.",
                   "His acceptance of loss needs a proof as well.", h27_override, two});
    all.push_back({"H28", "Daemons and etcd are restarted on healthy nodes of two voters.",
                   "Nothing is taken for death.", h28_two, two});
    all.push_back({"H34", "The loss of node2 is committed, node2 has stored it and does not know.",
                   "Nothing was acknowledged before the barrier.", h34, two});
    all.push_back({"H35", "A crash in the middle of forcing; a forced member is restarted.",
                   "The copy is dropped; forced once.", h35, two});
    all.push_back(
        {"H35-split", "Both have forced.", "Split brain: said, both kept, nothing started.", h35_split, two});
    all.push_back({"H35-release", "A node releases, and the asker's clusterd dies before it has forced.",
                   "Nobody goes on by himself; the operator can.", h35_release, two});
    all.push_back({"H35-late", "A node that stood still releases after its asker gave up waiting.",
                   "The release counts: else one has no store and the other no quorum.", h35_late, two});
    all.push_back({"H36", "A node sleeps through its peer's takeover and death.",
                   "Its standing ended with the pause.", h36, two});
    all.push_back({"H36-bound", "The lost node's BMC answers when the bound of a proof is over.",
                   "Only the operator's word proves it then.", h36_bound, two});
}

}  // namespace gemel::sim
