// Runs one program to its end: input on stdin, output collected (bounded), a deadline after which its whole
// process group is killed. Blocks; any thread.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::fence {

struct ProgramResult {
    bool timed_out = false;
    int exit_code = -1;  // -1: ended by a signal, or timed out
    std::string output;  // stdout and stderr as they came, the last 4096 bytes
};

// `input` at most 32 KiB. Error: the program could not be started.
Result<ProgramResult> run_program(const std::vector<std::string>& arguments, const std::string& input,
                                  Duration timeout);

}  // namespace gemel::fence
