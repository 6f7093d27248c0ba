// Scenarios N and L: the paths between the nodes, and the right to serve.
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

void n1(Stage& s) {
    s.power_cut(1);
    const Instant began = s.world().now();
    const auto write = s.write(10);
    s.finish(write);
    s.check("the write waited for the link's bound and not for TCP's",
            s.world().now() - began > seconds(1) && s.world().now() - began < seconds(5));
    s.check("under the committed permission", s.alone(0));
    s.power_on(1);
    s.end();
}

void n2(Stage& s) {
    s.cut_links_one_way(1);
    const auto write = s.write(10);
    s.until("both have given the session up", [&] {
        return s.view(0).connection == replication::ConnectionState::connecting &&
               s.view(1).connection == replication::ConnectionState::connecting;
    });
    s.finish(write);
    s.check("a loss in one direction is a loss for both", s.alone(0));
    s.heal_links();
    s.end();
}

void n3(Stage& s) {
    s.cut_links();
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    s.finish(s.write(10));
    s.run(seconds(20));
    s.check("the control path lives: nobody is fenced, the guest goes on",
            s.told("fence       ") == 0 && s.world().guest().running() && s.world().guest().node() == 0);
    s.heal_links();
    s.until_converged();
    const std::size_t frozen = s.told("frozen      ");
    s.say("The reverse: replication lives, the control network between the nodes is cut.");
    s.cut_control();
    s.finish(s.write(20));
    s.run(seconds(20));
    s.check("nothing happens: no fence, no freeze, both stay in the ack set",
            s.told("fence       ") == 0 && s.told("frozen      ") == frozen && s.both());
    s.heal_control();
    s.end();
}

void n5(Stage& s) {
    s.disk(0).faults().slow_factor = 10;
    const auto write = s.write(10);
    s.fault(kWorld, "a frame is changed on its way and passes TCP's checksum");
    while (!s.world().link().corrupt()) s.world().run_one();
    s.until("the session is dropped",
            [&] { return s.view(0).connection != replication::ConnectionState::connected; });
    s.check("the frame was not carried out", !s.shows(1, write));
    s.disk(0).faults().slow_factor = 1;
    s.finish(write);
    s.until_converged();
    s.check("the write is on both", s.shows(0, write) && s.shows(1, write));
    s.end();
}

void n6(Stage& s) {
    s.fault(1, "its blockd comes back as a version with which node1's has no protocol in common");
    s.kill_blockd(1);
    s.world().link().set_protocol(1, 7);
    s.start_blockd(1);
    const auto write = s.write(10);
    s.finish(write);
    s.run(seconds(5));
    s.check(
        "no session was made, nothing was misread: node1 goes on alone",
        s.alone(0) && s.view(1).connection == replication::ConnectionState::connecting && !s.shows(1, write));
    s.say("node2 gets a version that knows both.");
    s.kill_blockd(1);
    s.world().link().set_protocol(1, 1);
    s.start_blockd(1);
    s.end();
}

void l2(Stage& s) {
    s.say("node2 cannot fence: it can only wait, and take back the right of node1.");
    s.fence(0, FenceMood::fails);
    const auto write = s.write(10);
    s.run(microseconds(60));
    s.pause(0, seconds(12));
    s.run(seconds(11));
    s.check("nobody took over by time alone so early", s.owner() == 0);
    s.until("node1 runs again", [&] { return !s.world().host(0).paused; });
    s.run(milliseconds(1));
    s.check("its lease has lapsed: what was in flight is not answered", !s.acknowledged(write));
    s.fence(0, FenceMood::works);
    s.until_served_by(1);
    s.until_converged();
    s.check("node1 gave its right back before node2 served", s.told("epoch 1 is over") == 1);
    s.say("Now node2 stands still, for longer than anybody waits.");
    const auto late = s.write(20);
    s.run(microseconds(60));
    s.pause(1, seconds(300));
    s.until_served_by(0);
    s.check("it was fenced before, and did not answer", s.told("verified off") == 1 && !s.acknowledged(late));
    s.until_converged();
    s.check("it came back as Secondary", s.view(1).role == replication::Role::secondary);
    s.end();
}

void d13(Stage& s) {
    s.written(10);
    const std::uint64_t epoch = s.world().committed().record.epoch;
    s.fault(1, "its clusterd has it refuse the running epoch for good, as before a grant by time");
    s.world().block(1).input(replication::RefuseEpoch{epoch});
    s.run(milliseconds(10));
    const auto write = s.write(10);
    s.run(seconds(1));
    s.check("node2 carries out nothing of that epoch", !s.shows(1, write));
    s.check("and the owner acknowledges nothing", !s.done(write));
    s.say("A new epoch for the same guest.");
    s.world().control().ask_handover();
    s.until("a new epoch is granted", [&] { return s.world().committed().record.epoch > epoch; });
    s.end();
}

void l7(Stage& s) {
    s.written(10);
    s.fault(1, "somebody starts the guest by hand on node2 and opens its device");
    s.world().write_alone(1, 10, 666);
    s.run(seconds(2));
    s.check("without the lease there is no device: nothing was written",
            s.disk(1).current().data.get(10ULL * kSectorsPerBlock) != 666 &&
                s.disk(0).current().data.get(10ULL * kSectorsPerBlock) != 666);
    s.check("node1 serves on", s.owner() == 0 && s.view(0).role == replication::Role::primary);
    s.finish(s.write(10));
    s.end();
}

}  // namespace

void add_network_and_lease(std::vector<Scenario>& all) {
    all.push_back({"N1", "The peer vanishes without a word.", "One bound for all links decides.", n1});
    all.push_back({"N2", "Frames pass in one direction only.", "Loss by either is loss.", n2});
    all.push_back({"N3", "The links die and the control path lives; then the reverse.",
                   "No fence; in the reverse nothing at all.", n3});
    all.push_back({"N5", "A corrupted frame passes TCP's checksum.",
                   "The session is dropped, the range repaired.", n5});
    all.push_back({"N6", "The peer speaks another version.", "Refused at connect; alone until it fits.", n6});
    all.push_back({"D13", "The peer refuses an epoch for good while its owner lives.",
                   "Nothing of it is carried out there any more.", d13});
    all.push_back({"L2", "The holder stands still and comes back.",
                   "It answers nothing under a lapsed lease; where it was succeeded it is off.", l2});
    all.push_back({"L7", "The guest is started by hand on the other node.", "No lease, no device.", l7});
}

}  // namespace gemel::sim
