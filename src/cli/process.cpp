#include "cli/process.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

namespace gemel::cli {

namespace {

constexpr std::size_t kKeptBytes = 64 << 10;
constexpr int kLookMs = 100;
constexpr int kNotStarted = 127;

std::vector<char*> pointers(const std::vector<std::string>& argv) {
    std::vector<char*> out;
    for (const auto& word : argv) out.push_back(const_cast<char*>(word.c_str()));
    out.push_back(nullptr);
    return out;
}

int wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Error not_started(const std::string& program) {
    return {ErrorCode::unavailable,
            fmt::format("{} could not be started ({}): install the package that has it", program,
                        std::strerror(errno))};
}

// what an exec'd child of ours must not inherit
void restore_signals() {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
    std::signal(SIGPIPE, SIG_DFL);
}

}  // namespace

Result<ChildOutcome> run_child(const std::vector<std::string>& argv,
                               const std::function<void(const std::string&)>& on_output,
                               const std::function<bool()>& keep_going) {
    std::array<int, 2> out{};
    std::array<int, 2> err{};
    if (pipe2(out.data(), O_CLOEXEC) != 0) return tl::unexpected<Error>(not_started(argv[0]));
    if (pipe2(err.data(), O_CLOEXEC) != 0) {
        close(out[0]);
        close(out[1]);
        return tl::unexpected<Error>(not_started(argv[0]));
    }
    auto words = pointers(argv);
    const pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        // Killed with us: what copies into an export must not outlive who closes it.
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        restore_signals();
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        execvp(words[0], words.data());
        _exit(kNotStarted);
    }
    close(out[1]);
    close(err[1]);
    ChildOutcome outcome;
    std::array<pollfd, 2> waits{{{out[0], POLLIN, 0}, {err[0], POLLIN, 0}}};
    bool told_to_stop = false;
    while (child > 0 && (waits[0].fd >= 0 || waits[1].fd >= 0)) {
        if (!told_to_stop && !keep_going()) {
            kill(child, SIGTERM);
            told_to_stop = true;
        }
        if (poll(waits.data(), waits.size(), kLookMs) <= 0) continue;
        for (auto& wait : waits) {
            if (wait.fd < 0 || wait.revents == 0) continue;
            std::array<char, 4096> buffer{};
            const ssize_t got = read(wait.fd, buffer.data(), buffer.size());
            if (got <= 0) {
                wait.fd = -1;
                continue;
            }
            const std::string piece(buffer.data(), static_cast<std::size_t>(got));
            std::string& kept = &wait == &waits[0] ? outcome.output : outcome.errors;
            kept += piece;
            if (kept.size() > kKeptBytes) kept.erase(0, kept.size() - kKeptBytes);
            if (&wait == &waits[0]) on_output(piece);
        }
    }
    close(out[0]);
    close(err[0]);
    if (child < 0) return tl::unexpected<Error>(not_started(argv[0]));
    outcome.exit_code = wait_for(child);
    if (outcome.exit_code == kNotStarted && outcome.errors.empty()) {
        errno = ENOENT;
        return tl::unexpected<Error>(not_started(argv[0]));
    }
    return outcome;
}

Result<int> run_attached(const std::vector<std::string>& argv,
                         const std::vector<std::pair<std::string, std::string>>& environment) {
    auto words = pointers(argv);
    const pid_t child = fork();
    if (child < 0) return tl::unexpected<Error>(not_started(argv[0]));
    if (child == 0) {
        restore_signals();
        for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
        execvp(words[0], words.data());
        fmt::print(stderr, "gemel: {} could not be started ({})\n", argv[0], std::strerror(errno));
        _exit(kNotStarted);
    }
    return wait_for(child);
}

}  // namespace gemel::cli
