#include "adapters/fence_agents/run_program.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

namespace gemel::fence {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kKeptOutput = 4096;
constexpr std::size_t kMaxInput = 32 << 10;  // less than a pipe holds: writing it never blocks

struct Pipes {
    int in[2] = {-1, -1};
    int out[2] = {-1, -1};
    int report[2] = {-1, -1};  // errno of a failed exec
    ~Pipes() {
        for (int* fd : {&in[0], &in[1], &out[0], &out[1], &report[0], &report[1]}) close_one(*fd);
    }
    static void close_one(int& fd) {
        if (fd >= 0) ::close(fd);
        fd = -1;
    }
    bool open() {
        return ::pipe2(in, O_CLOEXEC) == 0 && ::pipe2(out, O_CLOEXEC) == 0 && ::pipe2(report, O_CLOEXEC) == 0;
    }
};

[[noreturn]] void become(const Pipes& pipes, char* const* argv, char* const* environment) {
    ::setpgid(0, 0);
    ::dup2(pipes.in[0], 0);
    ::dup2(pipes.out[1], 1);
    ::dup2(pipes.out[1], 2);
    ::dup2(pipes.report[1], 3);
    ::fcntl(3, F_SETFD, FD_CLOEXEC);
    ::syscall(SYS_close_range, 4U, ~0U, 0U);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGPIPE, SIG_DFL);
    ::execvpe(argv[0], argv, environment);
    const int why = errno;
    [[maybe_unused]] const auto told = ::write(3, &why, sizeof why);
    ::_exit(127);
}

void keep(std::string& output, const char* data, std::size_t size) {
    output.append(data, size);
    if (output.size() > kKeptOutput) output.erase(0, output.size() - kKeptOutput);
}

int left_ms(Clock::time_point deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    return left > 0 ? static_cast<int>(left) + 1 : 0;
}

// Reads until the end of the output or the deadline; then waits for the process, still within the deadline.
// False: time is up.
bool collect(int out, int pidfd, Clock::time_point deadline, std::string& output) {
    std::array<char, 4096> buffer{};
    bool open = true;
    while (true) {
        std::array<pollfd, 2> wait{{{pidfd, POLLIN, 0}, {open ? out : -1, POLLIN, 0}}};
        const int ready = ::poll(wait.data(), wait.size(), left_ms(deadline));
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return false;
        if (wait[1].revents != 0) {
            const ssize_t got = ::read(out, buffer.data(), buffer.size());
            if (got > 0) keep(output, buffer.data(), static_cast<std::size_t>(got));
            if (got == 0) open = false;
            continue;
        }
        // Ended. What it left running in the background may hold the pipe: not waited for.
        if (wait[0].revents != 0) return true;
    }
}

}  // namespace

Result<ProgramResult> run_program(const std::vector<std::string>& arguments, const std::string& input,
                                  Duration timeout) {
    if (input.size() > kMaxInput)
        return fail(ErrorCode::invalid_argument, "more arguments than a program is given at once");
    Pipes pipes;
    if (!pipes.open())
        return fail(ErrorCode::io_error, "no pipes: " + std::generic_category().message(errno));
    std::vector<char*> argv;
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    std::string path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    std::string language = "LC_ALL=C";
    std::array<char*, 3> environment{path.data(), language.data(), nullptr};
    const pid_t child = ::fork();
    if (child == 0) become(pipes, argv.data(), environment.data());
    if (child < 0)
        return fail(ErrorCode::io_error,
                    "cannot start another process: " + std::generic_category().message(errno));
    ::setpgid(child, child);
    Pipes::close_one(pipes.in[0]);
    Pipes::close_one(pipes.out[1]);
    Pipes::close_one(pipes.report[1]);
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, child, 0));
    int why = 0;
    const bool not_started = ::read(pipes.report[0], &why, sizeof why) == sizeof why;
    if (!not_started) [[maybe_unused]]
        const auto sent = ::write(pipes.in[1], input.data(), input.size());
    Pipes::close_one(pipes.in[1]);
    ProgramResult result;
    const auto deadline = Clock::now() + std::chrono::nanoseconds(timeout.nanoseconds);
    result.timed_out = !not_started && !collect(pipes.out[0], pidfd, deadline, result.output);
    // The group, also after a regular end: nothing it started goes on.
    ::kill(-child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    if (pidfd >= 0) ::close(pidfd);
    if (not_started)
        return fail(ErrorCode::not_found,
                    fmt::format("{} cannot be run: {}; install it, or correct the name", arguments.front(),
                                std::generic_category().message(why)));
    if (!result.timed_out && WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
    return result;
}

}  // namespace gemel::fence
