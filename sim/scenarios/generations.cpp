// Scenarios G: generations and split brain.
#include <algorithm>

#include "core/formats/format_replica.hpp"
#include "core/formats/layout.hpp"
#include "sim/scenarios/scenarios.hpp"

namespace gemel::sim {
namespace {

void g1(Stage& s) {
    s.written(10);
    s.cut_links();
    const auto write = s.write(10);
    s.step_until("the leave is committed, the new generation is not stable on node1",
                 [&] { return s.alone(0); });
    s.check("the first write without the peer is not answered yet", !s.done(write));
    s.power_cut(0);
    s.power_on(0);
    s.until_served_by(0);
    s.check("the record said who is current: node1 adopted its generation",
            s.view(0).generation.counter == s.generation());
    s.heal_links();
    s.until_converged();
    s.check("node2 was the target", s.told("node2  verdict     source") == 0);
    s.end();
}

void g2(Stage& s) {
    s.cut_links();
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    const auto write = s.written(10);
    s.finish(s.flush());
    s.power_cut(0);
    s.heal_links();
    s.run(seconds(60));
    s.check("node2 and the witness are a quorum, and node2 is not promoted",
            s.owner() != 1 && !s.world().guest().alive());
    s.power_on(0);
    s.until("the guest is served again", [&] { return s.owner() != 2 && s.world().guest().connected(); });
    s.check("by node1, or by node2 when it had caught up", s.owner() == 0 || s.both());
    const auto seen = s.read(10);
    s.finish(seen);
    s.check("the acknowledged write is there", s.read_shows(seen, write));
    s.end();
}

void g3(Stage& s) {
    s.fault(kWorld, "the nodes are cut off from each other; both reach the witness");
    s.world().cut_nodes_apart(true);
    s.run(seconds(20));
    s.check("exactly one of them got the permission", s.told("commit      peer_left") == 1);
    s.check("it is the owner, and nobody was fenced",
            s.alone(0) && s.owner() == 0 && s.told("fence       ") == 0);
    s.finish(s.write(10));
    s.world().cut_nodes_apart(false);
    s.end();
}

void tell_split(Stage& s, bool drop_one) {
    s.written(10);
    s.finish(s.flush());
    s.fault(kWorld, "the nodes are cut off from each other, and the operator forces both (--accept-loss)");
    s.world().cut_nodes_apart(true);
    for (std::uint32_t node = 0; node < 2; ++node) s.world().force_alone(node);
    s.until("each is Primary in a store of its own", [&] {
        return s.view(0).role == replication::Role::primary && s.view(1).role == replication::Role::primary &&
               s.view(0).generation.counter == s.view(1).generation.counter;
    });
    s.world().write_alone(0, 10, 1001);
    s.world().write_alone(1, 10, 1002);
    s.until("each has written block 10", [&] {
        return s.disk(0).current().data.get(10ULL * kSectorsPerBlock) == 1001 &&
               s.disk(1).current().data.get(10ULL * kSectorsPerBlock) == 1002;
    });
    const Image first = s.disk(0).current();
    const Image second = s.disk(1).current();
    s.world().cut_nodes_apart(false);
    s.until("they meet", [&] { return s.told("node1  verdict") > 0 || s.told("node2  verdict") > 0; });
    if (drop_one) s.reset_session();
    s.until("both report it",
            [&] { return s.told("node1  split brain") > 0 && s.told("node2  split brain") > 0; });
    s.run(seconds(10));
    const auto apart = [&](std::uint32_t node) {
        return s.view(node).connection != replication::ConnectionState::connected &&
               s.view(node).problem.find("split brain") != std::string::npos;
    };
    s.check("both say so and stay apart", apart(0) && apart(1));
    s.check("no byte has moved", s.world().equality().same(s.disk(0).current(), first).empty() &&
                                     s.world().equality().same(s.disk(1).current(), second).empty());
}

void g4(Stage& s) {
    tell_split(s, false);
}

void g5(Stage& s) {
    s.say("The session is lost in the moment in which the first of them knows.");
    tell_split(s, true);
}

void g6(Stage& s) {
    s.written(10);
    s.power_cut(1);
    s.until("node1 may acknowledge alone", [&] { return s.alone(0); });
    const Image own = s.disk(1).copy_of_stable();
    formats::FormatRequest request;
    request.cluster = ClusterId::from_random(77, 78);
    request.volume = s.world().committed().record.id;
    request.replica = s.world().committed().record.replicas[1].replica;
    request.size_bytes = 16U << 20;
    Image foreign(formats::Layout::for_size(request.size_bytes).metadata_bytes, request.size_bytes);
    formats::format_replica(request, [&foreign](std::uint64_t offset, std::span<const std::byte> page) {
        foreign.metadata.write(offset, page);
    });
    foreign.data.set(10ULL * kSectorsPerBlock, 4711);
    s.fault(1, "it is given the disk of another cluster");
    s.world().restore(1, foreign);
    s.power_on(1);
    s.until("node2 refuses it", [&] { return !s.view(1).problem.empty(); });
    s.run(seconds(10));
    s.check("it is not attached, and not a byte of it was overwritten",
            !s.view(1).attached && s.disk(1).current().data.get(10ULL * kSectorsPerBlock) == 4711);
    s.power_cut(1);
    s.world().restore(1, own);
    s.power_on(1);
    s.end();
}

void g7(Stage& s) {
    const auto write = s.written(10);
    s.finish(s.flush());
    s.fault(1, "its disk is replaced by a blank one");
    s.world().replace_replica(1);
    s.until_converged();
    s.check("the blank one was the target of a full resync",
            s.told("node2  verdict     target-full") > 0 && s.told("node2  verdict     source") == 0);
    s.check("and has the data", s.shows(1, write) && s.shows(0, write));
    s.end();
}

}  // namespace

void add_generations(std::vector<Scenario>& all) {
    all.push_back({"G1", "The peer is lost; a crash between the commit and the new generation on disk.",
                   "Nothing was acknowledged alone before the generation was stable.", g1});
    all.push_back({"G2", "Alone on node1 with the witness; node1 dies, node2 is up with the witness.",
                   "A quorate stale replica waits.", g2});
    all.push_back({"G3", "Both nodes are cut off from each other, both reach the witness.",
                   "One compare-and-swap: one of them goes on.", g3});
    all.push_back(
        {"G4", "Both sides were forced and wrote.", "Split brain on both sides, no byte moves.", g4});
    all.push_back({"G5", "Split brain is seen by one side as the session is lost.",
                   "Both report it all the same.", g5});
    all.push_back({"G6", "A disk of another cluster.", "Refused, untouched.", g6});
    all.push_back({"G7", "A blank disk takes the place of a replica.", "Blank can only be a target.", g7});
}

}  // namespace gemel::sim
