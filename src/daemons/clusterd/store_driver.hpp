// The store side of the seam (docs/design/0006): transactions, reads, the watch, the election lease, the
// health of the members, and the commands that start, force and join the store. Every call returns at once;
// answers come through the sink, from threads of this driver.
#pragma once

#include <functional>
#include <memory>

#include "core/cluster/interface.hpp"
#include "daemons/clusterd/settings.hpp"

namespace gemel::clusterd {

using Sink = std::function<void(cluster::Input)>;  // any thread

class StoreDriver {
  public:
    StoreDriver(const Settings& settings, Sink sink);
    ~StoreDriver();
    StoreDriver(const StoreDriver&) = delete;
    StoreDriver& operator=(const StoreDriver&) = delete;

    // What is on disk and running now; the machine's first input. Finishes or forgets an interrupted forcing.
    Result<cluster::BootFacts> boot_facts();
    void start();  // watch and health

    void handle(const cluster::SubmitTxn& request);
    void handle(const cluster::StoreRead& request);
    void handle(const cluster::ReadTables& request);
    void handle(const cluster::GrantLease& request);
    void handle(const cluster::RevokeLease& request);
    void handle(const cluster::StoreCommand& request);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace gemel::clusterd
