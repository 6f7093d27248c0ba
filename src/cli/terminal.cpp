#include "cli/terminal.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

namespace gemel::cli {

namespace {

constexpr auto kProgressAfter = std::chrono::seconds(2);
constexpr auto kProgressEvery = std::chrono::seconds(10);
volatile std::sig_atomic_t interrupt_seen = 0;

void note_interrupt(int) {
    interrupt_seen = 1;
}

}  // namespace

void catch_interrupts() {
    struct sigaction action {};
    action.sa_handler = note_interrupt;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() {
    return interrupt_seen != 0;
}

void wait_ms(int ms) {
    const timespec time{ms / 1000, static_cast<long>(ms % 1000) * 1'000'000};
    nanosleep(&time, nullptr);
}

Terminal::Terminal()
    : input_is_terminal_(isatty(STDIN_FILENO) == 1),
      output_is_terminal_(isatty(STDOUT_FILENO) == 1),
      error_is_terminal_(isatty(STDERR_FILENO) == 1),
      colours_wanted_(std::getenv("NO_COLOR") == nullptr) {}

int Terminal::rows() const {
    winsize size{};
    if (!output_is_terminal_ || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return 0;
    return size.ws_row;
}

void Terminal::print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

void Terminal::note(const std::string& line) {
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fputc('\n', stderr);
}

Result<std::string> Terminal::ask(const std::string& question) {
    std::fputs(question.c_str(), stderr);
    std::fflush(stderr);
    std::string line;
    for (;;) {
        const int c = std::getchar();
        if (c == '\n') return line;
        if (c == EOF) break;
        line += static_cast<char>(c);
    }
    std::fputc('\n', stderr);
    return fail(ErrorCode::failed_precondition,
                "an answer was expected and the input ended; nothing was changed");
}

Progress::Progress(Terminal& terminal)
    : terminal_(terminal),
      begun_(std::chrono::steady_clock::now()),
      last_line_(begun_),
      error_is_terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
    if (shown_ && error_is_terminal_) std::fputs("\r\x1b[K", stderr);
}

void Progress::show(const std::string& step, const std::string& detail) {
    const auto now = std::chrono::steady_clock::now();
    if (now - begun_ < kProgressAfter) return;
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - begun_).count();
    const std::string line =
        fmt::format("{}{}{} ({} s)", step, detail.empty() ? "" : ": ", detail, seconds).substr(0, 78);
    if (error_is_terminal_) {
        fmt::print(stderr, "\r{}\x1b[K", line);
        std::fflush(stderr);
    } else if (step != last_step_ || now - last_line_ >= kProgressEvery) {
        terminal_.note(line);
        last_line_ = now;
    }
    last_step_ = step;
    shown_ = true;
}

}  // namespace gemel::cli
