#include "core/cluster/context.hpp"

#include <algorithm>
#include <array>

#include "core/formats/records_json.hpp"

namespace gemel::cluster {

std::string Context::secret() {
    constexpr std::array<char, 17> kHex{"0123456789abcdef"};
    std::string text;
    for (const std::uint64_t word : {prng.next(), prng.next()}) {
        for (unsigned shift = 0; shift < 64; shift += 4) text += kHex[(word >> shift) & 15];
    }
    return text;
}

void Context::event(const std::string& severity, const std::string& kind, const std::string& object,
                    const std::string& message) {
    log(severity, object + ": " + message);
    constexpr std::size_t kMaxUnsaved = 256;
    if (unsaved_events.size() >= kMaxUnsaved) unsaved_events.pop_front();
    unsaved_events.push_back({severity, kind, object, config.name, message, wall_ms});
}

bool Context::removed_witness(const ClusterRecord& cluster, const VoterRecord& voter) const {
    if (!voter.witness || cluster.removing_voter != voter.name || health.members.empty()) return false;
    return std::ranges::none_of(health.members, [&voter](const StoreMemberView& member) {
        return member.name == voter.name || member.peer_url == voter.peer_url;
    });
}

void Context::aimed_at() {
    for (const auto& [name, device] : gated.fence_devices)
        if (device.record.node == config.name)
            aimed_at_until = std::max(aimed_at_until, now + milliseconds(device.record.timeout_ms));
}

std::size_t Context::voter_count() const {
    std::size_t count = 0;
    each_voter([&](const VoterRecord&) { ++count; });
    return count;
}

std::optional<std::string> Context::other_voter() const {
    std::array<const VoterRecord*, 2> two{};
    std::size_t count = 0;
    each_voter([&](const VoterRecord& voter) {
        if (count < two.size()) two[count] = &voter;
        ++count;
    });
    if (count != 2 || two[0]->witness || two[1]->witness) return std::nullopt;
    if (two[0]->name == config.name) return two[1]->name;
    if (two[1]->name == config.name) return two[0]->name;
    return std::nullopt;
}

bool Context::epoch_refused(const VolumeId& volume, std::uint64_t epoch) {
    constexpr Duration kAgain = seconds(1);
    const std::pair key{volume, epoch};
    if (epochs_refused.contains(key)) return true;
    if (!blockd_up) return false;
    const auto [asked, first] = refusals_asked.try_emplace(key, now);
    if (first || now - asked->second >= kAgain) {
        asked->second = now;
        emit(BlockdRefuseEpoch{volume, epoch});
    }
    return false;
}

LineageRecord Context::next_lineage(const std::vector<LineageId>& others, const std::string& reason) {
    const LineageRecord& own = latest.lineage->record;
    const auto [high, low] = random();
    LineageRecord next;
    next.id = LineageId::from_random(high, low);
    next.forced_by = config.name;
    next.reason = reason;
    next.ancestors.push_back(own.id);
    next.ancestors.insert(next.ancestors.end(), others.begin(), others.end());
    next.ancestors.insert(next.ancestors.end(), own.ancestors.begin(), own.ancestors.end());
    if (next.ancestors.size() > LineageRecord::kMaxAncestors)
        next.ancestors.resize(LineageRecord::kMaxAncestors);
    return next;
}

bool Context::needs_barrier() const {
    const auto wanted = [](const ClusterRecord& cluster) {
        return cluster.voters.size() == 2 || !cluster.adding_voter.empty() || !cluster.removing_voter.empty();
    };
    if (!gated.cluster && !latest.cluster) return config.initial_voters.size() == 2;
    return (gated.cluster && wanted(gated.cluster->record)) ||
           (latest.cluster && wanted(latest.cluster->record));
}

const NodeRecord* Context::node(const std::string& name) const {
    const auto row = gated.nodes.find(name);
    if (row != gated.nodes.end()) return &row->second.record;
    // Before anything is gated: what our own member has on its disk, for those who may act without a quorum.
    const auto stale = latest.nodes.find(name);
    return gated.nodes.empty() && stale != latest.nodes.end() ? &stale->second.record : nullptr;
}

void Context::commit(Txn txn, bool as_coordinator, bool urgent, Committed callback) {
    if (as_coordinator) txn.term = term;
    if (as_coordinator && !mutant("term_not_compared")) {
        txn.compares.push_back({std::string(keys::kCoordinator), CompareKind::create_revision, term, {}});
    }
    const auto& row = gated.lineage ? gated.lineage : latest.lineage;
    const std::string lineage = row ? encode(row->record) : std::string();
    callbacks_[queue.submit(std::move(txn), lineage, urgent, needs_barrier())] = std::move(callback);
}

void Context::gate_barrier(Committed callback) {
    callbacks_[queue.submit({}, encode(latest.lineage->record), true, false)] = std::move(callback);
}

void Context::deliver_results() {
    for (const auto& result : queue.take_results()) {
        const auto at = callbacks_.find(result.job);
        if (at == callbacks_.end()) continue;
        const auto callback = std::move(at->second);
        callbacks_.erase(at);
        if (callback) callback(result);
    }
}

void Context::store_command(StoreCommandKind command, std::function<void(const StoreCommandDone&)> done) {
    const Tag id = tag();
    store_waits[id] = std::move(done);
    emit(StoreCommand{id, std::move(command)});
}

const DomainView* Context::domain(const GuestId& uuid) const {
    const auto at = domains.find(uuid);
    return at == domains.end() ? nullptr : &at->second;
}

void Context::destroy_domain(const GuestId& uuid, std::string reason) {
    const Tag tag = this->tag();
    domain_waits[tag] = [this](const DomainDone&) { emit(ListDomains{}); };
    emit(DestroyDomain{tag, uuid, std::move(reason)});
}

void Context::fence(FenceAction action, const FenceDeviceRecord& device,
                    std::function<void(const FenceDone&)> done) {
    const Tag id = tag();
    fence_waits[id] = std::move(done);
    emit(Fence{id, action, device});
}

}  // namespace gemel::cluster
