// What clients of the store model see: requests that find a leader or not, replies that come or not, watches.
#include <algorithm>
#include <utility>

#include "sim/world/store.hpp"

namespace gemel::sim {
namespace {

constexpr Duration kClientTimeout = seconds(1);  // as the daemon has it

}  // namespace

bool StoreModel::answers(std::uint32_t asker, std::uint32_t member) const {
    if (!alive(member)) return false;
    return asker == member ||
           (network_.passes(Cable::control, asker, member) && network_.passes(Cable::control, member, asker));
}

std::optional<std::uint32_t> StoreModel::endpoint(std::uint32_t node) const {
    // The own one first; one without a leader has failed lately and comes after those that have one.
    std::optional<std::uint32_t> without;
    for (std::uint32_t step = 0; step <= kNodes; ++step) {
        const std::uint32_t member = step == 0 ? node : step - 1;
        if ((step > 0 && member == node) || !answers(node, member) || processes_[member].rejected) continue;
        if (leader_of(member)) return member;
        if (!without) without = member;
    }
    return without;
}

bool StoreModel::reply_lost() {
    const bool lost = lost_replies_percent_ > 0 && random_.chance(lost_replies_percent_, 100);
    if (lost) counters_.add("store.lost_reply");
    return lost;
}

// The request travels to the member, and from there to the leader that member knows; it waits for one for a
// while.
void StoreModel::with_leader(std::uint32_t node, std::function<void(const Route&)> then,
                             std::function<void()> failed) {
    const auto member = endpoint(node);
    if (!member) {
        tasks_.after(milliseconds(300), std::move(failed));
        return;
    }
    const auto leader = leader_of(*member);
    if (!leader) {
        tasks_.after(kClientTimeout, std::move(failed));
        return;
    }
    network_.send(Cable::control, node, *member,
                  [this, route = Route{node, *member, *leader}, then = std::move(then)] {
                      if (!alive(route.member)) return;
                      network_.send(Cable::control, route.member, route.leader, [this, route, then] {
                          if (alive(route.leader) && processes_[route.leader].leader) then(route);
                      });
                  });
}

void StoreModel::answer(const Route& route, std::function<void()> what) {
    if (route.member == route.leader || route.member == route.node) {
        network_.send(Cable::control, route.leader, route.node, std::move(what));
        return;
    }
    network_.send(Cable::control, route.leader, route.member, [this, route, what = std::move(what)] {
        if (alive(route.member)) network_.send(Cable::control, route.member, route.node, what);
    });
}

// once
bool StoreModel::Catch::takes(std::uint32_t from, const cluster::Txn& txn) {
    if (!which || from != node || !which(txn)) return false;
    which = nullptr;
    return true;
}

// Whoever sent it has stopped waiting for the reply long ago.
void StoreModel::release_held() {
    if (!held_) return;
    const auto held = *std::exchange(held_, std::nullopt);
    submit(held.first, held.second, [](cluster::TxnOutcome, std::uint64_t) {});
}

void StoreModel::submit(std::uint32_t node, const cluster::Txn& txn, TxnReply reply) {
    const bool held = hold_.takes(node, txn);
    if (held || lose_.takes(node, txn)) {
        tasks_.after(kClientTimeout, [reply = std::move(reply)] { reply(cluster::TxnOutcome::unknown, 0); });
        if (!held) return submit(node, txn, [](cluster::TxnOutcome, std::uint64_t) {});
        held_ = {node, txn};
        return;
    }
    auto answered = std::make_shared<bool>(false);
    const auto once = [answered, reply = std::move(reply)](cluster::TxnOutcome outcome,
                                                           std::uint64_t revision) {
        if (std::exchange(*answered, true)) return;
        reply(outcome, revision);
    };
    tasks_.after(kClientTimeout, [once] { once(cluster::TxnOutcome::unknown, 0); });
    with_leader(
        node,
        [this, txn, once](const Route& route) {
            const std::uint32_t leader = route.leader;
            StoreEntry entry;
            entry.kind = StoreEntry::Kind::txn;
            entry.txn = txn;
            entry.number = next_request_++;
            processes_[leader].waiting[entry.number] = [this, route, once](cluster::TxnOutcome outcome,
                                                                           std::uint64_t revision) {
                if (reply_lost()) return;
                answer(route, [once, outcome, revision] { once(outcome, revision); });
            };
            propose(leader, std::move(entry));
        },
        [this, once] {
            counters_.add("store.no_quorum");
            once(cluster::TxnOutcome::unknown, 0);
        });
}

void StoreModel::read(std::uint32_t node, std::vector<std::string> keys, bool prefix, ReadReply reply) {
    auto answered = std::make_shared<bool>(false);
    const auto once = [answered, reply = std::move(reply)](bool ok, std::uint64_t revision,
                                                           std::vector<cluster::KeyValue> values) {
        if (std::exchange(*answered, true)) return;
        reply(ok, revision, std::move(values));
    };
    tasks_.after(kClientTimeout, [once] { once(false, 0, {}); });
    with_leader(
        node,
        [this, keys = std::move(keys), prefix, once](const Route& route) {
            const std::uint32_t leader = route.leader;
            // the leader makes sure that it still is: a round to a majority
            if (confirm(leader) < majority(*directories_[leader])) return;
            const StoreDirectory& directory = *directories_[leader];
            if (directory.commit == 0 || directory.log[directory.commit - 1]->term != directory.term) return;
            std::vector<cluster::KeyValue> values;
            for (const auto& [key, value] : directory.state.values) {
                const bool wanted = std::ranges::any_of(
                    keys, [&](const std::string& k) { return prefix ? key.starts_with(k) : key == k; });
                if (wanted)
                    values.push_back(
                        cluster::KeyValue{key, value.value, value.mod_revision, value.create_revision});
            }
            if (reply_lost()) return;
            answer(route, [once, revision = directory.state.revision, values = std::move(values)] {
                once(true, revision, values);
            });
        },
        [once] { once(false, 0, {}); });
}

void StoreModel::grant_lease(std::uint32_t node, std::uint32_t ttl_s,
                             std::function<void(std::uint64_t)> reply) {
    const std::uint64_t id = next_id_++;
    auto answered = std::make_shared<bool>(false);
    const auto once = [answered, id, reply = std::move(reply)](bool ok) {
        if (std::exchange(*answered, true)) return;
        reply(ok ? id : 0);
    };
    tasks_.after(kClientTimeout, [once] { once(false); });
    with_leader(
        node,
        [this, id, ttl_s, once](const Route& route) {
            const std::uint32_t leader = route.leader;
            StoreEntry entry;
            entry.kind = StoreEntry::Kind::grant_lease;
            entry.id = id;
            entry.ttl_s = ttl_s;
            entry.number = next_request_++;
            processes_[leader].waiting_other[entry.number] = [this, route, once](bool ok) {
                answer(route, [once, ok] { once(ok); });
            };
            propose(leader, std::move(entry));
        },
        [once] { once(false); });
}

void StoreModel::keep_alive(std::uint32_t node, std::uint64_t lease, std::function<void(bool)> reply) {
    with_leader(
        node,
        [this, lease, reply](const Route& route) {
            const std::uint32_t leader = route.leader;
            Process& process = processes_[leader];
            const auto known = directories_[leader]->state.leases.find(lease);
            const bool there = known != directories_[leader]->state.leases.end();
            if (there) process.lease_ends[lease] = tasks_.now() + seconds(known->second);
            answer(route, [reply, there] { reply(there); });
        },
        [] {});
}

void StoreModel::revoke_lease(std::uint32_t node, std::uint64_t lease) {
    with_leader(
        node,
        [this, lease](const Route& route) {
            const std::uint32_t leader = route.leader;
            StoreEntry entry;
            entry.kind = StoreEntry::Kind::revoke_lease;
            entry.id = lease;
            propose(leader, std::move(entry));
        },
        [] {});
}

void StoreModel::change_member(std::uint32_t node, StoreEntry::Kind kind, std::uint64_t id,
                               std::uint32_t which, std::function<void(bool)> reply) {
    auto answered = std::make_shared<bool>(false);
    const auto once = [answered, reply = std::move(reply)](bool ok) {
        if (!std::exchange(*answered, true)) reply(ok);
    };
    tasks_.after(kClientTimeout, [once] { once(false); });
    with_leader(
        node,
        [this, kind, id, which, once](const Route& route) {
            const std::uint32_t leader = route.leader;
            const StoreDirectory& directory = *directories_[leader];
            const bool present = std::ranges::any_of(directory.members, [&](const StoreMember& m) {
                return kind == StoreEntry::Kind::add_learner ? m.node == which : m.id == id;
            });
            if (kind == StoreEntry::Kind::add_learner ? present : !present) return once(false);
            if (kind == StoreEntry::Kind::promote && !learner_ready(which)) return once(false);
            StoreEntry entry;
            entry.kind = kind;
            entry.id = kind == StoreEntry::Kind::add_learner ? next_id_++ : id;
            entry.node = which;
            entry.number = next_request_++;
            processes_[leader].waiting_other[entry.number] = [this, route, once](bool ok) {
                answer(route, [once, ok] { once(ok); });
            };
            propose(leader, std::move(entry));
        },
        [once] { once(false); });
}

// ---- watches
// -----------------------------------------------------------------------------------------------------

void StoreModel::watch(std::uint32_t node, std::uint64_t revision, WatchEvents events,
                       std::function<void()> lost) {
    const auto member = endpoint(node);
    if (!member || revision < compacted_[*member]) {
        if (member) counters_.add("store.watch_compacted");
        tasks_.after(milliseconds(100), std::move(lost));
        return;
    }
    const std::uint64_t number = watchers_[node].number + 1;
    watchers_[node] =
        Watcher{true, number, revision + 1, *member, std::move(events), std::move(lost), tasks_.now()};
    feed_watchers(*member);
}

void StoreModel::unwatch(std::uint32_t node) {
    const std::uint64_t number = watchers_[node].number + 1;
    watchers_[node] = Watcher{};
    watchers_[node].number = number;
}

void StoreModel::feed_watchers(std::uint32_t node) {
    for (std::uint32_t watcher = 0; watcher < kNodes; ++watcher) {
        Watcher& one = watchers_[watcher];
        if (!one.active || one.member != node) continue;
        if (changes_[node].empty() || changes_[node].back().mod_revision < one.next_revision) continue;
        const Duration lag = slow_watches_ && random_.chance(1, 2) ? milliseconds(random_.between(200, 5000))
                                                                   : microseconds(random_.between(200, 3000));
        tasks_.after(lag, [this, watcher, number = one.number] { deliver_watch(watcher, number); });
    }
}

void StoreModel::deliver_watch(std::uint32_t watcher, std::uint64_t number) {
    Watcher& one = watchers_[watcher];
    if (!one.active || one.number != number) return;
    if (!answers(watcher, one.member) || one.next_revision <= compacted_[one.member]) {
        if (answers(watcher, one.member)) counters_.add("store.watch_compacted");
        const Watcher lost = std::exchange(one, Watcher{});
        one.number = number + 1;
        if (lost.lost) lost.lost();
        return;
    }
    std::vector<cluster::KeyChange> changes;
    std::uint64_t revision = 0;
    for (const cluster::KeyChange& change : changes_[one.member]) {
        if (change.mod_revision < one.next_revision) continue;
        changes.push_back(change);
        revision = change.mod_revision;
    }
    if (changes.empty()) return;
    one.next_revision = revision + 1;
    const WatchEvents events = one.events;
    events(revision, std::move(changes));
}

}  // namespace gemel::sim
