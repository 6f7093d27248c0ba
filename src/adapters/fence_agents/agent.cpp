#include "adapters/fence_agents/agent.hpp"

#include <chrono>

#include <fmt/format.h>

#include "adapters/fence_agents/run_program.hpp"

namespace gemel::fence {
namespace {

using Clock = std::chrono::steady_clock;

Result<std::string> stdin_text(const Device& device, const char* action) {
    // power_wait=0: some agents sleep for seconds after an action that a status call confirms at once.
    std::string text = fmt::format("action={}\npower_wait=0\n", action);
    for (const auto* values : {&device.options, &device.secrets}) {
        for (const auto& [key, value] : *values) {
            if (key == "action" || key == "power_wait") continue;
            const bool bad_key = key.empty() || key.find_first_of("=\n# ") != std::string::npos;
            if (bad_key || value.find('\n') != std::string::npos)
                return fail(
                    ErrorCode::invalid_argument,
                    fmt::format("the fence option '{}' is not usable: one line KEY=VALUE is expected", key));
            text += fmt::format("{}={}\n", key, value);
        }
    }
    return text;
}

// The last line that says something, without secrets.
std::string readable(const Device& device, std::string output) {
    for (const auto& [name, value] : device.secrets) {
        if (value.empty()) continue;
        for (auto at = output.find(value); at != std::string::npos; at = output.find(value, at))
            output.replace(at, value.size(), "***");
    }
    while (!output.empty() && (output.back() == '\n' || output.back() == ' ')) output.pop_back();
    const auto line = output.rfind('\n');
    std::string last = line == std::string::npos ? output : output.substr(line + 1);
    for (char& c : last)
        if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    return last.substr(0, 300);
}

class Run {
  public:
    explicit Run(const Device& device)
        : device_(device), deadline_(Clock::now() + std::chrono::nanoseconds(device.timeout.nanoseconds)) {}

    // Exit code of one action; nothing: it failed or timed out, see result.
    bool action(const char* name, AgentResult& result, int& exit_code) {
        const Duration left{std::chrono::nanoseconds(deadline_ - Clock::now()).count()};
        const auto input = stdin_text(device_, name);
        if (!input) {
            result = {Outcome::failed, input.error().message};
            return false;
        }
        const auto done = left.nanoseconds > 0 ? run_program({device_.agent}, *input, left)
                                               : Result<ProgramResult>(ProgramResult{true, -1, ""});
        if (!done) {
            result = {Outcome::failed, done.error().message};
            return false;
        }
        if (done->timed_out) {
            result = {Outcome::timed_out, fmt::format("{} {} did not answer within {} ms", device_.agent,
                                                      name, device_.timeout.milliseconds())};
            return false;
        }
        exit_code = done->exit_code;
        result.detail = fmt::format("{} {}: exit code {}: {}", device_.agent, name, exit_code,
                                    readable(device_, done->output));
        return true;
    }

    AgentResult status() {
        AgentResult result;
        int code = 1;
        if (!action("status", result, code)) return result;
        if (code == 0) result.outcome = Outcome::on;
        if (code == 2) result.outcome = Outcome::off;
        return result;
    }

  private:
    const Device& device_;
    Clock::time_point deadline_;
};

}  // namespace

AgentResult run(const Device& device, Action action) {
    Run run(device);
    if (action == Action::status) return run.status();
    AgentResult result;
    int code = 1;
    if (!run.action(action == Action::off ? "off" : "on", result, code)) return result;
    if (code != 0) return result;  // failed, with the agent's words
    return run.status();
}

}  // namespace gemel::fence
