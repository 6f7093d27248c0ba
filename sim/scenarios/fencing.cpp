// Scenarios H1 to H4, H11, H16, H21, H29 and H40: somebody is silent, and who may be fenced, when and how
// often.
#include <fmt/format.h>

#include "sim/scenarios/cluster.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

// ... as their stores say: who is only being added takes no turn
void until_both_vote(Stage& s, Cluster& c) {
    s.until("both vote", [&] { return c.truth().cluster->record.voters.size() == 2; });
    s.run(seconds(5));
}

void h1(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.finish(s.flush());
    c.part(false);
    const auto during = s.write(20);
    s.until("node1 is the only voter", [&] { return c.forcings() == 1 && s.alone(0); });
    s.finish(during);
    s.run(seconds(30));
    s.check("one winner: node2 was fenced once, node1 never", c.fenced(1) == 1 && c.fences_begun(0) == 0);
    s.check("the guest ran on through it, and was started nowhere", c.guest_runs_on(0) && c.starts(1) == 0);
    c.heal_parted();
    s.until_converged();
    until_both_vote(s, c);
    s.say("The same, and neither BMC can be reached.");
    c.part(true);
    const auto frozen = s.write(30);
    s.run(seconds(90));
    s.check("both freeze: the write is not answered, nobody is proven off, no store was forced",
            !s.done(frozen) && c.fenced(0) == 0 && c.fenced(1) == 1 && c.forcings() == 1);
    s.check("the guest's vCPUs stand still, it is not killed", !c.guest_runs_on(0) && c.starts(1) == 0);
    c.show_status(0);
    s.check("status names what would prove the loss", c.says(0, "gemel node confirm-down node2"));
    c.heal_parted();
    s.finish(frozen);
    s.check("the same guest goes on", c.guest_runs_on(0) && c.starts(0) == 0);
    s.end();
}

void h2(Stage& s) {
    Cluster c(s);
    s.say("Fence devices take 5 s, and the nodes part for good.");
    s.fence(0, FenceMood::slow);
    s.fence(1, FenceMood::slow);
    c.part(false);
    s.until("somebody is the only voter", [&] { return c.forcings() == 1; });
    s.check("the one with the guest was first, the other one never began",
            c.fenced(1) == 1 && c.fences_begun(0) == 0);
    s.run(seconds(20));
    s.check("node2 is powered on once and waits", s.count("host.power_on", 1) == 1 && !c.acting(1));
    c.heal_parted();
    s.until_converged();
    until_both_vote(s, c);
    s.say("The winner's first fencing fails. Its next one and the loser's first must not meet.");
    s.fence(0, FenceMood::slow);
    s.fence(1, FenceMood::fails);
    c.part(false);
    s.until("node1's fencing has failed", [&] { return s.count("fence.failed", 1) >= 1; });
    s.fence(1, FenceMood::slow);
    s.until("somebody is the only voter", [&] { return c.forcings() == 2; });
    s.run(seconds(20));
    s.check("one of them was fenced, not both", c.fenced(0) + c.fenced(1) == 2);
    s.check("somebody is on at every time", s.world().host(0).powered || s.world().host(1).powered);
    c.heal_parted();
    s.end();
}

void h3(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    s.say("node1 is cut off from everybody, its guest runs on it; its fence device hangs.");
    s.fence(0, FenceMood::hangs);
    c.cut_off(0, true);
    s.until("a fencing has failed", [&] { return s.count("fence.failed", 0) >= 1; });
    s.fence(0, FenceMood::fails);
    s.until("another fencing has failed", [&] { return s.count("fence.failed", 0) >= 2; });
    s.fence(0, FenceMood::cycles);
    s.until("node1 was only reset", [&] { return s.count("host.power_on", 0) >= 1; });
    s.fence(0, FenceMood::fails);
    s.run(seconds(20));
    s.check("nothing is proven: nobody took the guest over",
            c.starts(1) == 0 && s.owner() == 0 && c.fenced(0) == 0);
    c.show_status(1);
    s.check("status says that its loss is not proven", c.says(1, "does not answer"));
    s.fence(0, FenceMood::works);
    s.until_served_by(1);
    s.check("verified off once, then the guest was started, once", c.fenced(0) == 1 && c.starts(1) == 1);
    s.end();
}

void h4(Stage& s) {
    Cluster c(s);
    s.fence(1, FenceMood::fails);
    s.until(
        "status says so", [&] { return c.says(0, "the fence device does not answer"); }, seconds(700));
    c.show_status(0);
    const auto status = c.clusterd(0)->status();
    bool is_protected = true;
    for (const auto& node : status.nodes)
        if (node.name == "node2") is_protected = node.is_protected;
    s.check("node2 is shown as not protected, before any disaster", !is_protected);
    s.check("nothing else happens: the guest runs on, nobody is fenced",
            c.guest_runs_on(0) && c.fences_begun(0) + c.fences_begun(1) == 0);
    s.fence(1, FenceMood::works);
    s.until(
        "status has nothing to say any more", [&] { return !c.says(0, "the fence device does not answer"); },
        seconds(700));
    s.end();
}

void until_coordinates(Stage& s, Cluster& c, std::uint32_t node) {
    if (!c.coordinates(node)) c.restart_clusterd(1 - node);
    s.until(fmt::format("node{} is the coordinator", node + 1), [&] { return c.coordinates(node); });
    s.run(seconds(5));
}

// node2 is the coordinator, loses sight of the owner, commits that it will fence it, and stands still.
void paused_before_the_fence(Stage& s, Cluster& c, Duration length) {
    c.cut_off(0, true);
    s.until("node2 has committed that it will fence node1",
            [&] { return c.truth().nodes.at("node1").record.fence.state == FenceState::requested; });
    s.pause(1, length);
    c.cut_off(0, false);
}

void h11(Stage& s) {
    Cluster c(s);
    until_coordinates(s, c, 1);
    paused_before_the_fence(s, c, seconds(9));
    s.until("node1 is elected", [&] { return c.coordinates(0); });
    s.until("node2 is awake", [&] { return !s.world().host(1).paused; });
    s.run(seconds(20));
    s.check("it carried nothing of its plan out any more", c.fences_begun(0) == 0 && c.guest_runs_on(0));
    s.end();
}

void h11_short(Stage& s) {
    Cluster c(s);
    until_coordinates(s, c, 1);
    paused_before_the_fence(s, c, seconds(3));
    s.run(seconds(20));
    s.check("node1 answers again: it is not fenced", c.fences_begun(0) == 0 && c.guest_runs_on(0));
    s.end();
}

void h16(Stage& s) {
    Cluster c(s);
    s.fault(kWorld, "the guest ends every host on which it starts, within seconds");
    s.world().set_poisoned(true);
    s.power_cut(0);
    s.run(seconds(240));
    const auto starts = c.starts(0) + c.starts(1);
    s.check("it was started a few times, and then no more", starts >= 1 && starts <= 4);
    const bool acting = c.acting(0) && c.acting(1);
    s.check("both hosts are up and take part", acting);
    c.show_status(c.coordinates(0) ? 0 : 1);
    s.check("status says why it does not run and what to type",
            c.says(0, "gemel vm start web1") || c.says(1, "gemel vm start web1"));
    s.run(seconds(60));
    s.check("and stays so", c.starts(0) + c.starts(1) == starts);
    s.world().set_poisoned(false);
    const std::uint32_t node = c.coordinates(0) ? 0 : 1;
    c.ask(node, cluster::GuestStart{"web1", ""}, "vm start web1");
    s.until("the guest runs", [&] { return c.guest_runs_on(0) || c.guest_runs_on(1); });
    s.end();
}

void h21(Stage& s) {
    Cluster c(s);
    s.fence(0, FenceMood::slow);
    s.power_cut(0);
    s.until("node1 is being fenced", [&] { return c.fences_begun(0) == 1; });
    s.say("In the middle of the failover the operator moves, stops, vouches and replaces.");
    s.check("a start elsewhere is refused while it is placed",
            !c.ask(1, cluster::GuestStart{"web1", "node2"}, "vm start web1 --node node2").accepted);
    s.check("his word is not taken while a fencing may still prove it",
            !c.ask(1, cluster::ConfirmDown{"node1", "node1"}, "node confirm-down node1").accepted);
    s.check("nor is a replica replaced that is in use",
            !c.ask(1, cluster::VolumeResolve{"web1", "node2", "web1"}, "volume resolve web1 --keep node2")
                 .accepted);
    const auto stop = c.ask(1, cluster::GuestStop{"web1", true, 20000}, "vm stop web1 --power-off");
    s.until("node1 is verified off", [&] { return c.fenced(0) == 1; });
    s.check("the stop has won over the failover", c.outcome(1, stop, seconds(40)) == "succeeded");
    s.run(seconds(20));
    s.check("the guest was started by neither", c.starts(0) + c.starts(1) == 0 && s.owner() == 2);
    c.ask(1, cluster::GuestStart{"web1", ""}, "vm start web1");
    s.until("the guest runs", [&] { return c.guest_runs_on(0) || c.guest_runs_on(1); });
    s.check("once", c.starts(0) + c.starts(1) == 1);
    s.end();
}

void h29(Stage& s) {
    Cluster c(s);
    s.cut_witness(0, true);
    s.run(seconds(120));
    s.check("nothing happens: no fence, no freeze, the guest runs where it ran",
            c.fences_begun(0) + c.fences_begun(1) == 0 && s.told(" frozen ") == 0 && c.guest_runs_on(0));
    s.finish(s.write(10));
    s.cut_witness(0, false);
    s.run(seconds(5));
    s.say("Now the control network between the nodes; replication lives.");
    s.cut_control();
    s.finish(s.write(20));
    s.run(seconds(60));
    s.check("nothing happens either", c.fences_begun(0) + c.fences_begun(1) == 0 && s.told(" frozen ") == 0 &&
                                          c.guest_runs_on(0) && s.both());
    s.finish(s.write(30));
    s.heal_control();
    s.run(seconds(5));
    s.say("The owner sees neither the witness nor the other one over the control network.");
    s.cut_witness(0, true);
    s.cut_control();
    s.finish(s.write(40));
    s.run(seconds(60));
    s.finish(s.write(50));
    s.check("it answers over the replication links: it is not fenced, and serves on",
            c.fences_begun(0) + c.fences_begun(1) == 0 && c.guest_runs_on(0));
    s.end();
}

void h40_two(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    c.power_cut_with_bmc(1);
    const auto frozen = s.write(20);
    s.run(seconds(30));
    s.check("node1's lease is over: its guest stands still and is not killed",
            !c.guest_runs_on(0) && s.told("guest       ends") == 0 && !s.done(frozen));
    s.run(seconds(100));
    c.show_status(0);
    s.check("status names what would prove the loss", c.says(0, "gemel node confirm-down node2"));
    c.ask(0, cluster::ConfirmDown{"node2", "node2"}, "node confirm-down node2");
    s.finish(frozen);
    s.check("the same guest goes on with a fresh lease",
            c.guest_runs_on(0) && c.starts(0) == 0 && s.alone(0));
    s.end();
}

void h40_witness(Stage& s) {
    Cluster c(s);
    s.finish(s.write(10));
    c.cut_management(0, true);
    c.cut_off(0, true);
    s.until("the guest stands still", [&] { return !c.guest_runs_on(0); });
    s.run(seconds(3));
    s.check("nobody was started elsewhere meanwhile", c.starts(1) == 0 && s.owner() == 0);
    c.cut_off(0, false);
    c.cut_management(0, false);
    s.until("it goes on", [&] { return c.guest_runs_on(0); });
    s.check("it was neither killed nor moved", c.starts(0) == 0 && c.starts(1) == 0);
    s.say("For longer: another node could be granted its disk in the end, so it is killed before that.");
    c.cut_management(0, true);
    c.cut_off(0, true);
    s.until("its guest is gone", [&] { return !s.world().guest().alive(); });
    s.check("before anybody was granted", s.owner() == 0 && c.starts(1) == 0);
    s.run(seconds(120));
    s.check("and without a proof nobody is", s.owner() == 0 && c.starts(1) == 0);
    c.cut_off(0, false);
    c.cut_management(0, false);
    s.until("the guest runs again", [&] { return c.guest_runs_on(0) || c.guest_runs_on(1); });
    s.check("once", c.starts(0) + c.starts(1) == 1 && c.fenced(0) == 0);
    s.end();
}

}  // namespace

void add_fencing(std::vector<Scenario>& all) {
    const StageOptions two{{}, Voters::two, true};
    all.push_back({"H1", "Full partition, no witness.",
                   "One fences and goes on; where neither can, both freeze and nobody runs twice.", h1, two});
    all.push_back({"H2", "Both want to fence, and fencing takes seconds.", "Never both off.", h2, two});
    const StageOptions three{{}, Voters::three, true};
    all.push_back({"H3", "The fence device hangs, refuses, or only cycles the power.",
                   "Not verified off is not fenced: nothing starts elsewhere.", h3, three});
    all.push_back({"H4", "A fence device is dead and nobody needs it.", "Status says so before it is needed.",
                   h4, three});
    all.push_back({"H11", "The coordinator stands still, another is elected, it wakes.",
                   "It carries out nothing of its old plan.", h11, three});
    all.push_back({"H11-short", "The coordinator stands still for three seconds, just before it fences.",
                   "It looks again before it acts.", h11_short, three});
    all.push_back({"H16", "The guest kills its host.", "Bounded: it does not take one host after the other.",
                   h16, three});
    all.push_back({"H21", "Operator's commands in the middle of a failover.",
                   "One operation at a time on the guest.", h21, three});
    all.push_back({"H29", "Paths to the store are cut and the owner is healthy.",
                   "It is neither fenced nor frozen.", h29, three});
    all.push_back({"H40", "Two voters: the peer and its BMC are dead, the lease ends on the survivor.",
                   "Its guest is stopped, not killed, and goes on once the loss is proven.", h40_two, two});
    all.push_back({"H40-witness", "The owner is cut off for longer than its lease, and its BMC as well.",
                   "Its guest is stopped, and goes on with a fresh lease.", h40_witness, three});
}

}  // namespace gemel::sim
