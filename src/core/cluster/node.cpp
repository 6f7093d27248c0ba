#include "core/cluster/node.hpp"

#include <algorithm>
#include <array>

#include "core/cluster/node_impl.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

ClusterNode::Impl::Impl(NodeConfig config, PlanFunction planner)
    : context(std::move(config), planner),
      peers(context),
      boot(context, peers),
      arbiter(context, peers, boot),
      releaser(context, peers, boot, arbiter),
      election(context, peers),
      volumes(context),
      migrations(context, peers),
      guests(context, migrations),
      coordinator(context, peers, election),
      leaver(context, guests, volumes),
      operations(context, peers, arbiter, coordinator, leaver),
      members(context, peers) {}

void ClusterNode::Impl::step(Instant at, const Input& input, Outputs& outputs) {
    INVARIANT(at >= context.now, "time does not go back");
    context.now = at;
    context.outputs = &outputs;
    standing.tick(at);
    std::visit([this](const auto& in) { handle(in); }, input);
    evaluate();
}

// ---- inputs
// --------------------------------------------------------------------------------------------------------

namespace {
template <typename Done>
void deliver(std::map<Tag, std::function<void(const Done&)>>& waits, const Done& done) {
    const auto at = waits.find(done.tag);
    if (at == waits.end()) return;  // late, or of an earlier process
    const auto callback = std::move(at->second);
    waits.erase(at);
    callback(done);
}
bool concerns_decisions(const std::string& key) {
    return key.compare(0, keys::kApplied.size(), keys::kApplied) != 0 &&
           key.compare(0, keys::kEvents.size(), keys::kEvents) != 0;
}
// As it stands in that answer; nullptr: it is not in it.
const std::string* lineage_value(const ReadDone& in) {
    const auto at = std::find_if(in.values.begin(), in.values.end(),
                                 [](const auto& value) { return value.key == keys::kLineage; });
    return at == in.values.end() ? nullptr : &at->value;
}
}  // namespace

void ClusterNode::Impl::handle(const Tick& in) {
    context.wall_ms = in.wall_ms;
    last_tick = context.now;
}
void ClusterNode::Impl::handle(const TableSnapshot& in) {
    context.latest.load(in.revision, in.all);
    context.tables_live = true;
    change_revision_ = in.revision;
    if (context.gated.lineage_id() != context.latest.lineage_id()) context.gated = {};
    gated_change_ = 0;
    const auto own = context.latest.applied.find(context.config.name);
    context.queue.chain_revision(own == context.latest.applied.end() ? 0 : own->second.revision);
    if (!event_slot_known_) {
        // Go on after the newest slot of an earlier process.
        std::uint64_t newest = 0;
        for (std::uint32_t slot = 0; slot < EventBatchRecord::kSlots; ++slot) {
            const auto row = context.latest.events.find(context.config.name + "/" + std::to_string(slot));
            if (row == context.latest.events.end() || row->second.revision <= newest) continue;
            newest = row->second.revision;
            event_slot_ = (slot + 1) % EventBatchRecord::kSlots;
        }
        event_slot_known_ = true;
    }
}
void ClusterNode::Impl::handle(const WatchEvents& in) {
    if (!context.tables_live) return;
    for (const auto& change : in.changes) {
        if (concerns_decisions(change.key))
            change_revision_ = std::max(change_revision_, change.mod_revision);
    }
    context.latest.apply(in.revision, in.changes);
}
void ClusterNode::Impl::handle(const WatchLost&) {
    context.tables_live = false;
}
void ClusterNode::Impl::handle(const TxnDone& in) {
    context.queue.txn_done(context.now, in, *context.outputs);
}
void ClusterNode::Impl::handle(const ReadDone& in) {
    if (context.queue.read_done(context.now, in, *context.outputs) || boot.read_done(in)) return;
    if (in.tag == stale_tag_ && stale_tag_ != 0) {
        stale_tag_ = 0;
        const bool useful = in.ok && !context.tables_live && !context.ever_quorate &&
                            boot.state() == Boot::State::starting && boot.has_own_history();
        if (useful) context.latest.load(in.revision, in.values);
        if (const auto* own = lineage_value(in); in.ok && own != nullptr) {
            if (const auto record = decode<LineageRecord>(*own)) boot.own_disk(*record);
        }
        return;
    }
    if (probes_.erase(in.tag) == 0) return;
    if (!in.ok || context.store == StoreCondition::forcing || context.store == StoreCondition::old ||
        context.store == StoreCondition::split_brain) {
        return;
    }
    if (in.sent_at >= context.quorate_at) {
        context.quorate_at = in.sent_at;
        context.quorate_revision = in.revision;
    }
    context.ever_quorate = true;
    standing.met(in.sent_at);
    election.probed(in);
    const LineageId lineage = lineage_in(in);
    compare_stores(lineage);
    if (!releaser.active() && context.acting) volumes.probe(in, lineage);
}
// Nil: it is not there. Decoded when it has changed: every probe reads it, and it hardly ever does.
LineageId ClusterNode::Impl::lineage_in(const ReadDone& in) {
    const std::string* value = lineage_value(in);
    if (value == nullptr) return {};
    if (*value != answered_value_) {
        const auto record = decode<LineageRecord>(*value);
        answered_lineage_ = record ? record->id : LineageId{};
        answered_value_ = *value;
    }
    return answered_lineage_;
}
// The watch may still be at the peer's member while answers come from our own, which leads again. Where both
// were forced those are two stores: the tables must be of the one that answers (H35).
void ClusterNode::Impl::compare_stores(const LineageId& answered) {
    const LineageId mine = context.latest.lineage_id();
    if (!context.tables_live || mine.is_nil() || answered.is_nil() || answered == mine) {
        other_store_since_ = Instant::never();
    } else if (other_store_since_ == Instant::never()) {
        other_store_since_ = context.now;
    } else if (context.now - other_store_since_ > seconds(1)) {
        context.log("warning", "store: the tables are of another store than the one that answers");
        context.tables_live = false;
        other_store_since_ = Instant::never();
    }
}
void ClusterNode::Impl::handle(const LeaseGranted& in) {
    election.granted(in);
}
void ClusterNode::Impl::handle(const LeaseLost& in) {
    election.lost(in);
}
void ClusterNode::Impl::handle(const StoreHealth& in) {
    context.health = in;
    context.health_at = context.now;
    peers.store_health(in);
}
void ClusterNode::Impl::handle(const BootFacts& in) {
    peers.start();
    boot.facts(in);
}
void ClusterNode::Impl::handle(const StoreCommandDone& in) {
    deliver(context.store_waits, in);
}
void ClusterNode::Impl::handle(const PeerMessageIn& in) {
    arbiter.heard(in.message);
    if (!peers.hear(in)) return;
    if (const auto* heartbeat = std::get_if<Heartbeat>(&in.message.body)) {
        boot.heard(in.message.from, *heartbeat);
    } else if (const auto* ask = std::get_if<AskRelease>(&in.message.body)) {
        releaser.asked(in.message.from, *ask);
    } else if (const auto* answer = std::get_if<ReleaseAnswer>(&in.message.body)) {
        arbiter.answered(*answer);
        coordinator.answered(in.message.from, *answer);
    } else if (const auto* offer = std::get_if<JoinOffer>(&in.message.body)) {
        boot.join_offer(*offer);
    } else if (const auto* arrived = std::get_if<GuestArrived>(&in.message.body)) {
        migrations.arrived(in.message.from, *arrived);
    }
}
void ClusterNode::Impl::handle(const BlockdUp& in) {
    context.volumes.clear();
    context.epochs_refused.clear();
    context.refusals_asked.clear();
    volumes.blockd_up(in);
}
void ClusterNode::Impl::handle(const BlockdDown&) {
    context.blockd_up = false;
    context.volumes.clear();
    for (auto& [name, session] : context.sessions) {
        if (session.up) session.changed = context.now;
        session.up = false;
    }
    // Nobody answers these any more; the steps behind them are taken again.
    const auto waits = std::exchange(context.blockd_waits, {});
    for (const auto& [tag, callback] : waits) callback({tag, false, "blockd went away", "unavailable"});
}
void ClusterNode::Impl::handle(const BlockdSession& in) {
    peers.session(in);
}
void ClusterNode::Impl::handle(const BlockdVolume& in) {
    context.volumes[in.volume] = {in.view, in.front_sessions, context.now};
}
void ClusterNode::Impl::handle(const BlockdProposal& in) {
    volumes.proposal(in);
}
void ClusterNode::Impl::handle(const BlockdNeedsRecord& in) {
    volumes.needs_record(in);
}
void ClusterNode::Impl::handle(const BlockdEpochRefused& in) {
    context.epochs_refused.try_emplace({in.volume, in.epoch}, context.now);
}
void ClusterNode::Impl::handle(const BlockdDone& in) {
    deliver(context.blockd_waits, in);
}
void ClusterNode::Impl::handle(const FenceDone& in) {
    deliver(context.fence_waits, in);
}
void ClusterNode::Impl::handle(const DomainList& in) {
    context.domains.clear();
    for (const auto& domain : in.domains) context.domains[domain.uuid] = domain;
    context.domains_known = true;
    context.domains_at = context.now;
    ++context.domain_lists;
}
void ClusterNode::Impl::handle(const DomainDone& in) {
    deliver(context.domain_waits, in);
}
void ClusterNode::Impl::handle(const GateDone& in) {
    deliver(context.gate_waits, in);
}
void ClusterNode::Impl::handle(const MigrateDone& in) {
    deliver(context.migrate_waits, in);
}
void ClusterNode::Impl::handle(const MigrationProgress& in) {
    migrations.progress(in);
}
void ClusterNode::Impl::handle(const LibvirtDown&) {
    context.domains_known = false;
    context.domains.clear();
}
void ClusterNode::Impl::handle(const ApiRequest& in) {
    operations.request(in);
}
void ClusterNode::Impl::handle(const HostFacts& in) {
    context.resources = in.resources;
}
void ClusterNode::Impl::handle(const LeaveNode&) {
    if (const auto begun = leaver.asked(); !begun) context.emit(LeaveDone{false, begun.error().message});
}

// ---- what follows from them
// ----------------------------------------------------------------------------------------

void ClusterNode::Impl::probe() {
    using State = Boot::State;
    const auto state = boot.state();
    if (state == State::facts || state == State::choosing || state == State::setting_aside ||
        state == State::joining || context.store == StoreCondition::forcing) {
        return;
    }
    if (context.now < probe_next_) return;
    std::erase_if(probes_, [this](const auto& one) { return context.now - one.second > kProbeGivenUp; });
    if (probes_.size() >= kMaxProbes) return;
    const Tag tag = context.tag();
    probes_[tag] = context.now;
    probe_next_ = context.now + kProbeEvery;
    context.emit(
        StoreRead{tag,
                  {std::string(keys::kVolumes), std::string(keys::kLineage), std::string(keys::kCoordinator)},
                  true,
                  false});
}

// Without a quorum our member still tells what it has: whose store is older is decided by it, and an operator
// may force it.
void ClusterNode::Impl::look_at_own_disk() {
    const bool silent =
        boot.state() == Boot::State::starting && !context.ever_quorate && !context.tables_live;
    const bool wanted = boot.wants_own_disk() || (silent && boot.has_own_history());
    // One at a time: its answer may take longer than the pause between two.
    const Duration pause = stale_tag_ != 0 ? kOwnReadGivenUp : seconds(1);
    if (!wanted || (stale_asked_ && context.now < *stale_asked_ + pause)) return;
    stale_asked_ = context.now;
    stale_tag_ = context.tag();
    context.emit(StoreRead{stale_tag_, {std::string(keys::kRoot)}, true, true});
}

// The driver reads anew when its watch ends; a store that was exchanged under it may not end it.
void ClusterNode::Impl::want_tables() {
    if (context.tables_live || !context.store_quorate()) {
        tables_next_ = context.now + seconds(1);
    } else if (context.now >= tables_next_) {
        tables_next_ = context.now + seconds(2);
        context.emit(ReadTables{});
    }
}

void ClusterNode::Impl::quorum() {
    if (context.store != StoreCondition::starting && context.store != StoreCondition::waiting &&
        context.store != StoreCondition::quorate) {
        return;
    }
    const bool fresh = context.ever_quorate && context.now - context.quorate_at <= kQuorateFor;
    const auto next = fresh ? StoreCondition::quorate
                            : (context.store == StoreCondition::starting ? StoreCondition::starting
                                                                         : StoreCondition::waiting);
    const auto state = boot.state();
    const bool looking = state == Boot::State::starting && context.health.running;
    const auto settled = next == StoreCondition::starting && looking ? StoreCondition::waiting : next;
    if (settled == context.store) return;
    context.store = settled;
    context.log(fresh ? "info" : "warning", fresh ? "store: quorate" : "store: not quorate");
}

Tables ClusterNode::Impl::decision_copy() {
    auto events = std::move(context.latest.events);
    auto applied = std::move(context.latest.applied);
    context.latest.events.clear();
    context.latest.applied.clear();
    Tables copy = context.latest;
    context.latest.events = std::move(events);
    context.latest.applied = std::move(applied);
    return copy;
}

// With two voters what others wrote counts only after a barrier of our own, sent after it was seen (design
// note 0005).
void ClusterNode::Impl::gate() {
    context.gate_open = context.tables_live && change_revision_ <= gated_change_;
    if (!context.tables_live) return;
    if (context.gate_open) {
        context.gated.revision = context.latest.revision;
        return;
    }
    const bool wanted = context.needs_barrier() && context.latest.lineage && !mutant("barrier_skipped");
    if (!wanted) {
        context.gated = decision_copy();
        gated_change_ = change_revision_;
        context.gate_open = true;
        return;
    }
    if (gating_) return;
    gating_ = true;
    auto seen = std::make_shared<Tables>(decision_copy());
    context.gate_barrier([this, seen, change = change_revision_](const JobResult& result) {
        gating_ = false;
        if (!result.committed || !context.tables_live || seen->lineage_id() != context.latest.lineage_id())
            return;
        context.gated = std::move(*seen);
        gated_change_ = change;
        context.gate_open = change_revision_ <= gated_change_;
    });
}

// Outside the committed feature range, or with records it cannot read, a node does not act (C8).
void ClusterNode::Impl::versions() {
    const bool outside =
        context.gated.cluster && !context.gated.cluster->record.features.holds(kFeatureLevel);
    if (outside && context.acting) {
        context.acting = false;
        context.event("error", "node.features", "node/" + context.config.name,
                      "outside the committed feature range");
    }
}

void ClusterNode::Impl::save_events() {
    if (context.unsaved_events.empty() || saving_events_ || !context.acting || !context.store_quorate() ||
        !event_slot_known_) {
        return;
    }
    // A batch, and not at the very moment something happens: decisions go first on the chain.
    if (!events_due_) events_next_ = context.now + kEventsEvery;
    events_due_ = true;
    if (context.now < events_next_) return;
    events_due_ = false;
    EventBatchRecord batch;
    const auto count = std::min(context.unsaved_events.size(), EventBatchRecord::kSlotEvents);
    for (std::size_t i = 0; i < count; ++i) batch.events.push_back(context.unsaved_events[i]);
    Txn txn;
    txn.puts.push_back({keys::events(context.config.name, event_slot_), encode(batch), 0});
    saving_events_ = true;
    context.commit(std::move(txn), false, false, [this, count](const JobResult& result) {
        saving_events_ = false;
        if (!result.committed) return;
        event_slot_ = (event_slot_ + 1) % EventBatchRecord::kSlots;
        for (std::size_t i = 0; i < count && !context.unsaved_events.empty(); ++i)
            context.unsaved_events.pop_front();
    });
}

void ClusterNode::Impl::test_fences() {
    if (!context.acting || context.now < fence_test_next_) return;
    bool any = false;
    for (const auto& [name, row] : context.gated.fence_devices) {
        if (row.record.node == context.config.name) continue;
        any = true;
        context.fence(FenceAction::status, row.record, [this, device = name](const FenceDone& done) {
            const bool ok = done.outcome == FenceOutcome::on || done.outcome == FenceOutcome::verified_off;
            const auto before = context.fence_tests.find(device);
            if (!ok && (before == context.fence_tests.end() || before->second.ok)) {
                context.event("error", "fence.failing", "fence/" + device, "does not answer: " + done.detail);
            }
            context.fence_tests[device] = {ok, done.outcome == FenceOutcome::verified_off, done.detail,
                                           context.wall_ms};
        });
    }
    fence_test_next_ = context.now + (any ? kFenceTestEvery : seconds(10));
}

void ClusterNode::Impl::evaluate() {
    if (boot.state() == Boot::State::facts) return;
    context.deliver_results();
    context.standing = standing.holds();
    quorum();
    gate();
    boot.evaluate();
    versions();
    arbiter.evaluate();
    releaser.evaluate();
    if (!releaser.active()) {
        election.evaluate();
        volumes.evaluate();
        migrations.evaluate();
        guests.evaluate();
        operations.evaluate();
        coordinator.evaluate();
        members.evaluate();
        leaver.evaluate();
        test_fences();
    }
    probe();
    look_at_own_disk();
    want_tables();
    peers.tick();
    if (peers.heartbeat_due())
        peers.send_heartbeats(boot.claim(), boot.wants_to_join(), arbiter.weight_of(context.config.name));
    save_events();
    context.queue.pump(context.now, context.next_tag, context.prng, *context.outputs);
}

// ---- outside
// -------------------------------------------------------------------------------------------------------

ClusterNode::ClusterNode(NodeConfig config, PlanFunction planner)
    : impl_(std::make_unique<Impl>(std::move(config), planner)) {}
ClusterNode::~ClusterNode() = default;

void ClusterNode::step(Instant now, const Input& input, Outputs& outputs) {
    impl_->step(now, input, outputs);
}
Instant ClusterNode::next_deadline() const {
    return impl_->last_tick + Impl::kTickEvery;
}
const Tables& ClusterNode::tables() const {
    return impl_->context.latest;
}
bool ClusterNode::has_standing() const {
    return impl_->standing.holds();
}
bool ClusterNode::is_coordinator() const {
    return impl_->context.is_coordinator();
}
bool ClusterNode::is_acting() const {
    return impl_->context.acting && impl_->context.store_quorate();
}

ClusterNode::States ClusterNode::states() const {
    constexpr std::array<std::string_view, 9> kBoot = {"facts",         "choosing",    "starting",
                                                       "asking",        "registering", "acting",
                                                       "setting_aside", "joining",     "split_brain"};
    constexpr std::array<std::string_view, 8> kArbiter = {
        "idle", "asking", "waiting_turn", "fencing", "proven", "preparing", "prepared", "activating"};
    constexpr std::array<std::string_view, 5> kReleaser = {"idle", "destroying", "closing", "aside",
                                                           "released"};
    constexpr std::array<std::string_view, 6> kStore = {"starting", "waiting", "forcing",
                                                        "quorate",  "old",     "split_brain"};
    const auto word = [](const auto& words, auto state) { return words.at(static_cast<std::size_t>(state)); };
    return {word(kBoot, impl_->boot.state()), word(kArbiter, impl_->arbiter.state()),
            word(kReleaser, impl_->releaser.state()), word(kStore, impl_->context.store)};
}

}  // namespace gemel::cluster
