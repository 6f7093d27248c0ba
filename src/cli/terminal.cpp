#include "cli/terminal.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

namespace gemel::cli {

namespace {

constexpr auto kProgressAfter = std::chrono::seconds(2);
constexpr auto kProgressEvery = std::chrono::seconds(10);
volatile std::sig_atomic_t interrupt_seen = 0;
volatile std::sig_atomic_t resize_seen = 0;

void note_interrupt(int) {
    interrupt_seen = 1;
}

void note_resize(int) {
    resize_seen = 1;
}

// A line with its escape sequences, at most so many visible characters (bytes of UTF-8 that go on are none).
std::string cut_line(const std::string& line, std::size_t columns) {
    std::string out;
    std::size_t shown = 0;
    bool taken = true;
    for (std::size_t i = 0; i < line.size(); ++i) {
        if (line[i] == '\x1b') {
            const std::size_t end = line.find('m', i);
            if (end == std::string::npos) break;
            out += line.substr(i, end - i + 1);
            i = end;
            continue;
        }
        if ((static_cast<unsigned char>(line[i]) & 0xc0U) != 0x80U) taken = shown++ < columns;
        if (taken) out += line[i];  // colours that end later are taken always
    }
    return out;
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

void wait_for_redraw(int ms) {
    // Blocked between the look and the wait, so that no signal falls in between.
    sigset_t awaited;
    sigset_t before;
    sigemptyset(&awaited);
    for (const int signal : {SIGINT, SIGTERM, SIGWINCH}) sigaddset(&awaited, signal);
    sigprocmask(SIG_BLOCK, &awaited, &before);
    const timespec time{ms / 1000, static_cast<long>(ms % 1000) * 1'000'000};
    if (!interrupted() && resize_seen == 0) ppoll(nullptr, 0, &time, &before);
    resize_seen = 0;
    sigprocmask(SIG_SETMASK, &before, nullptr);
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

int Terminal::columns() const {
    winsize size{};
    if (!output_is_terminal_ || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return 0;
    return size.ws_col;
}

void Terminal::print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    if (std::fflush(stdout) != 0 && errno != EINTR && errno != EAGAIN) output_gone_ = true;
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

FullScreen::FullScreen(Terminal& terminal) : terminal_(terminal) {
    struct sigaction action {};
    action.sa_handler = note_resize;
    action.sa_flags = SA_RESTART;
    sigaction(SIGWINCH, &action, nullptr);
    terminal_.print("\x1b[?1049h\x1b[?25l");
}

FullScreen::~FullScreen() {
    terminal_.print("\x1b[?25h\x1b[?1049l");
}

void FullScreen::draw(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        lines.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    const auto rows = static_cast<std::size_t>(terminal_.rows());
    const auto columns = static_cast<std::size_t>(terminal_.columns());
    if (rows > 1 && lines.size() > rows) {
        const std::size_t hidden = lines.size() - rows + 1;
        lines.resize(rows - 1);
        lines.push_back(fmt::format("({} more lines do not fit here)", hidden));
    }
    std::string out = "\x1b[H";
    for (std::size_t i = 0; i < lines.size(); ++i) {
        // no newline after the last row: it would scroll
        out += (i == 0 ? "" : "\n") + (columns == 0 ? lines[i] : cut_line(lines[i], columns)) + "\x1b[K";
    }
    terminal_.print(out + "\x1b[J");
}

Progress::Progress(Terminal& terminal)
    : terminal_(terminal),
      begun_(std::chrono::steady_clock::now()),
      last_line_(begun_),
      error_is_terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
    clear();
}

void Progress::clear() {
    if (shown_ && error_is_terminal_) std::fputs("\r\x1b[K", stderr);
    shown_ = false;
}

void Progress::show(const std::string& step, const std::string& detail) {
    const auto now = std::chrono::steady_clock::now();
    if (now - begun_ < kProgressAfter) return;
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - begun_).count();
    const std::string line = fmt::format("{}{}{} ({} s)", step, detail.empty() ? "" : ": ", detail, seconds);
    if (error_is_terminal_) {
        fmt::print(stderr, "\r{}\x1b[K", line.substr(0, 78));
        std::fflush(stderr);
    } else if (step != last_step_ || now - last_line_ >= kProgressEvery) {
        terminal_.note(line);
        last_line_ = now;
    }
    last_step_ = step;
    shown_ = true;
}

}  // namespace gemel::cli
