// gemel-blockd: mirrors volumes between two nodes and serves them over NBD to whoever holds the lease.
#include <algorithm>
#include <cstdio>
#include <pthread.h>
#include <signal.h>
#include <thread>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "adapters/config/host_incarnation.hpp"
#include "adapters/log/log.hpp"
#include "daemons/blockd/blockd.hpp"
#include "daemons/blockd/inspect.hpp"

namespace {

int inspect_file(const std::string& path) {
    const auto text = gemel::blockd::inspect(path);
    if (!text) {
        std::fprintf(stderr, "gemel-blockd: %s\n", text.error().message.c_str());
        return 1;
    }
    std::fputs(text->c_str(), stdout);
    return 0;
}

int serve(const std::string& config_file, unsigned reactors) {
    gemel::log::set_up("gemel-blockd");
    auto config = gemel::load_node_config(config_file);
    if (!config) {
        gemel::log::error(config.error().message);
        return 1;
    }
    const auto incarnation = gemel::host_incarnation(config->run_dir);
    if (!incarnation) {
        gemel::log::error(incarnation.error().message);
        return 1;
    }
    // Before any thread exists: SIGTERM and SIGINT are taken by one thread only.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    const std::string name = config->name;
    gemel::blockd::BlockdOptions options;
    options.config = std::move(*config);
    options.incarnation = *incarnation;
    // the guests need the other processors
    options.reactors = reactors != 0 ? reactors : std::clamp(std::thread::hardware_concurrency() / 4, 1U, 4U);
    auto daemon = gemel::blockd::Blockd::create(std::move(options));
    if (!daemon) {
        gemel::log::error(daemon.error().message);
        return 1;
    }
    std::thread([&signals, &daemon] {
        int signal = 0;
        sigwait(&signals, &signal);
        gemel::log::info("asked to stop");
        (*daemon)->stop();
    }).detach();
    gemel::log::info(fmt::format("serves the volumes of {}", name));
    (*daemon)->run();
    gemel::log::info("stopped");
    // the thread above may still wait for a signal
    std::fflush(nullptr);
    std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app{"gemel-blockd: mirrors volumes between two nodes and serves them over NBD"};
    std::string config_file = "/etc/gemel/node.toml";
    std::string inspected;
    unsigned reactors = 0;
    app.add_option("--reactors", reactors,
                   "threads that serve volumes, each volume lives on one of them (default: a quarter of the "
                   "processors)")
        ->check(CLI::Range(1U, 64U));
    auto* config =
        app.add_option("--config", config_file, "this node's configuration")->capture_default_str();
    app.add_option("--inspect", inspected, "print all metadata of a replica's file or device, and end")
        ->excludes(config);
    CLI11_PARSE(app, argc, argv);
    return inspected.empty() ? serve(config_file, reactors) : inspect_file(inspected);
}
