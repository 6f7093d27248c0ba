// Keeps a copy of all keys under a prefix up to date: a full read, then a watch from the revision after it.
// Whenever the watch ends (connection, compaction, restart of the member, another store in its place) it
// reads everything again instead of resuming: a forced store may have gone back to a lower revision, where a
// resumed watch would wait in silence. Tables are small, and whoever uses them is level-triggered.
//
// Callbacks run on the watcher's own thread, one at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapters/etcd/client.hpp"

namespace gemel::etcd {

struct WatcherCallbacks {
    // Everything, as of header.revision. `linearizable` false: no quorum answers; this is what our own member
    // had stored when it last knew better, good for showing only.
    std::function<void(const RangeResult&, bool linearizable)> on_snapshot;
    // Changes in the order of their revisions; header.revision is the newest.
    std::function<void(const std::vector<WatchEvent>&, const Header&)> on_events;
    // The copy may be old from now on, until the next snapshot.
    std::function<void(const Error&)> on_lost;
};

struct WatcherOptions {
    ClientOptions client;
    std::string prefix;
    Duration read_timeout = seconds(2);
    Duration retry_interval = milliseconds(200);
};

class Watcher {
  public:
    Watcher(WatcherOptions options, WatcherCallbacks callbacks);
    ~Watcher();  // stops and joins
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;

    // Any thread: drop what is under way and begin anew with a full read (after the store was replaced).
    void restart();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::etcd
