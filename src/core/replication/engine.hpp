// Engine: one replica of one mirrored volume, as a pure machine. It keeps promises D1-D19 as far as they
// concern one replica and its peer; who is current, who owns the lease and when it may acknowledge alone it
// is told (committed record), never decides. Attaching begins with the first step (a Tick will do).
// Single-threaded; after start-up a guest request allocates nothing. Not here: disks, sockets, clocks, the
// store (interface.hpp names the edges); the wire and its resending (core/link).
#pragma once

#include <memory>

#include "base/instant.hpp"
#include "core/replication/interface.hpp"

namespace gemel::replication {

class Core;

class Engine {
  public:
    explicit Engine(EngineConfig config);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    // Appends to `outputs`; `now` never runs backwards.
    void step(Instant now, const Input& input, Outputs& outputs);
    // A Tick is wanted at this instant at the latest.
    Instant next_deadline() const;
    View view() const;

  private:
    std::unique_ptr<Core> core_;
};

}  // namespace gemel::replication
