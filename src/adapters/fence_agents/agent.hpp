// Fence agents: any program of the fence-agents package, or any executable with their interface (key=value
// lines on stdin; exit code 0 done or on, 2 off for the status action, 1 failed). "Off" counts only when a
// status action said so afterwards; a time-out is a failure (promise C3). Secrets go to the agent's stdin
// and nowhere else: they are cut out of every text that leaves here. Blocks; any thread; one run at a time
// for a device is the caller's.
#pragma once

#include <map>
#include <string>

#include "base/error.hpp"
#include "base/instant.hpp"

namespace gemel::fence {

struct Device {
    std::string agent;  // fence_ipmilan, or an absolute path
    std::map<std::string, std::string> options;
    std::map<std::string, std::string> secrets;
    Duration timeout = seconds(20);  // of the whole of off, on or status
};

enum class Action { off, on, status };
enum class Outcome {
    off,        // a status action said off (after the off action, where that was asked)
    on,         // a status action said on, also where off was asked
    failed,     // the agent failed, or cannot be run
    timed_out,  // killed; the machine may be in any state
};

struct AgentResult {
    Outcome outcome = Outcome::failed;
    std::string detail;  // one line for a human, without secrets
};

AgentResult run(const Device& device, Action action);

}  // namespace gemel::fence
