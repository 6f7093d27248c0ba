// Keeps a copy of all keys under a prefix up to date: a full read, then a watch from the revision after it.
// Whenever the watch ends (connection, compaction, restart of the member, another store in its place) it
// reads everything again instead of resuming: a forced store may have gone back to a lower revision, where a
// resumed watch would wait in silence. Tables are small, and whoever uses them is level-triggered.
//
// A watch is silent while nothing changes, and etcd 3.4 sends no sign of life that could be asked for: so it
// is measured by what other calls see. A watch that is more than `lag_limit` behind a revision that seen()
// was told of is given up, its member put last, and everything is read anew. When the preferred member serves
// again, the watch returns to it.
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
    // Everything, as of header.revision: a linearizable read.
    std::function<void(const RangeResult&)> on_snapshot;
    // Changes in the order of their revisions; header.revision is the newest.
    std::function<void(const std::vector<WatchEvent>&, const Header&)> on_events;
    // The copy may be old from now on, until the next snapshot.
    std::function<void(const Error&)> on_lost;
};

struct WatcherOptions {
    ClientOptions client;
    std::string prefix;
    Duration read_timeout = milliseconds(1500);
    Duration retry_interval = milliseconds(200);
    Duration lag_limit = milliseconds(500);
};

class Watcher {
  public:
    Watcher(WatcherOptions options, WatcherCallbacks callbacks);
    ~Watcher();  // stops and joins
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;

    // Any thread: drop what is under way and begin anew with a full read (after the store was replaced).
    void restart();
    // Any thread: a linearizable answer had this revision of the whole store. Every change of the store must
    // be below the prefix, else a watch looks late that is not.
    void seen(std::int64_t revision);
    // Any thread, now and then: gives up a late watch, returns to the preferred member.
    void look();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::etcd
