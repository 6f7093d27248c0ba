// gemel-clusterd: the control plane of one node.
#include <cstdio>
#include <signal.h>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "adapters/config/node_config.hpp"
#include "adapters/log/log.hpp"
#include "daemons/clusterd/daemon.hpp"

namespace {

constexpr const char* kUsage =
    "usage: gemel-clusterd --config FILE\n\n"
    "The control plane of one Gemel node. FILE is node.toml (normally /etc/gemel/node.toml).\n"
    "SIGTERM ends the daemon; guests, volumes and the store go on, and its end proves nothing. To leave the\n"
    "cluster cleanly use 'gemel node leave'; gemel-leave.service does so when the host shuts down.\n";

int complain(const std::string& text) {
    std::fputs(("gemel-clusterd: " + text + "\n").c_str(), stderr);
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    std::string config = "/etc/gemel/node.toml";
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--help" || argument == "-h") {
            std::fputs(kUsage, stdout);
            return 0;
        }
        if (argument == "--version") {
            std::puts("gemel-clusterd " GEMEL_VERSION);
            return 0;
        }
        if (argument != "--config" || i + 1 >= argc) {
            std::fputs(kUsage, stderr);
            return 2;
        }
        config = argv[++i];
    }
    gemel::log::set_up("gemel-clusterd");
    // Before any thread begins, so that all of them leave the signals to the one that waits for them.
    sigset_t signals;
    ::sigemptyset(&signals);
    for (const int signal : {SIGTERM, SIGINT}) ::sigaddset(&signals, signal);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    auto file = gemel::load_node_config(config);
    if (!file) return complain(file.error().message);
    auto settings = gemel::clusterd::make_settings(std::move(*file), GEMEL_VERSION);
    if (!settings) return complain(settings.error().message);
    gemel::clusterd::Daemon daemon(std::move(*settings));
    std::thread([&daemon, signals] {
        int signal = 0;
        ::sigwait(&signals, &signal);
        daemon.stop();
    }).detach();
    if (const auto done = daemon.run(); !done) return complain(done.error().message);
    gemel::log::info("stopped; guests, volumes and the store go on");
    return 0;
}
