// Daemon: one node's control plane. Joins the pure machine (core/cluster/node.hpp) with its drivers and owns
// the one thread on which it lives. Nothing is decided here.
#pragma once

#include <memory>

#include "base/error.hpp"
#include "daemons/clusterd/settings.hpp"

namespace gemel::clusterd {

class Daemon {
  public:
    explicit Daemon(Settings settings);
    ~Daemon();
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;

    // Runs until stop(). Error: it could not begin (a socket in use, a damaged state directory).
    Status run();
    // Any thread. The node goes on: guests, volumes and the store outlive this process, and its end proves
    // nothing.
    void stop();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::clusterd
