// gemel-witness: the third vote of a pair, a plain etcd member without volumes or guests.
#include <cstdio>
#include <signal.h>
#include <string>
#include <thread>

#include "adapters/log/log.hpp"
#include "daemons/witness/witness.hpp"

int main(int argc, char** argv) {
    std::string file = "/etc/gemel/witness-etcd.yaml";
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--config" && i + 1 < argc) {
            file = argv[++i];
            continue;
        }
        const bool help = argument == "--help" || argument == "-h";
        std::fputs(
            "usage: gemel-witness [--config FILE]\n\nRuns the witness's etcd with FILE (normally "
            "/etc/gemel/witness-etcd.yaml). When the cluster has\nremoved this member, its store is renamed "
            "and "
            "it waits to be added again.\n",
            help ? stdout : stderr);
        return help ? 0 : 2;
    }
    gemel::log::set_up("gemel-witness");
    sigset_t signals;
    ::sigemptyset(&signals);
    for (const int signal : {SIGTERM, SIGINT}) ::sigaddset(&signals, signal);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    const auto config = gemel::witness::read_witness_config(file);
    if (!config) {
        gemel::log::error(config.error().message);
        return 1;
    }
    gemel::witness::Witness witness(*config, file);
    std::thread([&witness, signals] {
        int signal = 0;
        ::sigwait(&signals, &signal);
        witness.stop();
    }).detach();
    if (const auto done = witness.run(); !done) {
        gemel::log::error(done.error().message);
        return 1;
    }
    return 0;
}
