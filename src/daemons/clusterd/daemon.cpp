#include "daemons/clusterd/daemon.hpp"

#include <chrono>

#include <fmt/format.h>

#include "adapters/log/log.hpp"
#include "core/cluster/node.hpp"
#include "core/ha/planner.hpp"
#include "daemons/clusterd/api_server.hpp"
#include "daemons/clusterd/blockd_driver.hpp"
#include "daemons/clusterd/guest_driver.hpp"
#include "daemons/clusterd/host_resources.hpp"
#include "daemons/clusterd/loop.hpp"
#include "daemons/clusterd/migration_driver.hpp"
#include "daemons/clusterd/peer_driver.hpp"
#include "daemons/clusterd/store_driver.hpp"

namespace gemel::clusterd {
namespace {

std::int64_t wall_ms() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

}  // namespace

struct Daemon::Impl {
    explicit Impl(Settings given)
        : settings(std::move(given)),
          sink(
              [this](cluster::Input input) { loop.post([this, input = std::move(input)] { step(input); }); }),
          node(settings.node, &ha::plan),
          guard(settings),
          guests(settings, sink),
          migrations(settings, sink),
          fences(sink),
          blockd(settings, loop, sink, [this]() -> const cluster::Tables& { return node.tables(); }),
          peers(settings, sink),
          store(settings, sink),
          api({&settings, &loop, &guests, [this]() -> cluster::ClusterNode& { return node; },
               [this](const cluster::Input& input) { step(input); },
               [this](const std::string& peer, const std::string& path) {
                   return peers.round_trip_us(peer, path);
               }}) {}

    void step(const cluster::Input& input) {
        outputs.clear();
        node.step(boot_now(), input, outputs);
        // An output's handler may post inputs, never step at once: the list stays as it is.
        auto todo = std::move(outputs);
        for (const auto& output : todo) dispatch(output);
    }
    Instant on_time();
    void dispatch(const cluster::Output& output);

    void handle(const cluster::ApiAnswer& answer) { api.handle(answer); }
    void handle(const cluster::Log& line);
    void handle(const cluster::LeaveDone& done);
    void handle(const cluster::BlockdRenew& order) {
        blockd.handle(order);
        guard.renewed(order);
    }
    template <typename Order>
    void handle(const Order& order) {
        if constexpr (requires { store.handle(order); }) {
            store.handle(order);
        } else if constexpr (requires { blockd.handle(order); }) {
            blockd.handle(order);
        } else if constexpr (requires { guests.handle(order); }) {
            guests.handle(order);
        } else if constexpr (requires { migrations.handle(order); }) {
            migrations.handle(order);
        } else if constexpr (requires { guard.handle(order); }) {
            guard.handle(order);
        } else if constexpr (requires { fences.handle(order); }) {
            fences.handle(order);
        } else {
            peers.handle(order);
        }
    }

    Settings settings;
    Loop loop;
    Sink sink;
    cluster::ClusterNode node;
    cluster::Outputs outputs;
    Instant streams_fed{};
    Instant resources_told{};
    GuardDriver guard;
    GuestDriver guests;
    MigrationDriver migrations;
    FenceDriver fences;
    BlockdDriver blockd;
    PeerDriver peers;
    StoreDriver store;
    ApiServer api;
};

void Daemon::Impl::dispatch(const cluster::Output& output) {
    std::visit([this](const auto& order) { handle(order); }, output);
}

void Daemon::Impl::handle(const cluster::Log& line) {
    if (line.severity == "info") {
        log::info(line.text);
    } else if (line.severity == "warning") {
        log::warning(line.text);
    } else if (line.severity == "debug") {
        log::debug(line.text);
    } else {
        log::error(line.text);
    }
}

void Daemon::Impl::handle(const cluster::LeaveDone& done) {
    // It stays, and stays out: a process that ended would be started again, and join.
    if (done.ok) {
        log::info(
            "this node has left the cluster cleanly; it joins again when gemel-clusterd is started anew");
    } else {
        log::error("leaving failed: " + done.detail);
    }
}

Instant Daemon::Impl::on_time() {
    constexpr Duration kStreamInterval = milliseconds(100);
    constexpr Duration kResourcesEvery = seconds(2);
    const Instant now = boot_now();
    blockd.tick(now);
    if (now >= node.next_deadline()) step(cluster::Tick{wall_ms()});
    if (now - resources_told >= kResourcesEvery) {
        resources_told = now;
        step(cluster::HostFacts{host_resources(settings.node.pools)});
    }
    if (now - streams_fed >= kStreamInterval) {
        streams_fed = now;
        api.changed(now);
    }
    return std::min(node.next_deadline(), streams_fed + kStreamInterval);
}

Daemon::Daemon(Settings settings) : impl_(std::make_unique<Impl>(std::move(settings))) {}
Daemon::~Daemon() = default;

Status Daemon::run() {
    Impl& self = *impl_;
    const auto facts = self.store.boot_facts();
    if (!facts) return tl::unexpected<Error>(facts.error());
    if (auto ok = self.api.start(); !ok) return ok;
    if (auto ok = self.peers.start(); !ok) return ok;
    log::info(fmt::format("node {} of cluster {}, incarnation {}", self.settings.file.name,
                          self.settings.file.cluster_name, self.settings.node.incarnation.to_string()));
    // Whatever they say is posted and comes after the first input.
    self.blockd.start();
    self.guard.start();
    self.guests.start();
    self.store.start();
    self.step(*facts);
    self.loop.run([&self] { return self.on_time(); });
    return {};
}

void Daemon::stop() {
    impl_->loop.stop();
}

}  // namespace gemel::clusterd
