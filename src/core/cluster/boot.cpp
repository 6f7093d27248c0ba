#include "core/cluster/boot.hpp"

#include <algorithm>
#include <utility>

#include "core/cluster/volume_rules.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {

void Boot::move(State to, const std::string& why) {
    if (state_ == to && why_ == why) return;
    state_ = to;
    why_ = why;
    since_ = context_.now;
    if (to != State::acting) context_.acting = false;
    registered_at_ = 0;
    context_.log("info", "boot: " + why);
}

void Boot::facts(const BootFacts& facts) {
    facts_ = facts;
    begun_nonce_ = facts.next_member_nonce;
    adopted_ = facts.store_running;
    if (adopted_) {
        move(State::starting, "adopted the running store member");
    } else {
        move(State::choosing, "looking whose store is current");
    }
}

StoreClaim Boot::claim() const {
    StoreClaim claim;
    claim.present = facts_.store_present && state_ != State::joining;
    claim.quorate = context_.store_quorate();
    if (const LineageRecord* own = own_lineage(); claim.present && own != nullptr) {
        claim.lineage = own->id;
        claim.ancestors = own->ancestors;
        if (own->id == context_.latest.lineage_id()) claim.revision = context_.latest.revision;
    }
    claim.member_nonce = facts_.member_nonce;
    if (context_.latest.cluster) {
        for (const auto& voter : context_.latest.cluster->record.voters) claim.voters.push_back(voter.name);
    }
    return claim;
}

bool Boot::nonce_known(const Uuid& committed) const {
    return committed.is_nil() || committed == facts_.member_nonce || committed == facts_.next_member_nonce ||
           committed == begun_nonce_ || mutant("nonce_ignored");
}

// Whoever knows a later life of this member proves that this directory is an old image, whatever else he has
// not heard of: lives only follow one another. A renewal that was begun here may be that later life.
bool Boot::outlived(const Uuid& known, const std::vector<Uuid>& former) const {
    if (mutant("nonce_ignored") || facts_.member_nonce.is_nil() || known == facts_.member_nonce) return false;
    const bool renewed = !facts_.next_member_nonce.is_nil() && facts_.next_member_nonce == known;
    return !renewed && std::ranges::find(former, facts_.member_nonce) != former.end();
}

// Of a store of one or two voters nothing was ever decided without this member or without the other one: who
// votes for an answer now has all of it, and so has this one by then. It may go on, under a new nonce.
bool Boot::others_have_everything() const {
    std::size_t voters = 0;
    bool own = false;
    for (const auto& member : context_.health.members) {
        if (member.learner) continue;
        ++voters;
        own = own || member.name == context_.config.name;
    }
    return own && voters <= 2;
}

void Boot::heard(const std::string& from, const Heartbeat& heartbeat) {
    const auto own = heartbeat.committed_nonces.find(context_.config.name);
    if (state_ == State::choosing && own != heartbeat.committed_nonces.end() && !nonce_known(own->second)) {
        set_aside("its member nonce is not the last committed one: lost or restored disk");
        return;
    }
    const bool looking = (state_ == State::choosing || state_ == State::starting || state_ == State::asking ||
                          state_ == State::registering) &&
                         facts_.store_present && !adopted_ && !joined_ && !vouched_;
    if (looking && outlived(heartbeat.your_nonce, heartbeat.your_former_nonces))
        return set_aside(from + " knows a later life of this member: lost or restored disk");
    const LineageId mine = context_.latest.lineage_id();
    if (!mine.is_nil() && heartbeat.store.lineage == mine) {
        auto& [revision, at] = claims_[from];
        if (heartbeat.store.revision > revision) {
            revision = heartbeat.store.revision;
            at = context_.now;
        }
    }
}

void Boot::start_store() {
    if (command_running_) return;
    command_running_ = true;
    const bool was_present = std::exchange(facts_.store_present, true);
    context_.store_command(StartStore{}, [this, was_present](const StoreCommandDone& done) {
        command_running_ = false;
        started_at_ = context_.now;
        if (!done.ok) {
            facts_.store_present = was_present;
            context_.event("error", "store.start-failed", "store", done.detail);
            move(State::choosing, "the store member did not start: " + done.detail);
        }
    });
    move(State::starting, "starting the store member");
}

// A member that was killed or crashed is started again on its own data: the same member, with the same nonce,
// in the same life (H28). Nothing else changes; with a majority elsewhere this node goes on acting meanwhile.
// While a copy is forced the member is stopped on purpose; a rejected one is set aside instead, unless it
// forced: until it has read from its own log that it is alone it may meet the other one and end (design note
// 0004).
void Boot::restart_store() {
    constexpr Duration kLongestPause = seconds(30);
    if (!context_.config.voter || command_running_ || context_.store == StoreCondition::forcing) return;
    if (context_.health.running) {
        if (context_.now - started_at_ > kLongestPause) restart_pause_ = seconds(1);
        return;
    }
    // What was seen before the last start says nothing about it.
    const bool seen = context_.health_at > started_at_ && context_.health_at > since_;
    const bool gone_for_good = context_.health.rejected && !forced_here();
    if (!seen || gone_for_good || context_.now < restart_at_) return;
    command_running_ = true;
    restart_at_ = context_.now + restart_pause_;
    restart_pause_ = std::min(restart_pause_ * 2, kLongestPause);
    context_.store_command(StartStore{}, [this](const StoreCommandDone& done) {
        command_running_ = false;
        started_at_ = context_.now;
        if (done.ok) {
            context_.event("warning", "store.restarted", "store",
                           "the store member of " + context_.config.name + " had ended and is started again");
        } else {
            context_.event("error", "store.start-failed", "store", done.detail);
        }
    });
}

void Boot::choose() {
    // A short look around first: a peer may know that this member's disk is not the one it was.
    bool everybody = true;
    bool somebody_has_one = false;
    for (const auto& [name, peer] : peers_.all()) {
        everybody = everybody && peer.heartbeat.number != 0;
        // A peer that boots too has not read its store yet, but a member that ever registered keeps a nonce.
        const StoreClaim& claim = peer.heartbeat.store;
        somebody_has_one =
            somebody_has_one || !claim.lineage.is_nil() || (claim.present && !claim.member_nonce.is_nil());
    }
    const bool patience_over = context_.now - since_ >= context_.suspicion() * 2;
    if (facts_.store_present) {
        ask_members();
        if (state_ != State::choosing || !((everybody && asked_.empty()) || patience_over)) return;
        const bool somebody = members_told_ || std::ranges::any_of(peers_.all(), [](const auto& peer) {
                                  return peer.second.heartbeat.number != 0;
                              });
        if (!somebody && !peers_.all().empty())
            context_.event("warning", "store.unasked", "store",
                           "nobody answers who could tell whether this node's store is an old image");
        asked_.clear();
        return start_store();
    }
    if (somebody_has_one) {
        prepare_joining("no store on this disk: waiting to be added by the node that has one");
    } else if (everybody) {
        start_store();
    }
    // Otherwise wait: this may be a lost disk, and the node that knows is not there.
}

// A witness has no clusterd, and a node's may be away: their members tell what they have applied. Only where
// a majority can do without this member, or with it and without the one that knows.
void Boot::ask_members() {
    if (std::exchange(asking_members_, true) || !context_.config.voter ||
        context_.config.initial_voters.size() < 3)
        return;
    for (const auto& voter : context_.config.initial_voters) {
        if (voter.name == context_.config.name) continue;
        const Tag tag = context_.tag();
        asked_[tag] = voter.name;
        context_.emit(StoreRead{tag, {keys::node(context_.config.name)}, true, true, voter.name});
    }
}

bool Boot::read_done(const ReadDone& done) {
    const auto asked = asked_.extract(done.tag);
    if (asked.empty()) return false;
    members_told_ = members_told_ || done.ok;
    for (const auto& value : done.values) {
        if (!done.ok || state_ != State::choosing || value.key != keys::node(context_.config.name)) continue;
        const auto record = decode<NodeRecord>(value.value);
        if (record && outlived(record->member_nonce, record->former_nonces))
            set_aside("the member of " + asked.mapped() +
                      " knows a later life of this one: lost or restored disk");
    }
    return true;
}

bool Boot::bootstrap() {
    if (context_.latest.cluster || context_.latest.lineage) return false;
    if (registration_running_) return true;
    registration_running_ = true;
    const auto [high, low] = context_.random();
    ClusterRecord cluster;
    cluster.id = context_.config.cluster;
    cluster.name = context_.config.cluster_name;
    cluster.voters = context_.config.initial_voters;
    cluster.timing = context_.config.timing;
    Txn txn;
    context_.absent(txn, std::string(keys::kCluster));
    context_.absent(txn, std::string(keys::kLineage));
    txn.puts.push_back({std::string(keys::kCluster), encode(cluster), 0});
    txn.puts.push_back({std::string(keys::kLineage),
                        encode(LineageRecord{LineageId::from_random(high, low), {}, "", "first"}), 0});
    context_.commit(std::move(txn), false, true, [this](const JobResult&) { registration_running_ = false; });
    return true;
}

void Boot::ask() {
    if (!mutant("boot_check_skipped")) {
        for (const auto& [name, peer] : peers_.all()) {
            const bool answered = peer.heartbeat.number != 0 && peers_.clusterd_alive(name);
            const bool waited = context_.now - since_ >= milliseconds(context_.timing().ask_ms);
            if (!answered && !waited) return;
            // Its claim must have been compared with an answer of our store that is newer than the claim.
            const auto claim = claims_.find(name);
            if (claim != claims_.end() && context_.quorate_at < claim->second.second) return;
        }
    }
    move(State::registering, "registering this life");
}

void Boot::register_life() {
    if (registration_running_) return;
    const auto own = context_.gated.nodes.find(context_.config.name);
    if (registered_at_ != 0) {
        // The tables decisions read may still show the life before this one.
        if (context_.gated.revision < registered_at_) return;
        registered_at_ = 0;
        const bool mine = own != context_.gated.nodes.end() &&
                          own->second.record.incarnation == context_.config.incarnation;
        if (!mine) return;  // once more
        context_.event("info", "node.registered", "node/" + context_.config.name, "takes part");
        move(State::acting, "acting");
        context_.acting = true;
        return;
    }
    if (own != context_.gated.nodes.end() && !adopted_ && !joined_ && !vouched_ &&
        !nonce_known(own->second.record.member_nonce)) {
        if (context_.health_at <= since_) return;  // what etcd's members are is asked after the answer
        if (!others_have_everything())
            return set_aside("its member nonce is not the committed one: lost or restored disk");
        context_.event("warning", "store.old-image", "store",
                       "it was started from an old image; the other voter had everything that was decided");
        vouched_ = true;
    }
    registration_running_ = true;
    if (!context_.config.voter || (adopted_ && !facts_.member_nonce.is_nil())) return commit_registration();
    // A renewal that an earlier process began has landed: it is the present one, and not to be forgotten.
    if (own != context_.gated.nodes.end() && !begun_nonce_.is_nil() &&
        own->second.record.member_nonce == begun_nonce_)
        facts_.member_nonce = begun_nonce_;
    const auto [high, low] = context_.random();
    facts_.next_member_nonce = Uuid::from_random(high, low);
    context_.store_command(WriteMemberNonce{facts_.member_nonce, facts_.next_member_nonce},
                           [this](const StoreCommandDone& done) {
                               registration_running_ = false;
                               if (!done.ok || state_ != State::registering) return;
                               registration_running_ = true;
                               commit_registration();
                           });
}

void Boot::commit_registration() {
    const std::string key = keys::node(context_.config.name);
    NodeRecord record;
    Txn txn;
    const auto own = context_.gated.nodes.find(context_.config.name);
    if (own != context_.gated.nodes.end()) {
        record = own->second.record;
        context_.reads(txn, key, own->second);
    } else {
        context_.absent(txn, key);
    }
    const bool same_life = record.incarnation == context_.config.incarnation;
    record.id = context_.config.id;
    record.name = context_.config.name;
    record.control = context_.config.control;
    record.links = context_.config.links;
    record.incarnation = context_.config.incarnation;
    if (!facts_.next_member_nonce.is_nil()) {
        // Of one that was added the tables may not know the nonce it began with: it is a former one from now
        // on, or a heartbeat that is still on its way would have it vouched for again.
        if (!facts_.member_nonce.is_nil()) renew_nonce(record, facts_.member_nonce);
        renew_nonce(record, facts_.next_member_nonce);
    }
    record.version = context_.config.version;
    record.memory_bytes = context_.config.memory_bytes;
    record.feature_level = kFeatureLevel;
    record.state = NodeState::member;
    if (!same_life && record.fence.state == FenceState::requested) context_.aimed_at();
    if (!same_life) record.fence = {};
    txn.puts.push_back({key, encode(record), 0});
    for (const auto& pool : context_.config.pools) {
        txn.puts.push_back({keys::pool(context_.config.name, pool.name), encode(pool), 0});
    }
    context_.commit(std::move(txn), false, true, [this](const JobResult& result) {
        registration_running_ = false;
        if (!result.committed || state_ != State::registering) return;
        if (!facts_.next_member_nonce.is_nil()) {
            facts_.member_nonce = facts_.next_member_nonce;
            facts_.next_member_nonce = {};
            context_.store_command(WriteMemberNonce{facts_.member_nonce, {}}, [](const StoreCommandDone&) {});
        }
        registered_at_ = result.revision;
    });
}

void Boot::set_aside(const std::string& reason) {
    forced_lineage_ = {};
    if (state_ == State::setting_aside || state_ == State::joining) return;
    move(State::setting_aside, reason);
    context_.store = StoreCondition::old;
    context_.store_command(SetStoreAside{reason}, [this](const StoreCommandDone& done) {
        if (state_ != State::setting_aside) return;
        if (!done.ok) {
            context_.event("error", "store.aside-failed", "store", done.detail);
            return move(State::split_brain, "the old store could not be renamed: " + done.detail);
        }
        facts_.store_present = false;
        own_disk_.reset();
        adopted_ = joined_ = vouched_ = false;
        context_.latest = {};
        context_.gated = {};
        context_.tables_live = false;
        claims_.clear();
        prepare_joining("the old store was set aside: waiting to be added again");
    });
}

// The member that will be added gets its nonce now; who adds it commits that nonce before it may vote
// (vouching), so that neither a restart nor a reboot on the way makes it look like a restored image.
void Boot::prepare_joining(const std::string& why) {
    const auto [high, low] = context_.random();
    facts_.member_nonce = Uuid::from_random(high, low);
    facts_.next_member_nonce = {};
    if (state_ != State::setting_aside) move(State::setting_aside, why);
    context_.store_command(
        WriteMemberNonce{facts_.member_nonce, {}}, [this, why](const StoreCommandDone& done) {
            if (state_ != State::setting_aside) return;
            if (!done.ok)
                return move(State::choosing, "the member nonce could not be written: " + done.detail);
            move(State::joining, why);
        });
}

void Boot::join_offer(const JoinOffer& offer) {
    if (state_ != State::joining || command_running_) return;
    command_running_ = true;
    context_.store_command(JoinStore{offer.initial_cluster}, [this](const StoreCommandDone& done) {
        command_running_ = false;
        started_at_ = context_.now;
        if (!done.ok) return context_.event("error", "store.join-failed", "store", done.detail);
        facts_.store_present = true;
        joined_ = true;
        context_.store = StoreCondition::waiting;
        move(State::starting, "joining the store");
    });
}

void Boot::forced() {
    // Same registration, new lineage: the tables come anew, the life goes on.
    claims_.clear();
    own_disk_.reset();
    facts_.store_present = true;
    started_at_ = context_.now;  // it was stopped for that; what was seen before says nothing
    if (state_ != State::acting) move(State::starting, "the forced store starts");
}

void Boot::evaluate() {
    check_lineages();
    if (state_ == State::starting || state_ == State::asking || state_ == State::registering ||
        state_ == State::acting || (state_ == State::split_brain && forced_here()))
        restart_store();
    switch (state_) {
        case State::facts:
        case State::setting_aside:
        case State::joining: return;
        case State::split_brain: return after_split();
        case State::choosing: return choose();
        case State::starting:
            if (rejected()) return set_aside("the other members removed this one");
            if (context_.store_quorate() && context_.tables_live && !bootstrap() && context_.gated.lineage &&
                tables_are_own()) {
                own_disk_.reset();
                move(State::asking, "asking every node before acting");
            }
            return;
        case State::asking:
            if (!context_.store_quorate()) return move(State::starting, "the store is not quorate");
            return ask();
        case State::registering:
            if (context_.store_quorate() && context_.tables_live) register_life();
            return;
        case State::acting: {
            if (rejected()) return set_aside("the other members removed this one");
            const auto own = context_.gated.nodes.find(context_.config.name);
            const bool other_life = own != context_.gated.nodes.end() &&
                                    own->second.record.incarnation != context_.config.incarnation;
            if (other_life)
                move(State::split_brain, "another life of this node has registered: this one stops");
            return;
        }
    }
}

}  // namespace gemel::cluster
