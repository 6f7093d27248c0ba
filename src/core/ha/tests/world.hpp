// World: a few nodes' control planes on one store, with a fake blockd, libvirt and BMC each, in virtual time;
// for the tests of core/cluster and core/ha together. Everything works as it should unless a test breaks it;
// the hard faults (lost replies, lagging watches, lying disks) are the simulator's.
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "core/cluster/node.hpp"
#include "core/cluster/tests/store_model.hpp"
#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"
#include "core/ha/planner.hpp"

namespace gemel::ha::testing {

using namespace cluster;
using cluster::testing::StoreModel;

struct Group {  // one etcd cluster
    StoreModel store;
    std::set<std::string> voters;
    std::set<std::string> learners;
    std::map<std::string, std::uint64_t> leased;                      // key -> lease
    std::map<std::uint64_t, std::pair<std::string, Instant>> leases;  // id -> holder, last kept
};

struct FakeVolume {
    CommittedVolume committed;
    std::uint64_t serving = 0;
    std::uint64_t refused = 0;
    bool proposed = false;
};

// over_network: it failed, and that is told and committed; lost: then the peer's node rebooted; unknown: then
// blockd was restarted; unattached: blockd was restarted and cannot open it.
enum class FakeDisk { works, over_network, lost, unknown, unattached };

// How libvirt ends a move whose memory was copied: well; or the destination says that the guest runs there,
// and the source never hears it: it resumes its own domain, or leaves it paused.
enum class FakeFinish { well, reply_lost, left_paused };

// A domain that libvirt moves. The tunnel ends with either clusterd, and the copy with it.
struct FakeCopy {
    enum class Step { copying, stopped, resumed };
    Tag tag = 0;
    DomainView domain;
    std::string from;
    std::string to;
    std::uint64_t from_life = 0, to_life = 0;
    Step step = Step::copying;
    Instant next;
    bool over = false;
};

struct Host {
    std::string name;
    FakeDisk disk = FakeDisk::works;
    std::uint64_t lives = 0;  // of its clusterd: answers to an earlier one are dropped
    Instant paused_until;
    std::map<VolumeId, std::uint64_t> versions;  // of the data on its disk
    std::map<std::string, bool> regrant_told;    // to the guard, by guest
    Instant guard_until;                         // what the guard was told after the newest read of the store
    std::map<VolumeId, std::uint64_t> checked;   // epoch whose start of serving was checked
    bool on = true;
    bool closed = false;                 // its blockd closed all volumes
    std::uint32_t refusals_failing = 0;  // blockd answers the next ones with an error
    // The next starts of its member meet the one that had it removed, and end, before it has read its own
    // log.
    std::uint32_t starts_met = 0;
    bool told_removed = false;
    bool standalone = false;  // its volumes refused the peer's
    bool isolated = false;    // control and replication paths to everybody cut
    bool store_cut = false;   // etcd's traffic cut
    bool reads_fail = false;
    bool clusterd_silent = false;
    std::uint64_t boots = 0;
    Incarnation incarnation;
    std::unique_ptr<ClusterNode> node;
    std::shared_ptr<Group> group;     // what its data directory belongs to
    std::shared_ptr<Group> prepared;  // forced copy
    std::vector<std::shared_ptr<Group>> aside;
    bool member_running = false;
    Uuid nonce;
    Uuid next_nonce;
    bool snapshot_given = false;
    std::uint64_t watched = 0;
    std::map<VolumeId, FakeVolume> volumes;
    std::optional<BlockdProposal> proposed;  // the last one, and how it was answered
    std::optional<replication::ProposalOutcome> answered;
    std::set<VolumeId> backing;
    // Its member was added and has not caught up: what a read of its own disk shows; nothing else answers.
    std::optional<LineageRecord> catches_up;
    std::map<GuestId, DomainView> domains;
    std::map<GuestId, std::string> gates;  // open ones, with their secrets; this clusterd's
    std::vector<Input> inbox;
    std::vector<std::string> log;
};

class World {
  public:
    explicit World(int nodes, bool witness) : witness_(witness) {
        for (int i = 1; i <= nodes; ++i) hosts_["node" + std::to_string(i)].name = "node" + std::to_string(i);
        first_ = std::make_shared<Group>();
        for (const auto& [name, host] : hosts_) first_->voters.insert(name);
        if (witness) first_->voters.insert("witness");
        for (auto& [name, host] : hosts_) boot(name);
    }

    Host& host(const std::string& name) { return hosts_.at(name); }
    ClusterNode& node(const std::string& name) { return *hosts_.at(name).node; }
    Instant now() const { return now_; }

    void boot(const std::string& name) {
        Host& h = host(name);
        h.on = true;
        ++h.boots;
        const auto salt = std::hash<std::string>{}(name) + h.boots * 1000;
        h.incarnation = {Uuid::from_random(salt, 1), Uuid::from_random(salt, 2)};
        h.member_running = false;
        h.volumes.clear();
        h.domains.clear();
        h.checked.clear();
        start_clusterd(name);
    }
    // A new process of clusterd; everything else on the host goes on (H28).
    void start_clusterd(const std::string& name) {
        Host& h = host(name);
        ++h.lives;
        h.gates.clear();
        h.closed = false;
        NodeConfig config;
        config.cluster = ClusterId::from_random(1, 1);
        config.cluster_name = "demo";
        config.name = name;
        config.id = NodeId::from_random(std::hash<std::string>{}(name), 3);
        config.incarnation = h.incarnation;
        for (const auto& [other, unused] : hosts_) {
            config.initial_voters.push_back(
                {other, "https://" + other + ":2380", "https://" + other + ":2379", false});
            if (other != name)
                config.peers.push_back({other, {}, other + ":7700", {{"link1", other + ":7710"}}});
        }
        if (witness_) config.initial_voters.push_back({"witness", "https://w:2380", "https://w:2379", true});
        config.control = name + ":7700";
        config.links = {{"link1", name + ":7710"}};
        config.pools = {{name, "default", "/pools/default", 0}};
        config.memory_bytes = std::uint64_t{64} << 30;
        config.random_seed = std::hash<std::string>{}(name) + h.boots * 1000 + h.lives * 1000000;
        h.node = std::make_unique<ClusterNode>(config, &plan);
        h.snapshot_given = false;
        h.inbox.clear();
        BootFacts facts;
        facts.store_running = h.member_running;
        facts.store_present = h.group != nullptr;
        facts.member_nonce = h.nonce;
        facts.next_member_nonce = h.next_nonce;
        h.inbox.push_back(facts);
        h.inbox.push_back(BlockdUp{});
        domains_changed(h);
    }
    void cut_power(const std::string& name) {
        Host& h = host(name);
        h.on = false;
        h.node.reset();
        h.member_running = false;
        h.domains.clear();
        h.volumes.clear();
        h.inbox.clear();
        h.prepared.reset();
    }

    // Runs until `condition` or the time is over; false: it did not come true.
    template <typename Condition>
    bool until(Duration longest, Condition condition) {
        const Instant end = now_ + longest;
        while (now_ < end) {
            if (condition()) return true;
            step();
        }
        return condition();
    }
    void run(Duration duration) {
        until(duration, [] { return false; });
    }

    // Asks `name`; the operation as it is when it is finished (or refused).
    Result<OperationRecord> ask(const std::string& name, ApiCommand command, Duration longest = seconds(60)) {
        const auto id = OperationId::from_random(7, next_operation_++);
        answers_.clear();
        host(name).inbox.push_back(ApiRequest{1, id, std::move(command)});
        until(seconds(5), [&] { return !answers_.empty(); });
        if (answers_.empty()) return fail(ErrorCode::timed_out, "no answer");
        if (!answers_.front() || answers_.front()->state != OperationState::running) return answers_.front();
        until(longest, [&] {
            const auto operation = node(name).operation(id);
            return operation && operation->state != OperationState::running;
        });
        return node(name).operation(id);
    }

    std::vector<std::string> runners(const std::string& guest) {
        std::vector<std::string> names;
        for (const auto& [name, h] : hosts_) {
            for (const auto& [uuid, domain] : h.domains) {
                if (domain.name == guest) names.push_back(name);
            }
        }
        return names;
    }
    // of whom the vCPUs run
    std::vector<std::string> running(const std::string& guest) {
        std::vector<std::string> names;
        for (const auto& [name, h] : hosts_) {
            for (const auto& [uuid, domain] : h.domains) {
                if (domain.name == guest && domain.state == DomainState::running) names.push_back(name);
            }
        }
        return names;
    }
    const Tables& tables(const std::string& name) { return node(name).tables(); }

    Duration copy_takes = seconds(2);
    FakeFinish finish = FakeFinish::well;
    bool gates_fail = false;
    std::vector<FakeCopy> copies;  // under way
    // Both domains of a guest that moves may run, one of them without a disk that answers, until the control
    // plane has seen it; a clusterd that is away prolongs that.
    Duration twice_for = seconds(3);
    Duration ran_twice{};  // the longest so far
    std::size_t destroyed = 0;
    bool bmc_works = true;
    Duration start_takes;   // until then no list shows the domain; zero: it is there at once
    Duration lists_take;    // a list of domains is as old as this when it arrives
    bool bmc_lies = false;  // says "timed out" although nothing happened
    bool witness_on = true;
    bool auto_power_on = true;
    std::vector<std::string> fenced;
    std::vector<std::string> started;  // "<guest>@<node>"
    bool print = false;
    // What went wrong for good; and faults of a time.
    std::vector<std::string> violations;
    std::uint64_t lost_replies_percent = 0;
    Duration watch_lag{};
    Duration own_read_takes = milliseconds(5);
    Prng prng{1};

  private:
    bool linked(const std::string& a, const std::string& b) {
        return host(a).on && host(b).on && !host(a).isolated && !host(b).isolated;
    }
    bool member_up(const std::string& name) {
        if (name == "witness") return witness_on;
        return host(name).on && host(name).member_running;
    }
    bool quorate(const Host& h) {
        if (!h.member_running || h.group == nullptr || h.group->learners.contains(h.name)) return false;
        std::size_t up = 0;
        for (const auto& voter : h.group->voters) {
            const bool same = voter == "witness" || host(voter).group == h.group;
            const bool cut =
                voter != h.name && (h.store_cut || (voter != "witness" && host(voter).store_cut));
            if (member_up(voter) && same && !cut) ++up;
        }
        return up * 2 > h.group->voters.size();
    }

    void step() {
        now_ = now_ + milliseconds(20);
        ++steps_;
        for (auto& [name, h] : hosts_) {
            if (!h.on || now_ < h.paused_until) continue;
            store_feed(h);
            if (steps_ % 5 == 0) h.inbox.push_back(Tick{});
            if (steps_ % 10 == 0) health(h);
            if (steps_ % 10 == 5) blockd(h);
        }
        for (const auto& [at, what] : std::exchange(later_, {})) {
            if (at > now_) {
                later_.push_back({at, what});
            } else {
                what();
            }
        }
        move_domains();
        check();
        for (auto& [name, h] : hosts_) {
            if (!h.on || now_ < h.paused_until) continue;
            const auto inputs = std::exchange(h.inbox, {});
            for (const auto& input : inputs) {
                if (!h.on || h.node == nullptr) break;
                Outputs outputs;
                h.node->step(now_, input, outputs);
                for (const auto& output : outputs) {
                    if (h.on) execute(h, output);
                }
            }
        }
    }
    void store_feed(Host& h) {
        if (!quorate(h)) return;
        if (h.catches_up) return;
        if (!h.snapshot_given) {
            h.inbox.push_back(h.group->store.snapshot());
            h.watched = h.group->store.revision();
            h.snapshot_given = true;
        } else if (h.group->store.revision() > h.watched &&
                   prng.below(1000) * 20 >= static_cast<std::uint64_t>(watch_lag.milliseconds())) {
            h.inbox.push_back(h.group->store.since(h.watched));
            h.watched = h.group->store.revision();
        }
        auto& group = *h.group;
        for (auto& [id, holder] : group.leases) {
            if (holder.first == h.name) holder.second = now_;
        }
        for (auto at = group.leases.begin(); at != group.leases.end();) {
            if (now_ - at->second.second > seconds(5)) {
                for (const auto& [key, lease] : group.leased) {
                    if (lease == at->first && group.store.find(key) != nullptr)
                        group.store.apply({{}, {}, {key}});
                }
                at = group.leases.erase(at);
            } else {
                ++at;
            }
        }
    }
    void health(Host& h) {
        StoreHealth health;
        health.running = health.answers = h.member_running;
        health.rejected = h.told_removed;
        if (h.group != nullptr && h.member_running) {
            health.rejected = !h.group->voters.contains(h.name) && !h.group->learners.contains(h.name);
            std::uint64_t id = 1;
            for (const auto& names : {h.group->voters, h.group->learners}) {
                for (const auto& name : names) {
                    const bool cut =
                        name != h.name && (h.store_cut || (name != "witness" && host(name).store_cut));
                    const bool up =
                        member_up(name) && (name == "witness" || host(name).group == h.group) && !cut;
                    health.members.push_back(
                        {name, "https://" + name + ":2380", id++, h.group->learners.contains(name), up, up});
                }
            }
        }
        h.inbox.push_back(health);
    }
    // What blockd would see and ask.
    void blockd(Host& h) {
        for (auto& [other, peer] : hosts_) {
            if (other == h.name) continue;
            const bool up = linked(h.name, other) && !h.standalone;
            h.inbox.push_back(BlockdSession{other, peer.incarnation, up, {"link1"}});
        }
        for (auto& [id, volume] : h.volumes) {
            const auto& record = volume.committed.record;
            const bool mine =
                record.owner && record.owner->node == h.name && record.owner->incarnation == h.incarnation;
            if (!mine) volume.serving = 0;
            replication::View view;
            view.attached = h.disk != FakeDisk::unattached;
            if (h.standalone) view.connection = replication::ConnectionState::standalone;
            view.role = volume.serving != 0 ? replication::Role::primary : replication::Role::secondary;
            view.epoch = volume.serving;
            view.refused_epoch = volume.refused;
            await_guest(h, record, view);
            const ReplicaRecord* peer = nullptr;
            for (const auto& replica : record.replicas) {
                if (replica.node != h.name) peer = &replica;
            }
            const bool peer_up = peer != nullptr && linked(h.name, peer->node) && !host(peer->node).closed &&
                                 !h.closed && host(peer->node).disk != FakeDisk::unattached;
            if (peer != nullptr && peer->in_ack_set && !peer_up && volume.serving != 0) {
                view.frozen = replication::FreezeReason::peer_lost;
            }
            if (h.disk == FakeDisk::lost) view.frozen = replication::FreezeReason::disk_lost;
            if (h.disk == FakeDisk::unknown) volume.serving = 0;
            if (h.disk == FakeDisk::unknown || h.disk == FakeDisk::unattached) {
                view.epoch = 0;
                view.role = replication::Role::secondary;
            }
            if (volume.serving != 0 && mine) write(h, volume, peer, peer_up);
            h.inbox.push_back(BlockdVolume{id, view, volume.serving != 0 ? 1U : 0U});
            if (!mine || peer == nullptr || volume.proposed) continue;
            if (h.disk != FakeDisk::works) {
                if (view.attached && cluster::in_ack_set(record, h.name) && peer->in_ack_set)
                    propose_leave(h, volume, h.name);
                continue;
            }
            if (peer->in_ack_set != peer_up) propose(h, volume, peer->node, peer_up);
        }
    }
    // One acknowledged write: on every member of the ack set, or not at all.
    void write(Host& h, FakeVolume& volume, const ReplicaRecord* peer, bool peer_up) {
        const VolumeId id = volume.committed.record.id;
        if (h.checked[id] != volume.serving) {
            h.checked[id] = volume.serving;
            if (h.versions[id] != acknowledged_[id])
                violations.push_back(h.name + " serves stale data of " + volume.committed.record.name);
        }
        const bool both = peer != nullptr && peer->in_ack_set;
        if (h.disk != FakeDisk::works && (h.disk != FakeDisk::over_network || !both)) return;
        if (both && (!peer_up || now_ < host(peer->node).paused_until)) return;
        const std::uint64_t version = ++acknowledged_[id];
        h.versions[id] = version;
        if (both || (peer != nullptr && volume.proposed && peer_up)) host(peer->node).versions[id] = version;
    }
    void check() {
        std::map<GuestId, std::string> running;
        std::map<VolumeId, std::string> serving;
        for (const auto& [name, h] : hosts_) {
            if (!h.on) continue;
            for (const auto& [uuid, domain] : h.domains) {
                if (domain.state != DomainState::running) continue;
                const auto [other, fresh] = running.try_emplace(uuid, name);
                if (!fresh) runs_twice(domain, other->second + " and " + name);
            }
            for (const auto& [id, volume] : h.volumes) {
                if (volume.serving == 0) continue;
                const auto [other, fresh] = serving.try_emplace(id, name);
                if (!fresh)
                    violations.push_back(volume.committed.record.name + " is served by " + other->second +
                                         " and " + name);
            }
        }
    }
    // Only where libvirt has resumed both after a move, and not for long.
    void runs_twice(const DomainView& domain, const std::string& where) {
        if (now_ - twice_at_ > milliseconds(100)) twice_since_ = now_;
        twice_at_ = now_;
        ran_twice = std::max(ran_twice, now_ - twice_since_);
        if (!resumed_twice_ || now_ - twice_since_ > twice_for)
            violations.push_back(domain.name + " runs on " + where);
    }

    // ---- live migration: what libvirt and the tunnel do
    void end_copy(FakeCopy& copy, bool ok, const std::string& why) {
        copy.over = true;
        Host& from = host(copy.from);
        if (from.on) domains_changed(from);
        if (host(copy.to).on) domains_changed(host(copy.to));
        if (from.on && from.lives == copy.from_life)
            reply(from, MigrateDone{copy.tag, ok, why, ok ? 120U : 0U});
    }
    void set_domain(const std::string& where, const DomainView& domain, DomainState state) {
        Host& h = host(where);
        if (!h.on) return;
        h.domains[domain.uuid] = domain;
        h.domains[domain.uuid].state = state;
        domains_changed(h);
    }
    void fail_copy(FakeCopy& copy, const std::string& why) {
        if (host(copy.to).on) host(copy.to).domains.erase(copy.domain.uuid);
        if (host(copy.from).domains.contains(copy.domain.uuid))
            set_domain(copy.from, copy.domain, DomainState::running);
        end_copy(copy, false, why);
    }
    bool tunnel(const FakeCopy& copy) {
        return linked(copy.from, copy.to) && host(copy.from).lives == copy.from_life &&
               host(copy.to).lives == copy.to_life;
    }
    void move_domain(FakeCopy& copy) {
        const GuestId& uuid = copy.domain.uuid;
        const bool there = host(copy.to).on && host(copy.to).domains.contains(uuid);
        if (!host(copy.from).on) {  // what has not arrived whole is dropped
            if (copy.step != FakeCopy::Step::resumed && there) host(copy.to).domains.erase(uuid);
            return end_copy(copy, false, "");
        }
        const bool here = host(copy.from).domains.contains(uuid);
        if (copy.step != FakeCopy::Step::resumed) {
            if (!here || !there || !tunnel(copy)) return fail_copy(copy, "the tunnel to it ended");
        } else if (!tunnel(copy) || finish == FakeFinish::reply_lost) {
            resumed_twice_ = true;
            if (here && finish != FakeFinish::left_paused)
                set_domain(copy.from, copy.domain, DomainState::running);
            return end_copy(copy, false, "no answer from the destination");
        }
        if (now_ < copy.next) return;
        if (copy.step == FakeCopy::Step::copying) {
            set_domain(copy.from, copy.domain, DomainState::paused);
            copy.step = FakeCopy::Step::stopped;
            copy.next = now_ + milliseconds(200);
        } else if (copy.step == FakeCopy::Step::stopped) {
            set_domain(copy.to, copy.domain, DomainState::running);
            copy.step = FakeCopy::Step::resumed;
            copy.next = now_ + milliseconds(300);
        } else if (finish == FakeFinish::left_paused) {
            end_copy(copy, false, "no answer from the destination");
        } else {
            host(copy.from).domains.erase(uuid);
            end_copy(copy, true, "");
        }
    }
    void move_domains() {
        for (std::size_t i = 0; i < copies.size(); ++i) move_domain(copies[i]);
        std::erase_if(copies, [](const FakeCopy& copy) { return copy.over; });
    }
    // The front end of a handover to this node is open, and its guest may ask there already.
    void await_guest(Host& h, const VolumeRecord& record, replication::View& view) {
        const auto& handover = record.handover;
        if (!handover || handover->node != h.name || handover->incarnation != h.incarnation ||
            h.disk != FakeDisk::works)
            return;
        view.incoming_epoch = handover->epoch;
        for (const auto& [uuid, domain] : h.domains)
            if (domain.state == DomainState::running && record.owner->purpose == "vm:" + domain.name)
                view.early_requests = 1;
    }
    void run(Host& h, const OpenGate& out) {
        if (gates_fail) return reply(h, GateDone{out.tag, false, "no port is free"});
        h.gates[out.uuid] = out.secret;
        reply(h, GateDone{out.tag, true, h.name + ":7720"});
    }
    void run(Host& h, const CloseGate& out) { h.gates.erase(out.uuid); }
    void run(Host& h, const MigrateDomain& out) {
        const std::string& to = out.migration.node;
        const auto gate = host(to).gates.find(out.guest.uuid);
        const bool open = linked(h.name, to) && out.migration.gate == to + ":7720" &&
                          gate != host(to).gates.end() && gate->second == out.migration.secret;
        if (!open || !h.domains.contains(out.guest.uuid) || host(to).domains.contains(out.guest.uuid))
            return reply(h, MigrateDone{out.tag, false, "the gate is closed", 0}, milliseconds(100));
        FakeCopy copy;
        copy.tag = out.tag;
        copy.domain = h.domains.at(out.guest.uuid);
        copy.from = h.name;
        copy.to = to;
        copy.from_life = h.lives;
        copy.to_life = host(to).lives;
        copy.next = now_ + copy_takes;
        set_domain(to, copy.domain, DomainState::paused);
        copies.push_back(copy);
    }
    void run(Host& h, const CancelMigration& out) {
        for (FakeCopy& copy : copies) {
            const bool can = copy.from == h.name && copy.domain.uuid == out.uuid && !copy.over &&
                             copy.step == FakeCopy::Step::copying;
            if (can) fail_copy(copy, "cancelled");
        }
    }

    void propose(Host& h, FakeVolume& volume, const std::string& peer, bool joined) {
        if (joined && !host(peer).volumes.contains(volume.committed.record.id)) return;
        if (joined && host(peer).disk != FakeDisk::works) return;
        if (joined) host(peer).versions[volume.committed.record.id] = h.versions[volume.committed.record.id];
        propose_change(
            h, volume, peer,
            joined ? replication::ProposalKind::peer_joined : replication::ProposalKind::peer_left);
    }
    void propose_leave(Host& h, FakeVolume& volume, const std::string& own) {
        propose_change(h, volume, own, replication::ProposalKind::local_failed);
    }
    void propose_change(Host& h, FakeVolume& volume, const std::string& whose,
                        replication::ProposalKind kind) {
        const bool joined = kind == replication::ProposalKind::peer_joined;
        const bool failed = kind == replication::ProposalKind::local_failed;
        volume.proposed = true;
        replication::Propose propose;
        propose.proposal = ++proposals_;
        propose.kind = kind;
        propose.expected_revision = volume.committed.revision;
        propose.expected_lineage = volume.committed.lineage;
        propose.next = volume.committed.record;
        for (auto& replica : propose.next.replicas) {
            if (replica.node != whose) continue;
            replica.in_ack_set = joined;
            replica.state = joined   ? ReplicaState::up_to_date
                            : failed ? ReplicaState::failed
                                     : ReplicaState::outdated;
        }
        if (!joined) {
            auto& generation = propose.next.generation;
            propose.next.ancestors.insert(propose.next.ancestors.begin(), generation.id);
            generation = {GenerationId::from_random(propose.proposal, 9), generation.id,
                          generation.counter + 1};
        }
        h.proposed = BlockdProposal{volume.committed.record.id, propose};
        h.inbox.push_back(*h.proposed);
    }

    void later(Duration after, std::function<void()> what) {
        later_.push_back({now_ + after, std::move(what)});
    }
    void reply(Host& h, Input input, Duration after = milliseconds(5)) {
        const auto lives = h.lives;
        later(after, [&h, input = std::move(input), lives] {
            if (h.on && h.lives == lives) h.inbox.push_back(input);
        });
    }
    void domains_changed(Host& h) {
        DomainList list;
        for (const auto& [uuid, domain] : h.domains) list.domains.push_back(domain);
        if (lists_take == Duration{}) {
            h.inbox.push_back(list);
        } else {
            reply(h, list, lists_take);
        }
    }

    void execute(Host& h, const Output& output) {
        std::visit([&](const auto& one) { run(h, one); }, output);
    }
    void run(Host& h, const GuardRegister& out) { h.regrant_told[out.name] = out.regrant_possible; }
    template <typename Other>
    void run(Host&, const Other&) {}  // guard, detach, and what the fakes need not do
    void run(Host& h, const SubmitTxn& out) {
        if (!quorate(h)) return reply(h, TxnDone{out.tag, TxnOutcome::unknown, 0}, milliseconds(500));
        const bool lost = prng.below(100) < lost_replies_percent;
        if (lost && prng.chance(1, 2))
            return reply(h, TxnDone{out.tag, TxnOutcome::unknown, 0}, milliseconds(300));
        const bool ok = h.group->store.apply(out.txn);
        if (lost) return reply(h, TxnDone{out.tag, TxnOutcome::unknown, 0}, milliseconds(300));
        if (ok) {
            for (const auto& put : out.txn.puts) h.group->leased[put.key] = put.lease;
        }
        reply(h, TxnDone{out.tag, ok ? TxnOutcome::committed : TxnOutcome::compare_failed,
                         h.group->store.revision()});
    }
    void run(Host& h, const StoreRead& out) {
        if (h.reads_fail || (h.catches_up && !out.serializable))
            return reply(h, ReadDone{out.tag, false, now_, 0, {}}, milliseconds(500));
        if (!out.member.empty()) {
            const bool there = !h.store_cut && member_up(out.member);
            const auto at = hosts_.find(out.member);
            const auto group = at == hosts_.end() ? first_ : at->second.group;
            if (there && group != nullptr) return reply(h, group->store.read(out, now_), milliseconds(5));
            return reply(h, ReadDone{out.tag, false, now_, 0, {}}, milliseconds(500));
        }
        // One that does not run is read from a copy.
        const bool readable = out.serializable ? h.group != nullptr : quorate(h);
        const Duration after = out.serializable ? own_read_takes : milliseconds(5);
        if (readable) {
            ReadDone done = h.group->store.read(out, now_);
            for (auto& value : done.values) {
                const bool past = out.serializable && h.catches_up && value.key == keys::kLineage;
                if (past) value.value = encode(*h.catches_up);
            }
            return reply(h, done, after);
        }
        reply(h, ReadDone{out.tag, false, now_, 0, {}}, milliseconds(500));
    }
    void run(Host& h, const BlockdRenew& out) {
        if (out.guard_until) h.guard_until = std::max(h.guard_until, *out.guard_until);
    }
    void run(Host& h, const ReadTables&) { h.snapshot_given = false; }
    void run(Host& h, const GrantLease&) {
        const std::uint64_t id = quorate(h) ? ++next_lease_ : 0;
        if (id != 0) h.group->leases[id] = {h.name, now_};
        reply(h, LeaseGranted{id});
    }
    void run(Host&, const RevokeLease& out) {
        for (auto& [name, other] : hosts_) {  // through whichever member answers
            if (!quorate(other) || other.group->leases.erase(out.id) == 0) continue;
            for (const auto& [key, lease] : other.group->leased) {
                if (lease == out.id && other.group->store.find(key) != nullptr)
                    other.group->store.apply({{}, {}, {key}});
            }
        }
    }
    void run(Host& h, const StoreCommand& out) {
        StoreCommandDone done{out.tag, true, ""};
        std::visit([&](const auto& command) { store_command(h, command, done); }, out.command);
        reply(h, done, milliseconds(50));
    }
    void store_command(Host& h, const StartStore&, StoreCommandDone&) {
        if (h.group == nullptr) h.group = first_;
        h.told_removed = h.starts_met > 0;
        if (h.told_removed) --h.starts_met;
        h.member_running = !h.told_removed;
    }
    void store_command(Host& h, const StopStore&, StoreCommandDone&) { h.member_running = false; }
    void store_command(Host& h, const SetStoreAside&, StoreCommandDone&) {
        h.aside.push_back(h.group);
        h.group.reset();
        h.member_running = h.snapshot_given = h.told_removed = false;
        h.nonce = h.next_nonce = {};
    }
    void store_command(Host& h, const JoinStore& command, StoreCommandDone& done) {
        for (auto& [name, other] : hosts_) {
            if (name == h.name || other.group == nullptr || !other.group->learners.contains(h.name)) continue;
            done.ok = command.initial_cluster.find(h.name + "=") != std::string::npos;
            h.group = other.group;
            h.member_running = true;
            h.snapshot_given = false;
        }
    }
    void store_command(Host& h, const ForcePrepare& command, StoreCommandDone& done) {
        h.member_running = false;
        h.prepared = std::make_shared<Group>(*h.group);
        h.prepared->voters = {h.name};
        h.prepared->learners.clear();
        h.prepared->leases.clear();
        done.ok = h.prepared->store.apply(command.first_commit);
    }
    void store_command(Host& h, const ForceActivate&, StoreCommandDone&) {
        h.aside.push_back(h.group);
        h.group = h.prepared;
        h.member_running = true;
        h.snapshot_given = false;
    }
    void store_command(Host& h, const ForceAbort&, StoreCommandDone&) {
        h.prepared.reset();
        h.member_running = true;
        h.snapshot_given = false;
        h.inbox.push_back(WatchLost{});
    }
    void store_command(Host& h, const AddLearner& command, StoreCommandDone& done) {
        done.ok = h.group->learners.empty();  // etcd 3.4 has room for one
        if (done.ok) h.group->learners.insert(command.name);
    }
    void store_command(Host& h, const PromoteMember& command, StoreCommandDone&) {
        std::uint64_t id = 1;
        for (const auto& names : {h.group->voters, h.group->learners}) {
            for (const auto& name : names) {
                if (id++ != command.id) continue;
                const std::string promoted = name;
                h.group->learners.erase(promoted);
                h.group->voters.insert(promoted);
                return;
            }
        }
    }
    void store_command(Host& h, const RemoveMember& command, StoreCommandDone&) {
        std::uint64_t id = 1;
        for (auto* names : {&h.group->voters, &h.group->learners}) {
            for (const auto& name : std::set<std::string>(*names)) {
                if (id++ == command.id) names->erase(name);
            }
        }
    }
    void store_command(Host& h, const WriteMemberNonce& command, StoreCommandDone&) {
        h.nonce = command.current;
        h.next_nonce = command.next;
    }
    void run(Host& h, const PeerSend& out) {
        if (!linked(h.name, out.to) || h.clusterd_silent) return;
        const auto text = encode_peer_message(out.message);
        const auto back = decode_peer_message(text);
        if (back && *back == out.message) host(out.to).inbox.push_back(PeerMessageIn{"control", *back});
    }
    void run(Host& h, const BlockdRecord& out) {
        if (!h.backing.contains(out.committed.record.id)) return;
        auto& volume = h.volumes[out.committed.record.id];
        volume.committed = out.committed;
        volume.proposed = false;
        const auto& owner = out.committed.record.owner;
        const bool mine = owner && owner->node == h.name && owner->incarnation == h.incarnation;
        volume.serving = mine && owner->epoch > volume.refused ? owner->epoch : 0;
    }
    void run(Host& h, const BlockdProposalDone& out) {
        auto& volume = h.volumes[out.volume];
        volume.proposed = false;
        h.answered = out.done.outcome;
        if (out.done.current) volume.committed = *out.done.current;
    }
    void run(Host& h, const BlockdRefuseEpoch& out) {
        if (h.refusals_failing > 0) {
            --h.refusals_failing;
        } else {
            reply(h, BlockdEpochRefused{out.volume, out.epoch});
        }
    }
    void run(Host& h, const BlockdFormat& out) {
        h.backing.insert(out.record.id);
        reply(h, BlockdDone{out.tag, true, "", ""});
    }
    void run(Host& h, const BlockdDelete& out) {
        h.backing.erase(out.volume);
        reply(h, BlockdDone{out.tag, true, "", ""});
    }
    void run(Host& h, const BlockdSetAside& out) { reply(h, BlockdDone{out.tag, true, "", ""}); }
    void run(Host& h, const BlockdRelease& out) {
        h.volumes[out.volume].serving = 0;
        h.volumes[out.volume].refused = std::max(h.volumes[out.volume].refused, out.epoch);
        reply(h, BlockdDone{out.tag, true, "", ""});
    }
    void run(Host& h, const BlockdCloseAll& out) {
        h.closed = true;
        reply(h, BlockdDone{out.tag, true, "", ""});
    }
    void run(Host& h, const Fence& out) {
        if (!bmc_works)
            return reply(h, FenceDone{out.tag, FenceOutcome::timed_out, "no route to the BMC"}, seconds(2));
        const std::string victim = out.device.node;
        if (out.action == FenceAction::off) {
            fenced.push_back(victim);
            later(milliseconds(300), [this, victim] { cut_power(victim); });
            return reply(h, FenceDone{out.tag, FenceOutcome::verified_off, ""}, milliseconds(400));
        }
        if (out.action == FenceAction::on && auto_power_on) {
            later(seconds(3), [this, victim] {
                if (!host(victim).on) boot(victim);
            });
        }
        reply(h, FenceDone{out.tag, host(victim).on ? FenceOutcome::on : FenceOutcome::verified_off, ""},
              milliseconds(100));
    }
    void run(Host& h, const ListDomains&) { domains_changed(h); }
    void run(Host& h, const StartDomain& out) {
        started.push_back(out.guest.name + "@" + h.name);
        const DomainView domain{out.guest.uuid, out.guest.name, DomainState::running, "qemu"};
        if (start_takes == Duration{}) {
            h.domains[out.guest.uuid] = domain;
            reply(h, DomainDone{out.tag, true, ""}, milliseconds(200));
            return domains_changed(h);
        }
        later(start_takes, [&h, domain] { h.domains[domain.uuid] = domain; });
        reply(h, DomainDone{out.tag, true, ""}, start_takes);
    }
    void run(Host& h, const ShutdownDomain& out) {
        h.domains.erase(out.uuid);
        reply(h, DomainDone{out.tag, true, ""});
        domains_changed(h);
    }
    void run(Host& h, const DestroyDomain& out) {
        ++destroyed;
        h.domains.erase(out.uuid);
        reply(h, DomainDone{out.tag, true, ""});
        domains_changed(h);
    }
    void run(Host&, const ApiAnswer& out) { answers_.push_back(out.operation); }
    void run(Host& h, const Log& out) {
        h.log.push_back(out.text);
        if (print)
            printf("%8lld %s: %s\n", static_cast<long long>(now_.nanoseconds_since_boot / 1000000),
                   h.name.c_str(), out.text.c_str());
    }
    void run(Host& h, const LeaveDone& out) { h.log.push_back(out.ok ? "left" : out.detail); }

    bool witness_;
    bool resumed_twice_ = false;  // libvirt did, once
    Instant twice_at_;
    Instant twice_since_;
    std::map<VolumeId, std::uint64_t> acknowledged_;
    std::map<std::string, Host> hosts_;
    std::shared_ptr<Group> first_;
    Instant now_ = Instant{} + seconds(1000);
    std::uint64_t steps_ = 0;
    std::uint64_t next_lease_ = 0;
    std::uint64_t proposals_ = 0;
    std::uint64_t next_operation_ = 1;
    std::vector<std::pair<Instant, std::function<void()>>> later_;
    std::vector<Result<OperationRecord>> answers_;
};

}  // namespace gemel::ha::testing
