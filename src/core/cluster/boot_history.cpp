// Boot: whose history the store on this disk is, against what the others claim of theirs (design
// brief 3.4, 3.5; H35): older, the same, or another, which an operator ends by choosing.
#include <algorithm>

#include "base/mutant.hpp"
#include "core/cluster/boot.hpp"
#include "core/formats/records_json.hpp"

namespace gemel::cluster {
namespace {

bool contains(const std::vector<LineageId>& list, const LineageId& id) {
    return std::ranges::find(list, id) != list.end();
}

}  // namespace

void Boot::own_disk(const LineageRecord& lineage) {
    if (state_ == State::starting && has_own_history()) own_disk_ = lineage;
}

bool Boot::wants_own_disk() const {
    return state_ == State::starting && context_.health.rejected && has_own_history() && !own_disk_;
}

bool Boot::tables_are_own() const {
    const auto& read = context_.latest.lineage;
    return read && (!own_disk_ || read->record.id == own_disk_->id ||
                    contains(read->record.ancestors, own_disk_->id));
}

// As the tables show it, where they are ours.
const LineageRecord* Boot::own_lineage() const {
    if (tables_are_own()) return &context_.latest.lineage->record;
    return own_disk_ ? &*own_disk_ : nullptr;
}

bool Boot::forced_here() const {
    const LineageRecord* own = own_lineage();
    return own != nullptr && own->forced_by == context_.config.name;
}

// What forced a single member here is set aside only for one that went on from it: a member that was dropped
// by the other one's forcing hears the same from etcd, and then both are kept (design brief 3.4). So what our
// disk holds is looked at first, whatever the tables show.
bool Boot::rejected() const {
    return context_.health.rejected && !wants_own_disk() && !forced_here();
}

void Boot::check_lineages() {
    if (mutant("boot_check_skipped")) return;
    const LineageRecord* own = own_lineage();
    if (own == nullptr || state_ == State::setting_aside || state_ == State::joining ||
        state_ == State::split_brain)
        return;
    // Just forced here, and not read since: who claims that lineage read it from us.
    const bool reads_own =
        forced_lineage_.is_nil() || own->id == forced_lineage_ || contains(own->ancestors, forced_lineage_);
    if (!reads_own) return;
    for (const auto& [name, peer] : peers_.all()) {
        const StoreClaim& claim = peer.heartbeat.store;
        if (!claim.present || claim.lineage.is_nil()) continue;
        if (claim.lineage == own->id) {
            const auto known = claims_.find(name);
            const bool behind = known != claims_.end() && context_.tables_live && context_.store_quorate() &&
                                context_.quorate_at > known->second.second &&
                                context_.quorate_revision < known->second.first;
            if (behind && context_.now - known->second.second > context_.suspicion() * 3) {
                move(State::split_brain,
                     name + " knows a later revision of this store: this one is old or restored");
                context_.store = StoreCondition::old;
            }
        } else if (contains(claim.ancestors, own->id)) {
            context_.event("warning", "store.old", "store",
                           name + " went on without this node; its store is the later one");
            set_aside("old: " + name + " forced a single member since");
        } else if (!contains(own->ancestors, claim.lineage)) {
            if (!own_disk_) own_disk_ = *own;
            move(State::split_brain,
                 "this node and " + name + " both forced a single-member store: both are kept");
            context_.store = StoreCondition::split_brain;
            context_.event("critical", "store.split-brain", "store", why_);
        }
        if (state_ == State::setting_aside || state_ == State::split_brain) return;
    }
}

Status Boot::may_keep_own() const {
    if (state_ != State::split_brain || context_.store != StoreCondition::split_brain)
        return fail(ErrorCode::failed_precondition,
                    "the store has one history only; there is nothing to choose");
    if (!tables_are_own() || !context_.tables_live)
        return fail(ErrorCode::unavailable,
                    "this node does not read its own store now; repeat in a few seconds");
    return {};
}

void Boot::keep_own() {
    std::vector<LineageId> others;
    for (const auto& [name, peer] : peers_.all()) {
        const LineageId theirs = peer.heartbeat.store.lineage;
        if (!theirs.is_nil() && theirs != context_.latest.lineage_id()) others.push_back(theirs);
    }
    const LineageRecord next = context_.next_lineage(others, "of two histories the operator chose this one");
    Txn txn;
    txn.puts.push_back({std::string(keys::kLineage), encode(next), 0});
    context_.commit(std::move(txn), false, true, [this, id = next.id](const JobResult& result) {
        if (!result.committed) return;  // the operation tells; it can be repeated
        forced_lineage_ = id;
        context_.event("warning", "store.kept", "store",
                       "the operator chose this node's history; the other one is set aside and kept");
    });
}

// Leaves the split once one side names the other as its ancestor. Both do (both were chosen at once): neither
// is the later one, and the operator chooses again.
void Boot::after_split() {
    if (context_.store != StoreCondition::split_brain || own_lineage() == nullptr) return;
    const LineageRecord& own = *own_lineage();
    bool all_named = true;
    bool somebody = false;
    for (const auto& [name, peer] : peers_.all()) {
        const StoreClaim& claim = peer.heartbeat.store;
        if (!claim.present || claim.lineage.is_nil() || claim.lineage == own.id) continue;
        if (contains(claim.ancestors, own.id) && !contains(own.ancestors, claim.lineage))
            return set_aside("the operator chose the history of " + name);
        somebody = true;
        all_named = all_named && contains(own.ancestors, claim.lineage);
    }
    const bool chosen = !forced_lineage_.is_nil() && own.id == forced_lineage_;
    if (!chosen || (somebody && !all_named)) return;
    context_.store = StoreCondition::waiting;
    own_disk_.reset();
    claims_.clear();
    move(State::starting, "the operator chose this node's history");
}

}  // namespace gemel::cluster
