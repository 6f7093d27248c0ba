#include "sim/world/control_plane.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "core/formats/records_json.hpp"
#include "sim/world/violation.hpp"

namespace gemel::sim {

using namespace cluster;  // NOLINT: the plane speaks the control plane's words

namespace {
const std::string kScheme = "https://";
}  // namespace

ControlPlane::ControlPlane(Parts parts, Prng random, const Setup& setup)
    : parts_(parts),
      random_(random),
      setup_(setup),
      store_(parts.tasks, parts.trace, parts.counters, parts.network, random_.fork()),
      move_(
          LiveMove::Parts{parts.tasks, parts.trace, parts.counters, parts.network, parts.guest, parts.world},
          Prng(~random.next())) {
    for (std::uint32_t node = 0; node < 2; ++node) {
        hosts_[node] = std::make_unique<GuestHost>(
            GuestHost::Parts{parts_.tasks, parts_.trace, parts_.counters, parts_.guest, parts_.world,
                             [this](std::uint32_t about) { return lied_about(about); },
                             [this](std::uint32_t about) { return takes_orders(about); }},
            node, random_.fork());
        nodes_[node] = std::make_unique<ControlNode>(
            ControlNode::Parts{parts_.tasks, parts_.trace, parts_.counters, parts_.network, store_,
                               parts_.world, *hosts_[node], parts_.guest, *this},
            node, random_.fork());
    }
    hosts_[0]->set_other(*hosts_[1]);
    hosts_[1]->set_other(*hosts_[0]);
    move_.set_hosts(*hosts_[0], *hosts_[1]);
    operator_ = std::make_unique<Operator>(*this, parts_.tasks, parts_.trace, parts_.counters, random_.fork(),
                                           setup_.size_bytes, setup_.ack_mode);
    // until the volume is made
    committed_.record.replicas.resize(2);
    store_.on_landing([this](const Txn& txn, const StoreState& there) {
        const auto lineage = there.values.find(std::string(keys::kLineage));
        const auto key = there.values.find(std::string(keys::kCoordinator));
        const std::string breach =
            checker_.landed(txn, lineage == there.values.end() ? "" : lineage->second.value,
                            key == there.values.end() ? 0 : key->second.create_revision);
        if (!breach.empty()) throw Violation("C4", breach);
    });
    store_.on_applied([this](std::uint32_t member, std::uint64_t revision,
                             std::span<const KeyChange> changes) { applied(member, revision, changes); });
}

void ControlPlane::start() {
    std::vector<std::uint32_t> voters = {0, 1};
    if (setup_.voters == Voters::three) voters.push_back(kWitness);
    store_.bootstrap(voters);
    if (setup_.voters == Voters::three) store_.start(kWitness);
    operator_->start();
    if (setup_.scripted) operator_->obey_script();
    look();
}

// What passes by itself: a guest that has run for a while has shown that it kills nobody.
void ControlPlane::look() {
    parts_.tasks.after(milliseconds(200), [this] { look(); });
    if (!parts_.guest.alive()) {
        ran_since_ = Instant::never();
    } else if (ran_since_ == Instant::never()) {
        ran_since_ = parts_.tasks.now();
    } else if (parts_.tasks.now() - ran_since_ > seconds(18)) {
        checker_.guest_ran_long();
    }
}

// ---- the truth
// ---------------------------------------------------------------------------------------------------

void ControlPlane::applied(std::uint32_t member, std::uint64_t revision, std::span<const KeyChange> changes) {
    for (const KeyChange& change : changes) {
        if (change.key != keys::kLineage || !change.value) continue;
        Tables read;
        read.apply(revision, {change});
        if (read.lineage) depth_[member] = read.lineage->record.ancestors.size();
    }
    if (std::pair(depth_[member], revision) <= std::pair(truth_depth_, truth_.revision)) return;
    if (depth_[member] > truth_depth_) {
        truth_depth_ = depth_[member];
        parts_.counters.add("commit.forced_single_member");
        std::vector<KeyValue> all;
        for (const auto& [key, value] : store_.directory(member)->state.values)
            all.push_back({key, value.value, value.mod_revision, value.create_revision});
        truth_.load(revision, all);
    } else {
        std::vector<KeyChange> wanted;
        for (const KeyChange& change : changes) {
            const bool ours = change.key.starts_with(keys::kApplied) || change.key.starts_with(keys::kEvents);
            if (!ours) wanted.push_back(change);
        }
        truth_.apply(revision, wanted);
    }
    std::optional<std::uint32_t> coordinator;
    if (truth_.coordinator) coordinator = truth_.coordinator->record.node == kNodeNames[0] ? 0 : 1;
    checker_.coordinator_is(coordinator, parts_.tasks.now());
    follow_volume();
    follow_nodes(changes);
}

// A device's word that was committed must have been about a life that is over.
void ControlPlane::follow_nodes(std::span<const KeyChange> changes) {
    for (const KeyChange& change : changes) {
        if (!change.key.starts_with(keys::kNodes) || !change.value) continue;
        const auto row = truth_.nodes.find(change.key.substr(keys::kNodes.size()));
        if (row == truth_.nodes.end()) continue;
        const NodeRecord& record = row->second.record;
        follow_word(record);
        if (const std::string wrong = ControlChecker::nonce_committed(record); !wrong.empty())
            throw Violation("H39", wrong);
        if (const std::string wrong = ControlChecker::word_committed(record); !wrong.empty())
            throw Violation("C6", wrong);
        if (record.fence.state != FenceState::verified || !record.fence.device.starts_with("bmc-")) continue;
        const std::uint32_t node = record.name == kNodeNames[0] ? 0 : 1;
        const Host& host = parts_.world.host(node);
        const std::string breach = checker_.fence_committed(1 - node, record.incarnation, host.incarnation,
                                                            host.powered, lied_about(node));
        if (!breach.empty()) throw Violation("C6", breach);
    }
}

// The operator's word about a node becomes proof that its owner's life is over (C2).
void ControlPlane::follow_word(const NodeRecord& record) {
    const std::uint32_t node = record.name == kNodeNames[0] ? 0 : 1;
    if (record.fence.state != FenceState::confirmed_down) return;
    if (std::exchange(word_counts_[node], record.fence.incarnation) == record.fence.incarnation) return;
    const auto& owner = committed_.record.owner;
    if (!owner || owner->node != record.name || owner->incarnation != record.fence.incarnation) return;
    parts_.counters.add("site.word_counts");
    const auto ago = [this](const std::map<std::uint64_t, Instant>& since,
                            std::uint64_t epoch) -> std::optional<Duration> {
        const auto at = since.find(epoch);
        if (at == since.end()) return std::nullopt;
        return parts_.tasks.now() - at->second;
    };
    const std::string breach = checker_.word_counts(
        node, ago(revoking_since_, owner->epoch), ago(refused_since_[1 - node], owner->epoch),
        milliseconds(truth_.cluster ? truth_.cluster->record.timing.regrant_ms()
                                    : setup_.timing.regrant_ms()));
    if (!breach.empty()) throw Violation("C2", breach);
}

// All of it committed: placed here in this life, wanted, its volume owned and served here in the epoch that
// the domain was started with. Not a guest whose disk has forgotten what it was told: its own node's replica
// is out of the ack set, and the only copy's node lost its cache with a write of this epoch in it.
bool ControlPlane::rightful(std::uint32_t node) const {
    const auto guest = truth_.guests.find(Operator::kName);
    const auto self = truth_.nodes.find(kNodeNames[node]);
    if (guest == truth_.guests.end() || self == truth_.nodes.end()) return false;
    const GuestRecord& record = guest->second.record;
    const GuestHost& host = *hosts_[node];
    const bool wanted = record.wish == GuestWish::running && self->second.record.state == NodeState::member;
    const bool placed = record.placement && record.placement->node == kNodeNames[node] &&
                        record.placement->incarnation == parts_.world.host(node).incarnation &&
                        record.placement->phase == GuestPhase::running;
    if (!in_ack_set(node) && parts_.world.forgot(1 - node, granted_at_)) return false;
    return wanted && placed && host.vcpus_run() && owns(node, host.epoch()) &&
           !committed_.record.owner->revoking && parts_.world.block(node).served_epoch() == host.epoch();
}

void ControlPlane::follow_volume() {
    const auto row = truth_.volumes.find(Operator::kName);
    if (row == truth_.volumes.end()) return;
    if (row->second.revision == committed_.revision && truth_.lineage_id() == committed_.lineage) return;
    const CommittedVolume before = std::exchange(
        committed_, CommittedVolume{row->second.record, row->second.revision, truth_.lineage_id()});
    const VolumeRecord& now = committed_.record;
    for (std::uint32_t node = 0; node < 2; ++node) {
        if ((mask_ >> node & 1U) != 0 && !in_ack_set(node)) parts_.world.left_ack_set(node);
    }
    const bool joined = (ack_mask() & ~mask_) != 0;
    if (mask_ != 0 && joined) parts_.counters.add("commit.peer_joined");
    if ((mask_ & ~ack_mask()) != 0) parts_.counters.add("commit.peer_left");
    for (const auto& replica : now.replicas)
        if (replica.state == ReplicaState::failed && mask_ != ack_mask())
            parts_.counters.add("commit.local_failed");
    if (now.owner && (!before.record.owner || before.record.owner->epoch != now.owner->epoch)) {
        granted_at_ = parts_.tasks.now();
        parts_.counters.add("commit.grant");
    }
    if (!now.owner && before.record.owner) parts_.counters.add("commit.release");
    if (now.owner && now.owner->revoking && !(before.record.owner && before.record.owner->revoking))
        parts_.counters.add("commit.revoking");
    if (now.owner && now.owner->revoking) revoking_since_.emplace(now.owner->epoch, parts_.tasks.now());
    follow_handover(before.record);
    mask_ = ack_mask();
    parts_.world.committed_anew();
    if (now.owner) formed_ = true;
    parts_.trace.note_text(parts_.tasks.now(), kWorld, "store.commit",
                           fmt::format("revision {} generation {} ack {}{} owner {} epoch {}{}",
                                       committed_.revision, now.generation.counter, in_ack_set(0) ? "1" : "-",
                                       in_ack_set(1) ? "2" : "-", now.owner ? now.owner->node : "none",
                                       now.epoch, now.owner && now.owner->revoking ? " revoking" : ""));
}

// What the record says of moves: an epoch that was promised is only ever its own destination's, and nobody
// goes back once the source has given up its epoch while the destination can take the next one.
void ControlPlane::follow_handover(const VolumeRecord& before) {
    const VolumeRecord& now = committed_.record;
    if (before.handover && now.owner && now.owner->epoch == before.handover->epoch &&
        now.owner->secret != before.handover->secret)
        throw Violation(
            "D13", fmt::format("epoch {} was promised to one, and granted to another", now.owner->epoch));
    if (!before.handover || now.handover || !before.owner) return;
    if (!now.owner || now.owner->epoch != before.owner->epoch) {
        const bool switched = now.owner && now.owner->secret == before.handover->secret;
        parts_.counters.add(switched ? "migration.switched" : "migration.ended_otherwise");
        if (switched && now.owner->node == kNodeNames[0]) parts_.counters.add("site.migrated_back");
        return;
    }
    parts_.counters.add("migration.given_up");
    const std::uint32_t source = before.owner->node == kNodeNames[0] ? 0 : 1;
    if (!refused_since_[source].contains(before.owner->epoch) || before.owner->revoking) return;
    parts_.counters.add("site.given_up_after_release");
    const auto there = truth_.nodes.find(before.handover->node);
    const bool able = there != truth_.nodes.end() &&
                      there->second.record.incarnation == before.handover->incarnation &&
                      !written_off(1 - source) && in_ack_set(1 - source) &&
                      parts_.world.host(1 - source).incarnation == before.handover->incarnation;
    if (able) throw Violation("C9", "a move was given up after its source had given up the epoch");
}

// The guest's machine is gone on that node: the guest has ended, or the one it was copied from goes on.
bool ControlPlane::guest_vanishes(std::uint32_t node) {
    hosts_[node]->vanish();
    return true;
}

std::string ControlPlane::served_twice(std::uint32_t node) const {
    const std::uint32_t other = 1 - node;
    if (!hosts_[other]->vcpus_run() || lied_about(0) || lied_about(1)) return {};
    const BlockNode& block = parts_.world.block(other);
    const bool served = block.running() && block.served_epoch() == hosts_[other]->epoch() &&
                        block.view().role == replication::Role::primary &&
                        block.view().frozen == replication::FreezeReason::none;
    return served ? "the guest runs on both nodes, and is served on both" : "";
}

bool ControlPlane::ask_migration(bool drain) {
    if (!parts_.guest.running()) return false;
    operator_->ask_migration(drain);
    return true;
}

bool ControlPlane::owns(std::uint32_t node, std::uint64_t epoch) const {
    const auto& owner = committed_.record.owner;
    return owner && owner->node == kNodeNames[node] && owner->epoch == epoch &&
           owner->incarnation == parts_.world.host(node).incarnation;
}

bool ControlPlane::settled() const {
    for (std::uint32_t node = 0; node < 2; ++node) {
        const auto* clusterd = nodes_[node]->clusterd();
        if (clusterd == nullptr || !clusterd->is_acting() || !store_.running(node)) return false;
    }
    return truth_.cluster && truth_.cluster->record.voters.size() >= 2 &&
           truth_.cluster->record.adding_voter.empty() && truth_.cluster->record.removing_voter.empty();
}

bool ControlPlane::written_off(std::uint32_t node) const {
    const auto row = truth_.nodes.find(kNodeNames[node]);
    if (row == truth_.nodes.end() || !parts_.world.host(node).up()) return false;
    const FenceRecord& fence = row->second.record.fence;
    const bool over = fence.state == FenceState::verified || fence.state == FenceState::confirmed_down;
    return over && fence.incarnation == parts_.world.host(node).incarnation;
}

std::string ControlPlane::state_text() const {
    std::string text;
    for (std::uint32_t node = 0; node < 2; ++node) {
        const auto* clusterd = nodes_[node]->clusterd();
        text += fmt::format("clusterd on node{}: ", node + 1);
        if (clusterd == nullptr) {
            text += "is not running; ";
            continue;
        }
        const auto status = clusterd->status();
        text += fmt::format(
            "store {} ({}), {}{}{}", status.store.state, store_.running(node) ? "runs" : "stopped",
            clusterd->is_acting() ? "acting" : "not acting",
            clusterd->is_coordinator() ? ", coordinator" : "", clusterd->has_standing() ? ", standing" : "");
        for (const auto& problem : status.problems)
            text += fmt::format(", {} ({})", problem.what, problem.why);
        const auto& tables = clusterd->tables();
        text += fmt::format(", tables at {} of {}, coordinator {}; ", tables.revision, truth_.revision,
                            tables.coordinator ? tables.coordinator->record.node : "none");
    }
    text += store_.text();
    const auto guest = truth_.guests.find(Operator::kName);
    if (guest != truth_.guests.end()) {
        const auto& record = guest->second.record;
        text += fmt::format(
            "guest wish {} placed {} restarts {} host losses {}; ", to_string(record.wish),
            record.placement ? record.placement->node + "/" + std::string(to_string(record.placement->phase))
                             : "nowhere",
            record.restarts, record.host_losses);
    }
    return text;
}

// ---- hosts
// -------------------------------------------------------------------------------------------------------

void ControlPlane::host_lost(std::uint32_t node) {
    nodes_[node]->host_lost();
    lied_[node].reset();
}

void ControlPlane::witness_changed() {
    if (setup_.voters != Voters::three) return;
    if (parts_.world.witness_up()) {
        store_.start(kWitness);
    } else {
        store_.stop(kWitness, random_.chance(1, 2));
    }
}

void ControlPlane::set_trouble(bool lost_replies, bool slow_watches) {
    store_.set_lost_replies(lost_replies ? 30 : 0);
    store_.set_slow_watches(slow_watches);
}

bool ControlPlane::lied_about(std::uint32_t node) const {
    return lied_[node] && *lied_[node] == parts_.world.host(node).incarnation;
}

NodeConfig ControlPlane::node_config(std::uint32_t node) {
    NodeConfig config;
    config.cluster = setup_.cluster;
    config.cluster_name = "sim";
    config.name = kNodeNames[node];
    config.id = NodeId::from_random(node + 1, 3);
    config.incarnation = parts_.world.host(node).incarnation;
    for (std::uint32_t voter = 0; voter < (setup_.voters == Voters::three ? 3U : 2U); ++voter) {
        const std::string name = kNodeNames[voter];
        config.initial_voters.push_back(
            {name, kScheme + name + ":2380", kScheme + name + ":2379", voter == kWitness});
    }
    const std::string peer = kNodeNames[1 - node];
    config.peers.push_back(
        {peer, NodeId::from_random(2 - node, 3), peer + ":7700", {{"link1", "l1"}, {"link2", "l2"}}});
    config.control = config.name + ":7700";
    config.links = {{"link1", "l1"}, {"link2", "l2"}};
    config.timing = setup_.timing;
    config.pools = {{config.name, "default", "/pools/default", 0}};
    return config;
}

void ControlPlane::deliver(std::uint32_t node, const PeerMessageIn& message) {
    if (!parts_.world.host(node).powered || !nodes_[node]->alive()) return;
    if (parts_.world.host(node).up()) checker_.heard(node, message.message.incarnation, parts_.tasks.now());
    nodes_[node]->post(message);
}

// ---- fence devices
// ----------------------------------------------------------------------------------------------

void ControlPlane::fence(std::uint32_t by, const Fence& order,
                         std::function<void(FenceOutcome, std::string)> answer) {
    const std::uint32_t victim = order.device.node == kNodeNames[0] ? 0 : 1;
    FenceMood mood = parts_.world.fence_mood(victim);
    const bool reached = parts_.network.passes(Cable::management, by, victim);
    Duration takes = this->takes(random_, milliseconds(100), milliseconds(1500));
    if (mood == FenceMood::slow) takes = this->takes(random_, milliseconds(3000), milliseconds(7000));
    if (order.action == FenceAction::off) {
        parts_.counters.add("fence.begun");
        const auto* clusterd = nodes_[by]->clusterd();
        const std::string breach =
            checker_.fence(by, parts_.world.host(victim).incarnation,
                           clusterd != nullptr && clusterd->is_acting(), parts_.tasks.now());
        if (!breach.empty()) throw Violation("C6", breach);
        parts_.trace.note(parts_.tasks.now(), by, "fence.begun", victim + 1,
                          static_cast<std::uint64_t>(mood));
    }
    const Duration bound = milliseconds(order.device.timeout_ms);
    const bool in_time = takes < bound && reached && mood != FenceMood::hangs;
    // an agent whose answer comes too late may have done its work all the same
    const bool acts =
        reached && (mood == FenceMood::works || mood == FenceMood::slow || mood == FenceMood::cycles ||
                    (mood == FenceMood::hangs && random_.chance(1, 2)));
    if (acts && order.action != FenceAction::status) {
        parts_.tasks.after(
            takes * 2 / 3, [this, by, victim, mood, action = order.action, began = parts_.tasks.now()] {
                if (action == FenceAction::off) {
                    const bool on = parts_.world.host(victim).powered;
                    const std::string breach =
                        on ? checker_.powered_off_by_fence(victim, by, began, parts_.tasks.now()) : "";
                    if (!breach.empty()) throw Violation("C6", breach);
                    parts_.world.power_off(victim);
                    if (mood == FenceMood::cycles) parts_.world.power_on(victim);
                } else {
                    parts_.world.power_on(victim);
                }
            });
    }
    parts_.tasks.after(
        std::min(takes, bound),
        [this, by, victim, mood, in_time, action = order.action, began = parts_.tasks.now(),
         life = parts_.world.host(victim).incarnation, answer = std::move(answer)] {
            if (!parts_.world.host(by).powered) return;
            FenceOutcome outcome =
                parts_.world.host(victim).powered ? FenceOutcome::on : FenceOutcome::verified_off;
            if (mood == FenceMood::lies && action == FenceAction::off) {
                outcome = FenceOutcome::verified_off;
                if (parts_.world.host(victim).powered) {
                    lied_[victim] = parts_.world.host(victim).incarnation;
                    parts_.counters.add("fence.lied");
                }
            }
            if (mood == FenceMood::fails) outcome = FenceOutcome::failed;
            if (!in_time && mood != FenceMood::fails) outcome = FenceOutcome::timed_out;
            if (action == FenceAction::off) {
                const bool good = outcome == FenceOutcome::verified_off;
                if (good) checker_.proven(by, life, began);
                parts_.counters.add(good ? "fence.verified" : "fence.failed");
                parts_.trace.note(parts_.tasks.now(), by,
                                  good ? TraceName("fence.verified") : TraceName("fence.failed"), victim + 1);
            }
            answer(outcome, "the device of " + std::string(kNodeNames[victim]));
        });
}

// ---- operator
// ---------------------------------------------------------------------------------------------------

Duration ControlPlane::takes(Prng& random, Duration least, Duration most) {
    const Duration chance = milliseconds(random.between(least.milliseconds(), most.milliseconds()));
    return setup_.scripted ? milliseconds((least + most).milliseconds() / 2) : chance;
}

void ControlPlane::ask(std::uint32_t node, ApiCommand command, Answered answered) {
    const Tag tag = next_tag_++;
    asked_[tag] = std::move(answered);
    order(node,
          ApiRequest{tag, OperationId::from_random(random_.next(), random_.next()), std::move(command)});
}

void ControlPlane::answered(std::uint32_t, const ApiAnswer& answer) {
    if (const auto asked = asked_.extract(answer.tag); !asked.empty())
        return asked.mapped()(answer.operation);
    operator_->answered(answer);
}

void ControlPlane::left(std::uint32_t node, const LeaveDone& done) {
    parts_.counters.add(done.ok ? "leave.done" : "leave.failed");
    parts_.world.power_off(node);  // a host that shuts down does so in the end
}

bool ControlPlane::takes_orders(std::uint32_t node) const {
    const auto* clusterd = nodes_[node]->clusterd();
    return clusterd != nullptr && parts_.world.host(node).up() && clusterd->is_acting();
}

void ControlPlane::order(std::uint32_t node, const ApiRequest& request) {
    if (std::holds_alternative<StartAlone>(request.command)) checker_.operator_overrides(node);
    if (std::holds_alternative<GuestStart>(request.command)) checker_.guest_ran_long();
    nodes_[node]->post(request);
}

bool ControlPlane::ask_leave(std::uint32_t node) {
    if (!parts_.world.host(node).up() || nodes_[node]->clusterd() == nullptr) return false;
    nodes_[node]->post(LeaveNode{});
    return true;
}

void ControlPlane::take_witness_image() {
    if (setup_.voters == Voters::three && store_.running(kWitness)) witness_image_ = store_.copy(kWitness);
}

bool ControlPlane::restore_witness_image() {
    if (!witness_image_ || !settled() || store_.has_directory(kWitness) == false) return false;
    const auto leader = store_.working_leader();
    const bool same = witness_image_->member_id == store_.directory(kWitness)->member_id;
    if (!leader || *leader == kWitness || !same || !store_.has_all(1 - *leader, *leader)) return false;
    store_.stop(kWitness, true);
    store_.restore(kWitness, *witness_image_);
    witness_image_.reset();
    if (parts_.world.witness_up()) store_.start(kWitness);
    return true;
}

void ControlPlane::take_store_image(std::uint32_t node) {
    if (!store_.has_directory(node) || !store_.running(node)) return;
    images_[node] = StoreImage{store_.copy(node), nodes_[node]->store_disk()};
}

// That member has applied a later life of the image's.
bool ControlPlane::knows_later(std::uint32_t member, std::uint32_t node) const {
    if (!store_.running(member)) return false;
    const auto& values = store_.directory(member)->state.values;
    const auto row = values.find(keys::node(kNodeNames[node]));
    if (row == values.end()) return false;
    const auto record = decode<NodeRecord>(row->second.value);
    return record &&
           std::ranges::find(record->former_nonces, images_[node]->disk.nonce) != record->former_nonces.end();
}

// While somebody is there to tell: nobody could know otherwise, and the image would be a vote. And while the
// other node votes: an image beside a member that is just being added again is two members lost (stated
// limit).
bool ControlPlane::restore_store_image(std::uint32_t node) {
    if (!images_[node] || parts_.world.host(node).powered) return false;
    const bool told =
        parts_.world.host(1 - node).up() && nodes_[1 - node]->alive() && knows_later(1 - node, node);
    if (!truth_.cluster || !truth_.cluster->record.adding_voter.empty() ||
        !truth_.cluster->record.removing_voter.empty() || truth_.cluster->record.voters.size() < 2)
        return false;
    const bool older =
        nodes_[node]->store_disk().begun && images_[node]->disk.nonce != nodes_[node]->store_disk().nonce;
    if (!told || !older) return false;
    store_.restore(node, images_[node]->directory);
    nodes_[node]->store_disk() = images_[node]->disk;
    parts_.counters.add("site.store_image_restored");
    return true;
}

bool ControlPlane::is_off(std::uint32_t node) const {
    return !parts_.world.host(node).powered;
}

bool ControlPlane::replace_replica(std::uint32_t node) {
    operator_->replace(node);
    return false;
}

// ---- engines
// ------------------------------------------------------------------------------------------------------

void ControlPlane::propose(std::uint32_t node, const replication::Propose& propose) {
    parts_.counters.add(propose.kind == replication::ProposalKind::peer_left     ? "propose.peer_left"
                        : propose.kind == replication::ProposalKind::peer_joined ? "propose.peer_joined"
                                                                                 : "propose.local_failed");
    nodes_[node]->blockd_proposal(propose);
}

void ControlPlane::need_record(std::uint32_t node, std::uint64_t at_least_revision) {
    parts_.counters.add("engine.need_record");
    nodes_[node]->blockd_needs_record(at_least_revision);
}

void ControlPlane::epoch_refused(std::uint32_t node, std::uint64_t epoch) {
    refused_since_[node].emplace(epoch, parts_.tasks.now());
    nodes_[node]->blockd_epoch_refused(epoch);
}

void ControlPlane::lease_extended(std::uint32_t node, std::uint64_t epoch, Instant local_until) {
    nodes_[node]->lease_extended(epoch, local_until);
}

// A guest whose blockd was away connects again to the same epoch's socket.
void ControlPlane::serve_front(std::uint32_t node, std::uint64_t epoch) {
    parts_.trace.note(parts_.tasks.now(), node, "front.open", epoch);
    parts_.tasks.after(microseconds(random_.between(50, 5000)), [this, node, epoch] {
        Guest& guest = parts_.guest;
        BlockNode& block = parts_.world.block(node);
        const bool same = guest.alive() && guest.node() == node && guest.epoch() == epoch;
        if (same && block.served_epoch() == epoch && !guest.connected()) guest.front_opened(block);
        nodes_[node]->blockd_view();
    });
}

void ControlPlane::stop_front(std::uint32_t node, std::uint64_t epoch) {
    parts_.trace.note(parts_.tasks.now(), node, "front.closed", epoch);
    Guest& guest = parts_.guest;
    if (guest.alive() && guest.node() == node && guest.epoch() == epoch) guest.front_lost();
    nodes_[node]->blockd_view();
}

void ControlPlane::peer_session(std::uint32_t node, bool up, const PeerIdentity& peer) {
    nodes_[node]->blockd_session(up, peer);
}

// Also one that nobody waits for any more may not be answered without the right to.
void ControlPlane::answered_nobody(std::uint32_t node, std::uint64_t epoch, const GuestRequest& request) {
    if (request.operation == GuestOperation::read || committed_.record.epoch <= epoch) return;
    // What both replicas had before the other was granted may still be answered where a device lied.
    if (lied_about(node)) return parts_.counters.add("site.answered_after_a_lie");
    throw Violation("D13", fmt::format("node{} answered a write of epoch {} while epoch {} is committed",
                                       node + 1, epoch, committed_.record.epoch));
}

}  // namespace gemel::sim
