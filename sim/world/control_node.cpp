// Life, inputs and the store's side of a node's control plane; the others' sides: control_orders.cpp.
#include "sim/world/control_node.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "core/formats/records_json.hpp"
#include "core/ha/planner.hpp"
#include "sim/world/violation.hpp"

namespace gemel::sim {
namespace {

using namespace cluster;  // the node speaks the control plane's words

constexpr Duration kPoll = milliseconds(250);
constexpr Duration kThird = milliseconds(5000 / 3);  // of a coordinator's key

}  // namespace

ControlNode::ControlNode(Parts parts, std::uint32_t node, Prng random)
    : parts_(parts), node_(node), name_(kNodeNames[node]), random_(random) {
    parts_.guests.changed = [this] { domains_changed(); };
}

// ---- life
// --------------------------------------------------------------------------------------------------------

void ControlNode::boot() {
    ++boots_;
    parts_.store.force_discard(node_);  // an unfinished copy is deleted at any start
    parts_.guests.boot();
    session_.reset();
    refusals_.clear();
    open_proposal_.reset();
    parts_.tasks.after(kPoll, [this, boots = boots_] {
        if (boots == boots_) poll();
    });
    parts_.tasks.after(milliseconds(random_.between(500, 3000)), [this, boots = boots_] {
        if (boots == boots_) renew_at_store();
    });
}

void ControlNode::start() {
    if (clusterd_ != nullptr) return;
    parts_.cluster.checker().life_began(node_, parts_.tasks.now());
    ++life_;
    NodeConfig config = parts_.cluster.node_config(node_);
    config.random_seed = random_.next();
    clusterd_ = std::make_unique<ClusterNode>(config, &ha::plan);
    inbox_.clear();
    commands_.clear();
    commanding_ = have_snapshot_ = blockd_told_ = attaching_ = view_due_ = false;
    attached_ = parts_.world.block(node_).running();
    lease_ = 0;
    counted_ = {};
    stood_ = coordinated_ = false;
    record_.reset();
    BootFacts facts;
    facts.store_running = parts_.store.running(node_);
    if (!facts.store_running) parts_.store.force_discard(node_);
    facts.store_present = disk_.begun;
    facts.member_nonce = disk_.nonce;
    facts.next_member_nonce = disk_.next_nonce;
    parts_.trace.note(parts_.tasks.now(), node_, "clusterd.start", life_, facts.store_running ? 1 : 0);
    post(facts);
    tick();
    restart_watch();
    blockd_started();
    domains_changed();
}

void ControlNode::die() {
    if (clusterd_ == nullptr) return;
    parts_.trace.note(parts_.tasks.now(), node_, "clusterd.die", life_);
    ++life_;
    ++watch_number_;
    clusterd_.reset();
    inbox_.clear();
    parts_.store.unwatch(node_);
    parts_.cluster.live_move().clusterd_died(node_);
}

void ControlNode::host_lost() {
    die();
    ++boots_;
    parts_.guests.lost();
    parts_.store.stop(node_, true);
    refusals_.clear();
    session_.reset();
    open_proposal_.reset();
}

void ControlNode::host_paused() {
    parts_.store.pause(node_, true);
}

void ControlNode::host_resumed() {
    if (parts_.tasks.now() - parts_.world.host(node_).paused_at > milliseconds(1005))
        parts_.cluster.checker().life_began(node_, parts_.tasks.now());
    parts_.store.pause(node_, false);
    parts_.guests.resumed();
    drain();
}

void ControlNode::judge(const char* promise, const std::string& breach) const {
    if (!breach.empty()) throw Violation(promise, breach);
}

void ControlNode::after(Duration delay, std::function<void()> work) {
    parts_.tasks.after(delay, [this, life = life_, work = std::move(work)] {
        if (life == life_) work();
    });
}

void ControlNode::reply_later(Duration delay, Input input) {
    after(delay, [this, input = std::move(input)]() mutable { post(std::move(input)); });
}

void ControlNode::post(Input input) {
    if (clusterd_ == nullptr) return;
    inbox_.push_back(std::move(input));
    drain();
}

void ControlNode::drain() {
    if (stepping_ || paused()) return;
    stepping_ = true;
    while (!inbox_.empty() && clusterd_ != nullptr) {
        const Input input = std::move(inbox_.front());
        inbox_.pop_front();
        outputs_.clear();
        clusterd_->step(local(), input, outputs_);
        const Outputs todo = std::exchange(outputs_, {});
        for (const auto& output : todo) execute(output);
    }
    stepping_ = false;
    if (clusterd_ != nullptr) count_states();
}

void ControlNode::tick() {
    if (!paused()) post(Tick{wall_ms_});
    const Instant next = parts_.world.host(node_).clock.real(clusterd_->next_deadline());
    parts_.tasks.at(std::max(next, parts_.tasks.now() + milliseconds(paused() ? 100 : 10)),
                    [this, life = life_] {
                        if (life == life_) tick();
                    });
}

// What the daemon's helpers look at by themselves: domains, the store's members, blockd.
void ControlNode::poll() {
    parts_.tasks.after(kPoll, [this, boots = boots_] {
        if (boots == boots_) poll();
    });
    if (paused()) return;
    parts_.guests.poll();
    ++polls_;
    if (clusterd_ == nullptr) return;
    if (polls_ % 2 == 0) report_health();
    if (polls_ % 4 == 1) report_domains();
    if (polls_ % 4 == 3) blockd_view();
    if (!blockd_told_) blockd_started();
}

void ControlNode::report_health() {
    StoreHealth health;
    const bool has = disk_.begun && parts_.store.has_directory(node_);
    health.rejected = has && parts_.store.rejected(node_);
    health.running = health.answers = parts_.store.running(node_) && !health.rejected;
    const auto leader = health.answers ? parts_.store.leader_of(node_) : std::nullopt;
    if (leader) health.leader = kNodeNames[*leader];
    if (health.answers) {
        members_.clear();
        for (const StoreMember& member : parts_.store.directory(node_)->members) {
            StoreMemberView view;
            const auto* there = parts_.store.directory(member.node);
            const bool started = there != nullptr && there->member_id == member.id;
            if (started) view.name = kNodeNames[member.node];
            view.peer_url = fmt::format("https://{}:2380", kNodeNames[member.node]);
            view.id = member.id;
            view.learner = member.learner;
            members_.push_back(view);
        }
    }
    for (auto& view : members_) {
        for (std::uint32_t other = 0; other < kNodes; ++other) {
            if (view.name != kNodeNames[other]) continue;
            view.answers = parts_.store.answers(node_, other);
            view.learner_ready = view.answers && parts_.store.learner_ready(other);
        }
    }
    health.members = members_;
    post(std::move(health));
}

void ControlNode::report_domains() {
    DomainList list;
    if (parts_.guests.exists() && clusterd_ != nullptr) {
        for (const auto& [name, row] : clusterd_->tables().guests)
            list.domains.push_back({row.record.uuid, name, parts_.guests.state(), "kvm"});
    }
    post(std::move(list));
}

void ControlNode::domains_changed() {
    if (clusterd_ == nullptr) return;
    after(milliseconds(random_.between(2, 40)), [this] { report_domains(); });
}

// ---- store
// -------------------------------------------------------------------------------------------------------

void ControlNode::restart_watch() {
    ++watch_number_;
    parts_.store.unwatch(node_);
    if (have_snapshot_) post(WatchLost{});
    have_snapshot_ = false;
    read_tables();
}

void ControlNode::read_tables() {
    const auto again = [this, number = watch_number_] {
        after(milliseconds(random_.between(100, 400)), [this, number] {
            if (number == watch_number_) read_tables();
        });
    };
    if (paused()) return again();
    parts_.store.read(node_, {std::string(keys::kRoot)}, true,
                      [this, again, life = life_, number = watch_number_](bool ok, std::uint64_t revision,
                                                                          std::vector<KeyValue> all) {
                          if (life != life_ || number != watch_number_) return;
                          if (!ok) return again();
                          have_snapshot_ = true;
                          post(TableSnapshot{revision, std::move(all)});
                          watch(revision);
                      });
}

void ControlNode::watch(std::uint64_t revision) {
    parts_.store.watch(
        node_, revision,
        [this, life = life_, number = watch_number_](std::uint64_t at, std::vector<KeyChange> changes) {
            if (life == life_ && number == watch_number_) post(WatchEvents{at, std::move(changes)});
        },
        [this, life = life_, number = watch_number_] {
            if (life != life_ || number != watch_number_) return;
            parts_.counters.add("clusterd.watch_lost");
            restart_watch();
        });
}

void ControlNode::run(const ReadTables&) {
    restart_watch();
}

void ControlNode::run(const SubmitTxn& order) {
    parts_.store.submit(node_, order.txn,
                        [this, life = life_, tag = order.tag, sent = parts_.tasks.now()](
                            TxnOutcome outcome, std::uint64_t revision) {
                            if (life != life_) return;
                            if (outcome == TxnOutcome::committed)
                                parts_.cluster.checker().store_answered(node_, sent);
                            post(TxnDone{tag, outcome, revision});
                        });
}

void ControlNode::run(const StoreRead& order) {
    ReadDone done{order.tag, false, local(), 0, {}};
    if (order.serializable) {
        std::uint32_t which = node_;
        for (std::uint32_t other = 0; other < kNodes; ++other)
            if (order.member == kNodeNames[other]) which = other;
        const bool there = which == node_ ? parts_.store.running(node_)
                                          : parts_.store.answers(node_, which) && parts_.store.served(which);
        const StoreDirectory* own = there ? parts_.store.directory(which) : nullptr;
        if (own != nullptr) {
            done.ok = true;
            done.revision = own->state.revision;
            for (const auto& [key, value] : own->state.values)
                done.values.push_back({key, value.value, value.mod_revision, value.create_revision});
        }
        return reply_later(microseconds(random_.between(100, 2000)), std::move(done));
    }
    parts_.store.read(node_, order.keys, order.prefix,
                      [this, life = life_, sent = parts_.tasks.now(), done = std::move(done)](
                          bool ok, std::uint64_t revision, std::vector<KeyValue> values) mutable {
                          if (life != life_) return;
                          done.ok = ok;
                          if (ok) parts_.cluster.checker().store_answered(node_, sent);
                          done.revision = revision;
                          done.values = std::move(values);
                          post(std::move(done));
                      });
}

void ControlNode::run(const GrantLease& order) {
    parts_.store.grant_lease(node_, order.ttl_s, [this, life = life_](std::uint64_t id) {
        if (life != life_) return;
        lease_ = id;
        post(LeaseGranted{id});
        if (id != 0) keep_lease(id);
    });
}

// Three attempts in a time to live.
void ControlNode::keep_lease(std::uint64_t id) {
    auto last = std::make_shared<Instant>(local());
    auto again = std::make_shared<std::function<void()>>();
    *again = [this, id, last, weak = std::weak_ptr(again)] {
        if (lease_ != id) return;
        const auto lost = [this, id] {
            if (std::exchange(lease_, 0) == id) post(LeaseLost{id});
        };
        if (local() - *last > seconds(5)) return lost();
        if (!paused()) {
            parts_.store.keep_alive(node_, id, [life = life_, this, sent = local(), last, lost](bool ok) {
                if (life != life_) return;
                if (!ok) return lost();
                *last = sent;
            });
        }
        if (const auto self = weak.lock()) after(kThird, [self] { (*self)(); });
    };
    after(kThird, [again] { (*again)(); });
}

void ControlNode::run(const RevokeLease& order) {
    if (lease_ == order.id) lease_ = 0;
    parts_.store.revoke_lease(node_, order.id);
}

// blockd's own renewals, without clusterd: every third of a lease.
void ControlNode::renew_at_store() {
    parts_.tasks.after(milliseconds(3333), [this, boots = boots_] {
        if (boots == boots_) renew_at_store();
    });
    if (paused() || !parts_.world.blockd_up(node_) || volume_key_.empty()) return;
    const std::uint64_t life = parts_.world.blockd_life(node_);
    parts_.store.read(
        node_, {volume_key_, std::string(keys::kLineage)}, false,
        [this, life, sent = local()](bool ok, std::uint64_t, const std::vector<KeyValue>& values) {
            if (!ok || life != parts_.world.blockd_life(node_) || !parts_.world.blockd_up(node_)) return;
            if (take_renewal(values))
                parts_.world.block(node_).input(replication::StoreRenewal{sent, renewed_});
        });
}

// false: not both were there
bool ControlNode::take_renewal(const std::vector<KeyValue>& values) {
    renewed_.revision = 0;
    bool lineage = false;
    for (const auto& value : values) {
        const bool is_lineage = value.key == keys::kLineage;
        std::string& known = is_lineage ? renewed_lineage_ : renewed_volume_;
        if (is_lineage) lineage = true;
        if (!is_lineage) renewed_.revision = value.mod_revision;
        if (known == value.value) continue;
        known = value.value;
        if (is_lineage) {
            const auto record = decode<LineageRecord>(value.value);
            renewed_.lineage = record ? record->id : LineageId{};
        } else if (auto record = decode<VolumeRecord>(value.value)) {
            renewed_.record = std::move(*record);
        }
    }
    return renewed_.revision != 0 && lineage && !renewed_.lineage.is_nil();
}

// ---- the store's process and members
// -----------------------------------------------------------------------------

// One at a time, as the daemon's worker does them.
void ControlNode::run(const StoreCommand& order) {
    if (std::holds_alternative<ForcePrepare>(order.command))
        judge("C6", parts_.cluster.checker().force(node_));
    if (std::holds_alternative<ForceActivate>(order.command))
        judge("C6", parts_.cluster.checker().activate(node_));
    commands_.push_back(order);
    if (!commanding_) begin_store_command(commands_.front());
}

void ControlNode::begin_store_command(const StoreCommand& order) {
    commanding_ = true;
    Duration takes = milliseconds(random_.between(5, 60));
    if (std::holds_alternative<ForcePrepare>(order.command)) {
        parts_.store.stop(node_, false);
        takes = parts_.cluster.takes(random_, milliseconds(600), milliseconds(2200));
    } else if (std::holds_alternative<WriteMemberNonce>(order.command)) {
        takes = milliseconds(random_.between(1, 10));
    }
    after(takes, [this, order] {
        if (paused()) return begin_store_command(order);
        if (!member_command(order)) {
            const std::string why = store_command(order.command);
            post(StoreCommandDone{order.tag, why.empty(), why});
            report_health();
        }
        commanding_ = false;
        commands_.pop_front();
        if (!commands_.empty()) begin_store_command(commands_.front());
    });
}

std::string ControlNode::store_command(const StoreCommandKind& command) {
    StoreModel& store = parts_.store;
    if (std::holds_alternative<StartStore>(command)) {
        if (store.running(node_)) return {};
        if (!store.has_directory(node_)) return "there is no store here and none may be begun";
        disk_.begun = true;
        store.start(node_);
        restart_watch();  // home from the other's member
    } else if (std::holds_alternative<StopStore>(command)) {
        store.stop(node_, false);
    } else if (std::holds_alternative<SetStoreAside>(command)) {
        parts_.counters.add("store.set_aside");
        store.set_aside(node_);
        disk_ = {};
        restart_watch();
    } else if (std::holds_alternative<JoinStore>(command)) {
        if (!store.join(node_)) return "no member of the cluster knows this one";
        parts_.counters.add("store.joined");
        disk_.begun = true;
        restart_watch();
    } else if (const auto* prepare = std::get_if<ForcePrepare>(&command)) {
        if (!disk_.begun || !store.force_prepare(node_, prepare->first_commit))
            return "there is no store here";
    } else if (std::holds_alternative<ForceActivate>(command)) {
        if (!store.force_activate(node_)) return "there is no forced copy";
        restart_watch();
    } else if (std::holds_alternative<ForceAbort>(command)) {
        store.force_abort(node_);
    } else if (const auto* nonce = std::get_if<WriteMemberNonce>(&command)) {
        disk_.nonce = nonce->current;
        disk_.next_nonce = nonce->next;
    }
    return {};
}

// true: it is a member change, its answer comes from the store
bool ControlNode::member_command(const StoreCommand& order) {
    StoreEntry::Kind kind = StoreEntry::Kind::nothing;
    std::uint64_t id = 0;
    std::uint32_t which = node_;
    if (const auto* add = std::get_if<AddLearner>(&order.command)) {
        kind = StoreEntry::Kind::add_learner;
        for (std::uint32_t other = 0; other < kNodes; ++other)
            if (add->name == kNodeNames[other]) which = other;
    } else if (const auto* promote = std::get_if<PromoteMember>(&order.command)) {
        kind = StoreEntry::Kind::promote;
        id = promote->id;
    } else if (const auto* remove = std::get_if<RemoveMember>(&order.command)) {
        kind = StoreEntry::Kind::remove;
        id = remove->id;
    } else {
        return false;
    }
    const auto* own = parts_.store.directory(node_);
    if (own != nullptr && id != 0) {
        for (const auto& member : own->members)
            if (member.id == id) which = member.node;
    }
    parts_.store.change_member(node_, kind, id, which, [this, life = life_, tag = order.tag](bool ok) {
        if (life != life_) return;
        post(StoreCommandDone{tag, ok, ok ? "" : "the store did not take the member change"});
        report_health();
    });
    return true;
}

}  // namespace gemel::sim
