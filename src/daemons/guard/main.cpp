// gemel-guard: freezes and kills guests whose right to run has lapsed, independent of clusterd.
#include <cerrno>
#include <cstring>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <thread>

#include <CLI/CLI.hpp>

#include "adapters/config/host_incarnation.hpp"
#include "adapters/config/node_config.hpp"
#include "adapters/log/log.hpp"
#include "daemons/guard/guard_daemon.hpp"
#include "daemons/guard/locked_memory.hpp"

namespace {

// It must work when the machine is short of memory and time; where it may not have both, it says so and goes
// on.
void claim_memory_and_time() {
    if (const auto reserved = gemel::guard::reserve_memory(); !reserved)
        gemel::log::warning(reserved.error().message);
    sched_param priority{};
    priority.sched_priority = 50;
    if (::sched_setscheduler(0, SCHED_FIFO, &priority) != 0) {
        gemel::log::warning(std::string("runs without real-time priority: ") + std::strerror(errno));
    }
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"gemel-guard: freezes and kills guests whose right to run has lapsed"};
    std::string config_file = "/etc/gemel/node.toml";
    app.add_option("--config", config_file, "this node's configuration")->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    gemel::log::set_up("gemel-guard");
    const auto config = gemel::load_node_config(config_file);
    if (!config) {
        gemel::log::error(config.error().message);
        return 1;
    }
    // Before any thread exists: SIGTERM and SIGINT are taken by one thread only.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    claim_memory_and_time();
    if (const auto incarnation = gemel::host_incarnation(config->run_dir); !incarnation) {
        gemel::log::error(incarnation.error().message);
        return 1;
    }
    gemel::ha::GuardConfig guard_config;
    guard_config.lease = config->timing.lease;
    gemel::guard::GuardDaemon daemon(config->run_dir, guard_config);
    if (const auto started = daemon.start(); !started) {
        gemel::log::error(started.error().message);
        return 1;
    }
    std::thread waiter([&] {
        int signal = 0;
        sigwait(&signals, &signal);
        daemon.stop();
    });
    gemel::log::info("guards the guests of " + config->name);
    daemon.run();
    waiter.join();
    return 0;
}
