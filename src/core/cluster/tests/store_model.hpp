// StoreModel: a linearizable map with etcd's transactions, for unit tests of the control plane. No network,
// no loss: the tests decide what is answered. The simulator has its own, harder model.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/cluster/interface.hpp"

namespace gemel::cluster::testing {

class StoreModel {
  public:
    bool apply(const Txn& txn) {
        for (const auto& compare : txn.compares) {
            const auto at = map_.find(compare.key);
            const bool there = at != map_.end();
            bool equal = false;
            switch (compare.kind) {
                case CompareKind::mod_revision:
                    equal = (there ? at->second.mod_revision : 0) == compare.revision;
                    break;
                case CompareKind::create_revision:
                    equal = (there ? at->second.create_revision : 0) == compare.revision;
                    break;
                case CompareKind::value: equal = there && at->second.value == compare.value; break;
            }
            if (!equal) return false;
        }
        ++revision_;
        for (const auto& key : txn.deletes) {
            if (map_.erase(key) != 0) changes_.push_back({key, std::nullopt, revision_, 0});
        }
        for (const auto& put : txn.puts) {
            auto& slot = map_[put.key];
            if (slot.create_revision == 0) slot.create_revision = revision_;
            slot.key = put.key;
            slot.value = put.value;
            slot.mod_revision = revision_;
            changes_.push_back({put.key, put.value, revision_, slot.create_revision});
        }
        return true;
    }
    ReadDone read(const StoreRead& read, Instant sent_at) const {
        ReadDone done{read.tag, true, sent_at, revision_, {}};
        for (const auto& key : read.keys) {
            for (const auto& [name, value] : map_) {
                if (read.prefix ? name.compare(0, key.size(), key) == 0 : name == key)
                    done.values.push_back(value);
            }
        }
        return done;
    }
    TableSnapshot snapshot() const {
        TableSnapshot all{revision_, {}};
        for (const auto& [name, value] : map_) all.all.push_back(value);
        return all;
    }
    // changes after `revision`, in order
    WatchEvents since(std::uint64_t revision) const {
        WatchEvents events{revision_, {}};
        for (const auto& change : changes_) {
            if (change.mod_revision > revision) events.changes.push_back(change);
        }
        return events;
    }
    std::uint64_t revision() const { return revision_; }
    const KeyValue* find(const std::string& key) const {
        const auto at = map_.find(key);
        return at == map_.end() ? nullptr : &at->second;
    }

  private:
    std::map<std::string, KeyValue> map_;
    std::vector<KeyChange> changes_;
    std::uint64_t revision_ = 1;
};

}  // namespace gemel::cluster::testing
