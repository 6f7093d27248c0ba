// What is asked of etcd and what it answers, as plain values. Keys and values are bytes; revisions are
// etcd's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace gemel::etcd {

struct KeyValue {
    std::string key;
    std::string value;
    std::int64_t create_revision = 0;
    std::int64_t mod_revision = 0;
    std::int64_t version = 0;
    std::int64_t lease = 0;
};

// One condition of a transaction. A key that does not exist has mod_revision, create_revision and version 0.
struct Compare {
    enum class Target { mod_revision, create_revision, version, value };
    enum class Relation { equal, not_equal, greater, less };
    std::string key;
    Target target = Target::mod_revision;
    Relation relation = Relation::equal;
    std::int64_t number = 0;
    std::string value{};

    static Compare revision_is(std::string key, std::int64_t revision) {
        return {std::move(key), Target::mod_revision, Relation::equal, revision};
    }
    static Compare absent(std::string key) { return revision_is(std::move(key), 0); }
    static Compare value_is(std::string key, std::string value) {
        return {std::move(key), Target::value, Relation::equal, 0, std::move(value)};
    }
};

// One step of a transaction. range_end: "" one key; prefix_end(key) all keys that begin with key.
struct Step {
    enum class Kind { put, remove, range };
    Kind kind = Kind::range;
    std::string key;
    std::string value{};
    std::string range_end{};
    std::int64_t lease = 0;

    static Step put(std::string key, std::string value, std::int64_t lease = 0) {
        return {Kind::put, std::move(key), std::move(value), "", lease};
    }
    static Step remove(std::string key) { return {Kind::remove, std::move(key)}; }
    static Step remove_prefix(std::string prefix);
    static Step get(std::string key) { return {Kind::range, std::move(key)}; }
};

// The smallest key after all that begin with `prefix`.
std::string prefix_end(std::string prefix);

struct Transaction {
    std::vector<Compare> compares;
    std::vector<Step> then;
    std::vector<Step> otherwise;
};

// Of which store and member an answer came.
struct Header {
    std::uint64_t cluster_id = 0;
    std::uint64_t member_id = 0;
    std::int64_t revision = 0;
    std::uint64_t raft_term = 0;
};

struct RangeResult {
    Header header;
    std::vector<KeyValue> pairs;
};

// committed       the compares held, every step is done and decided by the quorum that answered
// compare_failed  decided too: the other steps were done
// not_done        certain: nothing of it reached the store, or the store refused it as malformed or too large
// unknown         it may be done, or be done later; read it back by its operation id
enum class Outcome { committed, compare_failed, not_done, unknown };
struct TransactionResult {
    Outcome outcome = Outcome::unknown;
    Header header;
    std::vector<std::vector<KeyValue>> ranges;  // of the range steps that were done, in order
    Error error;                                // not_done, unknown: why
};

struct Member {
    std::uint64_t id = 0;
    std::string name;  // empty: added, not yet started
    std::vector<std::string> peer_urls;
    std::vector<std::string> client_urls;
    bool learner = false;
};

struct MemberStatus {
    Header header;
    std::uint64_t leader = 0;  // 0: none known
    std::uint64_t raft_index = 0;
    std::uint64_t raft_applied_index = 0;
    std::int64_t database_bytes = 0;
    bool learner = false;
    std::string version;
    std::vector<std::string> errors;  // "NOSPACE", "CORRUPT" alarms
};

struct WatchEvent {
    bool removed = false;
    KeyValue pair;  // removed: key and mod_revision only
};

}  // namespace gemel::etcd
