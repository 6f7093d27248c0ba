// Terminal: where words go. Results on standard output, progress, notes and questions on standard error, so
// that a pipe gets results only. Colours only on a terminal and without NO_COLOR. Progress appears when a
// wait has lasted two seconds: one rewritten line on a terminal, else a line at each new step and every ten
// seconds.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/error.hpp"

namespace gemel::cli {

class Terminal {
  public:
    Terminal();
    bool input_is_terminal() const { return input_is_terminal_; }
    bool output_is_terminal() const { return output_is_terminal_; }
    bool output_colours() const { return output_is_terminal_ && colours_wanted_; }
    bool error_colours() const { return error_is_terminal_ && colours_wanted_; }
    // of the output's terminal, now; 0 where it is none
    int rows() const;
    int columns() const;
    // nobody reads standard output any more: what prints without end stops
    bool output_gone() const { return output_gone_; }

    void print(const std::string& text);  // to standard output, as it is
    void note(const std::string& line);   // to standard error, a newline is added
    // one line typed by the user; failed_precondition at the end of input
    Result<std::string> ask(const std::string& question);

  private:
    bool input_is_terminal_;
    bool output_is_terminal_;
    bool error_is_terminal_;
    bool colours_wanted_;
    bool output_gone_ = false;
};

// The terminal's other screen, without a cursor, for what is drawn again and again; what was there before
// comes back when it is destroyed. Only for an output that is a terminal.
class FullScreen {
  public:
    explicit FullScreen(Terminal& terminal);
    FullScreen(const FullScreen&) = delete;
    FullScreen& operator=(const FullScreen&) = delete;
    ~FullScreen();
    // From the top, cut to the terminal's rows and columns; what cannot be shown is named in the last row.
    void draw(const std::string& text);

  private:
    Terminal& terminal_;
};

// Shown from two seconds after its making, gone when it is destroyed.
class Progress {
  public:
    explicit Progress(Terminal& terminal);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();
    // step: a few words that stay the same while it goes on; detail: what changes (percent, rate, seconds)
    void show(const std::string& step, const std::string& detail);
    // Takes its line off the terminal, so that something else can be written; the next show() puts it back.
    void clear();

  private:
    Terminal& terminal_;
    std::chrono::steady_clock::time_point begun_;
    std::chrono::steady_clock::time_point last_line_;
    std::string last_step_;
    bool shown_ = false;
    bool error_is_terminal_;
};

// Interrupts (SIGINT, SIGTERM) are noted, not obeyed at once: waits look here and undo what they began.
void catch_interrupts();
bool interrupted();
// returns early when interrupted
void wait_ms(int ms);
// Returns early also where the terminal's size has changed since the last call; no signal is missed, however
// long the wait.
void wait_for_redraw(int ms);

}  // namespace gemel::cli
