// Running another program: with its output collected (qemu-img), or on our own terminal (a command of the
// user).
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace gemel::cli {

struct ChildOutcome {
    int exit_code = 0;   // 128 + signal where a signal ended it
    std::string output;  // the last 64 KiB
    std::string errors;  // the same
};

// Runs argv (found in PATH) and waits. Its own process group, so that Ctrl-C reaches us first. on_output sees
// each piece of its standard output. keep_going is asked about ten times a second; false ends the child with
// SIGTERM. unavailable: it could not be started.
Result<ChildOutcome> run_child(const std::vector<std::string>& argv,
                               const std::function<void(const std::string&)>& on_output,
                               const std::function<bool()>& keep_going);

// Runs argv with our input and output and these variables added to the environment.
Result<int> run_attached(const std::vector<std::string>& argv,
                         const std::vector<std::pair<std::string, std::string>>& environment);

}  // namespace gemel::cli
