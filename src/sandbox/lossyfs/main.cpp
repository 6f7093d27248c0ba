// gemel-lossyfs BACKING MOUNTPOINT --seed=N [--mount-namespace=FILE]: the sandbox's disk that loses unsynced
// writes.
//
// Runs in the foreground and prints "mounted" when the file system can be used. SIGUSR1, or the end of the
// mount's namespace, is a power cut: a part of what is unsynced, drawn from the seed, is taken back in
// BACKING, a line says what was lost, and the process ends. SIGTERM ends it without loss. A trash directory
// BACKING.trash lives meanwhile.
#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <optional>
#include <sched.h>
#include <string>
#include <string_view>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <fmt/core.h>

#include "sandbox/lossyfs/operations.hpp"
#include "sandbox/lossyfs/tree.hpp"

namespace {

using gemel::lossyfs::CutReport;
using gemel::lossyfs::Tree;

struct Options {
    std::string backing;
    std::string mountpoint;
    std::string mount_namespace;
    std::uint64_t seed = 0;
    bool ignore_syncs = false;
};

std::optional<Options> parse(int argc, char** argv) {
    Options options;
    bool has_seed = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        if (word.starts_with("--seed=")) {
            char* end = nullptr;
            options.seed = std::strtoull(argv[i] + 7, &end, 10);
            has_seed = end != argv[i] + 7 && *end == '\0';
        } else if (word.starts_with("--mount-namespace=")) {
            options.mount_namespace = word.substr(18);
        } else if (word == "--ignore-syncs") {
            options.ignore_syncs = true;
        } else if (word.starts_with("--")) {
            return std::nullopt;
        } else if (options.backing.empty()) {
            options.backing = word;
        } else if (options.mountpoint.empty()) {
            options.mountpoint = word;
        } else {
            return std::nullopt;
        }
    }
    if (!has_seed || options.mountpoint.empty()) return std::nullopt;
    return options;
}

int fail(std::string_view what) {
    fmt::print(stderr, "gemel-lossyfs: {}: {}\n", what, std::strerror(errno));
    return 1;
}

// In a child of its own, because only the mount belongs into the other namespace; paths and /proc stay this
// machine's.
bool mount_in_namespace(int fuse_fd, const Options& options) {
    const pid_t child = ::fork();
    if (child == 0) {
        if (!options.mount_namespace.empty()) {
            const int target = ::open(options.mount_namespace.c_str(), O_RDONLY | O_CLOEXEC);
            if (target < 0 || ::setns(target, CLONE_NEWNS) != 0) ::_exit(fail(options.mount_namespace));
        }
        const std::string data =
            fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", fuse_fd);
        const int mounted = ::mount("gemel-lossyfs", options.mountpoint.c_str(), "fuse.gemel-lossyfs",
                                    MS_NOSUID | MS_NODEV, data.c_str());
        ::_exit(mounted == 0 ? 0 : fail(options.mountpoint));
    }
    int status = 0;
    return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
}

// Signals go to one thread; all others have them blocked.
void watch_signals(Tree& tree, std::uint64_t seed, const sigset_t& signals, const std::string& trash) {
    int number = 0;
    while (::sigwait(&signals, &number) != 0) {
    }
    if (number == SIGUSR1) {
        const CutReport report = tree.power_cut(seed);
        fmt::print(
            stderr,
            "power cut: seed {}, {} of {} unsynced sectors lost in {} files, {} changes of names lost\n",
            seed, report.lost_sectors, report.unsynced_sectors, report.files_with_loss, report.changes_lost);
    }
    ::rmdir(trash.c_str());
    ::_exit(0);
}

int serve(fuse_session* session, int fuse_fd, const Options& options) {
    if (!mount_in_namespace(fuse_fd, options)) return 1;
    if (fuse_session_mount(session, fmt::format("/dev/fd/{}", fuse_fd).c_str()) != 0) return fail("fuse");
    fmt::print("mounted\n");
    std::fflush(stdout);
    fuse_loop_config config{};
    config.clone_fd = 0;
    config.max_idle_threads = 10;
    fuse_session_loop_mt(session, &config);
    // The mount is gone because its last process is: that is a power cut. The signal's thread does it, once.
    ::kill(::getpid(), SIGUSR1);
    for (;;) ::pause();
}

}  // namespace

int main(int argc, char** argv) {
    const auto options = parse(argc, argv);
    if (!options) {
        fmt::print(
            stderr,
            "usage: gemel-lossyfs --seed=N [--mount-namespace=/proc/PID/ns/mnt] [--ignore-syncs] BACKING "
            "MOUNTPOINT\n");
        return 2;
    }
    struct stat info {};
    if (::stat(options->backing.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
        errno = ENOTDIR;
        return fail(options->backing + " must be a directory");
    }
    const std::string trash = options->backing + ".trash";
    if (::mkdir(trash.c_str(), 0700) != 0 && errno != EEXIST) return fail(trash);
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        ::setrlimit(RLIMIT_NOFILE, &files);
    }
    ::umask(0);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGUSR1);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);

    Tree tree(options->backing, trash, options->ignore_syncs);
    const int fuse_fd = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse_fd < 0) return fail("/dev/fuse");
    std::array<char*, 1> arguments{argv[0]};
    fuse_args args = FUSE_ARGS_INIT(1, arguments.data());
    const fuse_lowlevel_ops table = gemel::lossyfs::operations();
    fuse_session* session = fuse_session_new(&args, &table, sizeof table, &tree);
    if (session == nullptr) return fail("fuse session");
    std::thread watcher(watch_signals, std::ref(tree), options->seed, std::cref(signals), std::cref(trash));
    const int result = serve(session, fuse_fd, *options);
    if (result != 0) {
        ::rmdir(trash.c_str());
        ::_exit(result);
    }
    watcher.join();
    return result;
}
