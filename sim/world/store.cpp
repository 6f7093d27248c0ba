// The replicated log of the store model: members, elections, replication, application. Clients:
// store_client.cpp.
#include "sim/world/store.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::sim {
namespace {

constexpr Duration kTick = milliseconds(100);
constexpr Duration kElection = milliseconds(1000);
constexpr std::size_t kKeptChanges = 400;

}  // namespace

StoreModel::StoreModel(Tasks& tasks, Trace& trace, Counters& counters, Network& network, Prng random)
    : tasks_(tasks), trace_(trace), counters_(counters), network_(network), random_(random) {
    tasks_.after(kTick, [this] { tick(); });
}

Duration StoreModel::sync_time(std::uint32_t node) {
    const std::int64_t micros = random_.between(200, 1200);
    return microseconds(processes_[node].slow ? micros * 50 : micros);
}

void StoreModel::bootstrap(const std::vector<std::uint32_t>& voters) {
    std::vector<StoreMember> members;
    for (const std::uint32_t node : voters) members.push_back(StoreMember{next_id_++, node, false});
    for (const StoreMember& member : members) {
        auto directory = std::make_unique<StoreDirectory>();
        directory->member_id = member.id;
        directory->members = members;
        directories_[member.node] = std::move(directory);
    }
}

void StoreModel::start(std::uint32_t node) {
    if (processes_[node].running || directories_[node] == nullptr) return;
    const std::uint64_t life = processes_[node].life;
    const bool slow = processes_[node].slow;
    const bool paused = processes_[node].paused;
    processes_[node] = Process{};
    processes_[node].life = life + 1;
    processes_[node].slow = slow;
    processes_[node].paused = paused;
    processes_[node].running = true;
    processes_[node].heard = tasks_.now();
    changes_[node].clear();
    compacted_[node] = directories_[node]->state.revision;
    apply(node);
    trace_.note(tasks_.now(), node, "store.start", directories_[node]->log.size(),
                directories_[node]->commit);
}

void StoreModel::stop(std::uint32_t node, bool power_cut) {
    Process& process = processes_[node];
    if (process.running) {
        step_down(node, false);
        process.waiting.clear();
        process.waiting_other.clear();
        process.running = false;
        ++process.life;
        trace_.note(tasks_.now(), node, "store.stop", power_cut ? 1 : 0);
    }
    process.paused = false;
    if (power_cut && directories_[node] != nullptr) {
        // entries were synced before they were acknowledged; that they are committed was only noted
        StoreDirectory& directory = *directories_[node];
        directory.commit = std::max(directory.commit_synced, directory.applied);
        if (random_.chance(1, 2)) prepared_[node].reset();
    }
    for (std::uint32_t watcher = 0; watcher < kNodes; ++watcher) {
        if (watchers_[watcher].active && (watchers_[watcher].member == node || watcher == node)) {
            Watcher lost = std::exchange(watchers_[watcher], Watcher{});
            if (watcher != node && lost.lost) tasks_.after(milliseconds(1), lost.lost);
            if (watcher == node && !power_cut && lost.lost) tasks_.after(milliseconds(1), lost.lost);
        }
    }
}

void StoreModel::pause(std::uint32_t node, bool paused) {
    processes_[node].paused = paused;
}

void StoreModel::set_aside(std::uint32_t node) {
    stop(node, false);
    directories_[node].reset();
    prepared_[node].reset();
}

void StoreModel::restore(std::uint32_t node, const StoreDirectory& old) {
    INVARIANT(!processes_[node].running, "a directory is replaced while nobody uses it");
    directories_[node] = std::make_unique<StoreDirectory>(old);
}

bool StoreModel::join(std::uint32_t node) {
    for (std::uint32_t other = 0; other < kNodes; ++other) {
        if (other == node || !processes_[other].running) continue;
        for (const StoreMember& member : directories_[other]->members) {
            if (member.node != node) continue;
            auto directory = std::make_unique<StoreDirectory>();
            directory->member_id = member.id;
            directory->members = directories_[other]->members;
            directory->removed = directories_[other]->removed;
            directories_[node] = std::move(directory);
            start(node);
            return true;
        }
    }
    return false;
}

// ---- forcing
// -----------------------------------------------------------------------------------------------------

bool StoreModel::force_prepare(std::uint32_t node, const cluster::Txn& first) {
    if (directories_[node] == nullptr) return false;
    stop(node, false);
    auto copy = std::make_unique<StoreDirectory>(*directories_[node]);
    counters_.add("store.forced");
    if (copy->log.size() > copy->commit) counters_.add("store.forced_and_dropped");
    copy->log.resize(copy->commit);  // what was stored but not known to be committed is gone
    for (const StoreMember& member : copy->members) {
        if (member.id != copy->member_id) copy->removed.push_back(member.id);
    }
    std::erase_if(copy->members, [&](const StoreMember& member) { return member.id != copy->member_id; });
    for (StoreMember& member : copy->members) member.learner = false;
    ++copy->term;
    auto entry = std::make_shared<StoreEntry>();
    entry->term = copy->term;
    entry->kind = StoreEntry::Kind::txn;
    entry->txn = first;
    copy->log.push_back(entry);
    copy->commit = copy->commit_synced = copy->log.size();
    prepared_[node] = std::move(copy);
    return true;
}

bool StoreModel::force_activate(std::uint32_t node) {
    if (prepared_[node] == nullptr) return false;
    stop(node, false);
    directories_[node] = std::move(prepared_[node]);
    start(node);
    return true;
}

void StoreModel::force_abort(std::uint32_t node) {
    prepared_[node].reset();
    start(node);
}

// ---- who hears whom
// ----------------------------------------------------------------------------------------------

bool StoreModel::is_voter(const StoreDirectory& directory, std::uint64_t id) const {
    return std::ranges::any_of(
        directory.members, [id](const StoreMember& member) { return member.id == id && !member.learner; });
}

std::size_t StoreModel::majority(const StoreDirectory& directory) const {
    const auto voters =
        std::ranges::count_if(directory.members, [](const StoreMember& m) { return !m.learner; });
    return static_cast<std::size_t>(voters) / 2 + 1;
}

// Each knows the other as a member and neither has removed it.
bool StoreModel::same_cluster(std::uint32_t a, std::uint32_t b) const {
    const StoreDirectory& left = *directories_[a];
    const StoreDirectory& right = *directories_[b];
    const auto knows = [](const StoreDirectory& directory, std::uint64_t id) {
        const bool gone = std::ranges::find(directory.removed, id) != directory.removed.end();
        const bool there =
            std::ranges::any_of(directory.members, [id](const StoreMember& m) { return m.id == id; });
        return !gone && there;
    };
    return knows(left, right.member_id) && knows(right, left.member_id);
}

bool StoreModel::hear_each_other(std::uint32_t a, std::uint32_t b) const {
    if (a == b) return alive(a);
    return alive(a) && alive(b) && network_.passes(Cable::control, a, b) &&
           network_.passes(Cable::control, b, a) && same_cluster(a, b);
}

std::vector<std::uint32_t> StoreModel::voters_heard(std::uint32_t node) const {
    std::vector<std::uint32_t> heard;
    const StoreDirectory& mine = *directories_[node];
    for (std::uint32_t other = 0; other < kNodes; ++other) {
        if (directories_[other] == nullptr || !processes_[other].running) continue;
        if (!is_voter(mine, directories_[other]->member_id)) continue;
        if (hear_each_other(node, other)) heard.push_back(other);
    }
    return heard;
}

std::optional<std::uint32_t> StoreModel::leader_of(std::uint32_t node) const {
    return alive(node) ? processes_[node].knows_leader : std::nullopt;
}

std::optional<std::uint32_t> StoreModel::working_leader() const {
    for (std::uint32_t node = 0; node < kNodes; ++node) {
        if (alive(node) && processes_[node].leader && confirm(node) >= majority(*directories_[node]))
            return node;
    }
    return std::nullopt;
}

std::string StoreModel::text() const {
    std::string out;
    for (std::uint32_t node = 0; node < kNodes; ++node) {
        const Process& process = processes_[node];
        if (directories_[node] == nullptr) continue;
        const StoreDirectory& mine = *directories_[node];
        out += fmt::format("store of node{}: id {} {}{}{} term {} log {} committed {} members", node + 1,
                           mine.member_id, alive(node) ? "runs" : "stopped", process.leader ? ", leads" : "",
                           process.rejected ? ", rejected" : "", mine.term, mine.log.size(), mine.commit);
        for (const StoreMember& member : mine.members)
            out += fmt::format(" {}{}", member.id, member.learner ? "(learner)" : "");
        out += "; ";
    }
    return out;
}

bool StoreModel::has_all(std::uint32_t node, std::uint32_t leader) const {
    return hear_each_other(leader, node) && directories_[node]->log == directories_[leader]->log;
}

bool StoreModel::learner_ready(std::uint32_t node) const {
    const auto leader = working_leader();
    if (!leader || directories_[node] == nullptr || !processes_[node].running) return false;
    return directories_[node]->log.size() + 5 >= directories_[*leader]->log.size() &&
           hear_each_other(*leader, node);
}

// ---- elections
// ---------------------------------------------------------------------------------------------------

void StoreModel::tick() {
    tasks_.after(kTick, [this] { tick(); });
    for (std::uint32_t node = 0; node < kNodes; ++node) {
        if (!alive(node)) continue;
        Process& process = processes_[node];
        StoreDirectory& mine = *directories_[node];
        // a member that was removed is told so by any member that it turns to and that knows
        for (std::uint32_t other = 0; other < kNodes; ++other) {
            if (other == node || !alive(other) || !network_.passes(Cable::control, node, other)) continue;
            const bool turns_to = std::ranges::any_of(
                mine.members, [other](const StoreMember& member) { return member.node == other; });
            if (!turns_to) continue;
            const auto& removed = directories_[other]->removed;
            if (std::ranges::find(removed, mine.member_id) != removed.end()) process.rejected = true;
        }
        const auto heard = voters_heard(node);
        const bool has_majority = is_voter(mine, mine.member_id) && heard.size() >= majority(mine);
        if (process.leader) {
            if (confirm(node) < heard.size()) {  // a later term answers
                step_down(node, true);
            } else if (has_majority) {
                process.heard = tasks_.now();
                expire_leases(node);
                for (const StoreMember& member : std::vector<StoreMember>(mine.members)) {
                    if (member.node != node) replicate(node, member.node);
                }
            } else if (tasks_.now() - process.heard > kElection) {
                step_down(node, true);
            }
            continue;
        }
        if (process.knows_leader) {
            const std::uint32_t leader = *process.knows_leader;
            if (hear_each_other(node, leader) && processes_[leader].leader) {
                process.heard = tasks_.now();
            } else if (tasks_.now() - process.heard > kElection) {
                process.knows_leader.reset();
            }
        }
        const auto wait = kElection + milliseconds(static_cast<std::int64_t>(random_.below(500)));
        if (!process.knows_leader && has_majority && tasks_.now() - process.heard > wait) elect(node);
    }
}

// Those of them that follow nobody of a later term: who does tells a former leader so, and confirms nothing.
std::size_t StoreModel::confirm(std::uint32_t leader) const {
    const auto heard = voters_heard(leader);
    return static_cast<std::size_t>(std::ranges::count_if(
        heard, [&](std::uint32_t other) { return directories_[other]->term <= directories_[leader]->term; }));
}

// Who leads, or has heard of its leader within the time of an election, gives no vote (etcd's pre-vote and
// check of quorum): a member that alone cannot hear the leader does not depose it.
std::vector<std::uint32_t> StoreModel::votes_for(std::uint32_t node) const {
    auto votes = voters_heard(node);
    std::erase_if(votes, [this](std::uint32_t other) {
        return processes_[other].leader || processes_[other].knows_leader.has_value();
    });
    return votes;
}

// The member that begins hands over to the one with the newest log among those it hears, as votes would.
void StoreModel::elect(std::uint32_t node) {
    std::uint32_t best = node;
    std::uint64_t term = 0;
    const auto newness = [this](std::uint32_t n) {
        const StoreDirectory& directory = *directories_[n];
        return std::pair(directory.log.empty() ? 0 : directory.log.back()->term, directory.log.size());
    };
    for (const std::uint32_t other : voters_heard(node)) {
        term = std::max(term, directories_[other]->term);
        if (!processes_[other].leader || confirm(other) < majority(*directories_[other])) continue;
        processes_[node].knows_leader = other;
        processes_[node].met = true;
        processes_[node].heard = tasks_.now();
        return;
    }
    for (const std::uint32_t other : votes_for(node))
        if (newness(other) > newness(best)) best = other;
    const auto votes = votes_for(best);
    if (votes.size() < majority(*directories_[best])) return;
    for (const std::uint32_t other : votes) term = std::max(term, directories_[other]->term);
    for (const std::uint32_t other : votes) {
        directories_[other]->term = term + 1;
        processes_[other].knows_leader = best;
        processes_[other].met = true;
        processes_[other].heard = tasks_.now();
    }
    Process& leader = processes_[best];
    leader.leader = true;
    leader.match.clear();
    leader.lease_ends.clear();
    for (const auto& [id, ttl] : directories_[best]->state.leases)
        leader.lease_ends[id] = tasks_.now() + seconds(ttl);
    counters_.add("store.leader_elected");
    trace_.note(tasks_.now(), best, "store.leader", term + 1, directories_[best]->log.size());
    propose(best, StoreEntry{});
}

void StoreModel::step_down(std::uint32_t node, bool unknown_replies) {
    Process& process = processes_[node];
    process.leader = false;
    process.knows_leader.reset();
    process.match.clear();
    auto waiting = std::exchange(process.waiting, {});
    auto others = std::exchange(process.waiting_other, {});
    if (!unknown_replies) return;
    for (auto& [number, reply] : waiting) reply(cluster::TxnOutcome::unknown, 0);
    for (auto& [number, reply] : others) reply(false);
}

// ---- the log
// -----------------------------------------------------------------------------------------------------

void StoreModel::propose(std::uint32_t leader, StoreEntry entry) {
    StoreDirectory& directory = *directories_[leader];
    entry.term = directory.term;
    directory.log.push_back(std::make_shared<const StoreEntry>(std::move(entry)));
    directory.commit_synced = directory.commit;
    const std::uint64_t index = directory.log.size();
    const std::uint64_t term = directory.term;
    tasks_.after(sync_time(leader), [this, leader, term, index, life = processes_[leader].life] {
        if (processes_[leader].life == life) stored(leader, leader, term, index);
    });
    for (const StoreMember& member : directory.members) {
        if (member.node != leader) replicate(leader, member.node);
    }
}

void StoreModel::replicate(std::uint32_t leader, std::uint32_t to) {
    const StoreDirectory& mine = *directories_[leader];
    const std::uint64_t from = processes_[leader].match[to];
    std::vector<StoreEntryPtr> tail(
        mine.log.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(from, mine.log.size())),
        mine.log.end());
    network_.send(
        Cable::control, leader, to,
        [this, leader, to, from, tail = std::move(tail), term = mine.term, commit = mine.commit] {
            if (!alive(to) || !alive(leader) || directories_[to] == nullptr || !same_cluster(leader, to))
                return;
            StoreDirectory& theirs = *directories_[to];
            if (theirs.term > term) return;
            theirs.term = term;
            Process& process = processes_[to];
            if (process.leader) step_down(to, true);
            process.knows_leader = leader;
            process.met = true;
            process.heard = tasks_.now();
            // the part before `from` is the same: it was acknowledged in this term or compared before
            bool changed = false;
            if (theirs.log.size() < from) {
                network_.send(Cable::control, to, leader,
                              [this, leader, to] { processes_[leader].match[to] = 0; });
                return;
            }
            for (std::size_t i = 0; i < tail.size(); ++i) {
                const std::size_t at = from + i;
                if (at < theirs.log.size() && theirs.log[at] == tail[i]) continue;
                // etcd panics: somebody voted who had forgotten what he voted for
                if (at < theirs.commit) {
                    counters_.add("store.member_panicked");
                    return stop(to, false);
                }
                if (at < theirs.log.size()) theirs.log.resize(at);
                theirs.log.push_back(tail[i]);
                changed = true;
            }
            if (changed) theirs.commit_synced = theirs.commit;
            const std::uint64_t index = from + tail.size();
            learn_commit(to, std::min(commit, index));
            const Duration wait = changed ? sync_time(to) : microseconds(10);
            tasks_.after(wait, [this, leader, to, term, index, life = process.life] {
                if (processes_[to].life != life || !alive(to)) return;
                network_.send(Cable::control, to, leader, [this, leader, to, term, index] {
                    if (alive(leader)) stored(leader, to, term, index);
                });
            });
        });
}

void StoreModel::stored(std::uint32_t leader, std::uint32_t from, std::uint64_t term, std::uint64_t index) {
    Process& process = processes_[leader];
    if (!process.leader || directories_[leader]->term != term) return;
    process.match[from] = std::max(process.match[from], index);
    advance(leader);
}

void StoreModel::advance(std::uint32_t leader) {
    StoreDirectory& directory = *directories_[leader];
    std::vector<std::uint64_t> matches;
    for (const StoreMember& member : directory.members) {
        if (!member.learner) matches.push_back(processes_[leader].match[member.node]);
    }
    std::ranges::sort(matches, std::greater<>{});
    const std::uint64_t decided = matches[majority(directory) - 1];
    if (decided <= directory.commit || directory.log[decided - 1]->term != directory.term) return;
    directory.commit = decided;
    apply(leader);
    // followers learn of it with the next message
    if (!processes_[leader].leader || late_commits_) return;
    for (const StoreMember& member : std::vector<StoreMember>(directory.members)) {
        if (member.node != leader) replicate(leader, member.node);
    }
}

void StoreModel::learn_commit(std::uint32_t node, std::uint64_t commit) {
    StoreDirectory& directory = *directories_[node];
    if (commit <= directory.commit) return;
    directory.commit = commit;
    apply(node);
}

void StoreModel::apply(std::uint32_t node) {
    StoreDirectory& directory = *directories_[node];
    Process& process = processes_[node];
    while (directory.applied < directory.commit) {
        const StoreEntryPtr entry = directory.log[directory.applied++];
        bool succeeded = true;
        switch (entry->kind) {
            case StoreEntry::Kind::nothing: break;
            case StoreEntry::Kind::txn: succeeded = apply_txn(directory, node, entry->txn); break;
            case StoreEntry::Kind::grant_lease:
                directory.state.leases[entry->id] = entry->ttl_s;
                if (process.leader) process.lease_ends[entry->id] = tasks_.now() + seconds(entry->ttl_s);
                break;
            case StoreEntry::Kind::revoke_lease: {
                directory.state.leases.erase(entry->id);
                process.lease_ends.erase(entry->id);
                cluster::Txn gone;
                for (const auto& [key, value] : directory.state.values) {
                    if (value.lease == entry->id) gone.deletes.push_back(key);
                }
                if (!gone.deletes.empty()) apply_txn(directory, node, gone);
                break;
            }
            case StoreEntry::Kind::add_learner:
            case StoreEntry::Kind::promote:
            case StoreEntry::Kind::remove: apply_members(directory, node, *entry); break;
        }
        if (const auto waits = process.waiting.find(entry->number);
            entry->number != 0 && waits != process.waiting.end()) {
            const TxnReply reply = std::exchange(waits->second, nullptr);
            process.waiting.erase(waits);
            reply(succeeded ? cluster::TxnOutcome::committed : cluster::TxnOutcome::compare_failed,
                  directory.state.revision);
        }
        if (const auto waits = process.waiting_other.find(entry->number);
            entry->number != 0 && waits != process.waiting_other.end()) {
            const auto reply = std::exchange(waits->second, nullptr);
            process.waiting_other.erase(waits);
            reply(true);
        }
    }
    feed_watchers(node);
}

void StoreModel::apply_members(StoreDirectory& directory, std::uint32_t node, const StoreEntry& entry) {
    if (entry.kind == StoreEntry::Kind::add_learner) {
        // who joins was handed the members of the day, and replays the log from its beginning
        const bool known = std::ranges::any_of(
            directory.members, [&](const StoreMember& member) { return member.id == entry.id; });
        // forcing drops members without an entry of the log
        const bool gone = std::ranges::find(directory.removed, entry.id) != directory.removed.end();
        if (!known && !gone) directory.members.push_back(StoreMember{entry.id, entry.node, true});
    } else if (entry.kind == StoreEntry::Kind::promote) {
        for (StoreMember& member : directory.members) {
            if (member.id == entry.id) member.learner = false;
        }
    } else {
        std::erase_if(directory.members, [&](const StoreMember& member) { return member.id == entry.id; });
        directory.removed.push_back(entry.id);
        if (entry.id == directory.member_id) {
            processes_[node].rejected = true;
            step_down(node, true);
        }
    }
    counters_.add("store.member_changed");
}

void StoreModel::put(StoreDirectory& directory, std::uint32_t node, const std::string& key,
                     const std::optional<std::string>& value, std::uint64_t lease) {
    StoreState& state = directory.state;
    cluster::KeyChange change;
    change.key = key;
    change.mod_revision = state.revision;
    if (value) {
        StoreState::Value& slot = state.values[key];
        if (slot.create_revision == 0) slot.create_revision = state.revision;
        slot.mod_revision = state.revision;
        slot.value = *value;
        slot.lease = lease;
        change.value = value;
        change.create_revision = slot.create_revision;
    } else {
        state.values.erase(key);
    }
    changes_[node].push_back(std::move(change));
}

bool StoreModel::apply_txn(StoreDirectory& directory, std::uint32_t node, const cluster::Txn& txn) {
    StoreState& state = directory.state;
    for (const cluster::Compare& compare : txn.compares) {
        const auto found = state.values.find(compare.key);
        const bool there = found != state.values.end();
        bool holds = false;
        switch (compare.kind) {
            case cluster::CompareKind::mod_revision:
                holds = (there ? found->second.mod_revision : 0) == compare.revision;
                break;
            case cluster::CompareKind::create_revision:
                holds = (there ? found->second.create_revision : 0) == compare.revision;
                break;
            case cluster::CompareKind::value: holds = there && found->second.value == compare.value; break;
        }
        if (!holds) return false;
    }
    for (const cluster::Put& one : txn.puts) {
        if (one.lease != 0 && !state.leases.contains(one.lease)) return false;  // etcd: lease not found
    }
    const bool deletes_something =
        std::ranges::any_of(txn.deletes, [&](const std::string& key) { return state.values.contains(key); });
    if (txn.puts.empty() && !deletes_something) return true;
    if (landing_) landing_(txn, state);
    ++state.revision;
    const std::size_t first = changes_[node].size();
    for (const cluster::Put& one : txn.puts) put(directory, node, one.key, one.value, one.lease);
    for (const std::string& key : txn.deletes) {
        if (state.values.contains(key)) put(directory, node, key, std::nullopt, 0);
    }
    if (applied_) applied_(node, state.revision, std::span(changes_[node]).subspan(first));
    if (changes_[node].size() > kKeptChanges) {
        compacted_[node] = changes_[node][kKeptChanges / 2].mod_revision;
        changes_[node].erase(changes_[node].begin(), changes_[node].begin() + kKeptChanges / 2 + 1);
    }
    return true;
}

void StoreModel::expire_leases(std::uint32_t leader) {
    for (const auto& [id, end] : std::map<std::uint64_t, Instant>(processes_[leader].lease_ends)) {
        if (end > tasks_.now()) continue;
        processes_[leader].lease_ends.erase(id);
        counters_.add("store.lease_expired");
        StoreEntry entry;
        entry.kind = StoreEntry::Kind::revoke_lease;
        entry.id = id;
        propose(leader, entry);
    }
}

}  // namespace gemel::sim
