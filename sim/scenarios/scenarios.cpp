#include "sim/scenarios/scenarios.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mutant.hpp"
#include "sim/world/violation.hpp"

namespace gemel::sim {
namespace {

std::string whole(const Scenario& scenario, const std::vector<std::string>& log) {
    std::string text = std::string(scenario.name) + ": " + std::string(scenario.fault) + "\n-> " +
                       std::string(scenario.must) + "\n\n";
    for (const std::string& line : log) {
        text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    }
    return text;
}

std::string read_file(const std::string& path) {
    std::ifstream in(path);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

// the first line in which they differ, with its number
void print_difference(const std::string& golden, const std::string& now) {
    std::istringstream a(golden);
    std::istringstream b(now);
    std::string left;
    std::string right;
    for (int number = 1;; ++number) {
        const bool more_left = static_cast<bool>(std::getline(a, left));
        const bool more_right = static_cast<bool>(std::getline(b, right));
        if (!more_left && !more_right) return;
        if (more_left && more_right && left == right) continue;
        std::printf("  line %d\n  golden: %s\n  now:    %s\n", number, more_left ? left.c_str() : "(end)",
                    more_right ? right.c_str() : "(end)");
        return;
    }
}

bool run_one(const Scenario& scenario, const ScenarioPlan& plan) {
    const std::string name(scenario.name);
    std::string now;
    std::unique_ptr<Stage> stage;
    try {
        stage = std::make_unique<Stage>(scenario.stage);
        scenario.run(*stage);
        now = whole(scenario, stage->log());
    } catch (const Violation& violation) {
        if (stage) std::fputs(whole(scenario, stage->log()).c_str(), stdout);
        std::printf("%s FAILED: %s\n", name.c_str(), violation.what());
        return false;
    }
    if (plan.golden.empty()) {
        std::fputs(now.c_str(), stdout);
        return true;
    }
    const std::string path = plan.golden + "/" + name + ".txt";
    if (plan.update) {
        std::ofstream out(path);
        out << now;
        out.close();
        if (!out) std::printf("%s: cannot write %s\n", name.c_str(), path.c_str());
        return static_cast<bool>(out);
    }
    const std::string golden = read_file(path);
    if (golden == now) return true;
    std::printf(
        "%s FAILED: its log is not the golden one (%s); after reading the difference:\n"
        "  gemel-sim --scenario %s --golden %s --update\n",
        name.c_str(), path.c_str(), name.c_str(), plan.golden.c_str());
    print_difference(golden, now);
    return false;
}

}  // namespace

std::vector<Scenario> all_scenarios() {
    std::vector<Scenario> all;
    add_write_path(all);
    add_flush_and_metadata(all);
    add_resync(all);
    add_generations(all);
    add_network_and_lease(all);
    add_fencing(all);
    add_two_voters(all);
    add_quorum(all);
    add_volume_and_store(all);
    add_regressions(all);
    return all;
}

// Each in a process of its own: an INVARIANT ends that one only.
std::string broken_scenario([[maybe_unused]] const std::string& mutant, bool only_real_control) {
    for (const Scenario& scenario : all_scenarios()) {
        if (only_real_control && !scenario.stage.real_control) continue;
        int ends[2];
        if (::pipe(ends) != 0) return {};
        std::fflush(stdout);
        const pid_t pid = ::fork();
        if (pid == 0) {
#ifdef GEMEL_MUTANTS
            select_mutant(mutant);
#endif
            std::string promise;
            try {
                Stage stage(scenario.stage);
                scenario.run(stage);
            } catch (const Violation& violation) {
                promise = violation.promise() == "scenario" ? "its own check" : violation.promise();
            }
            const ssize_t written = promise.empty() ? 0 : ::write(ends[1], promise.data(), promise.size());
            ::_exit(promise.empty() && written == 0 ? 0 : 1);
        }
        ::close(ends[1]);
        char promise[64] = "INVARIANT";
        if (const ssize_t count = ::read(ends[0], promise, sizeof promise - 1); count > 0) promise[count] = 0;
        ::close(ends[0]);
        int status = 0;
        ::waitpid(pid, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            return std::string(promise) + " in scenario " + std::string(scenario.name);
    }
    return {};
}

bool run_scenarios(const ScenarioPlan& plan) {
    const std::vector<Scenario> all = all_scenarios();
    int run = 0;
    int failed = 0;
    for (const Scenario& scenario : all) {
        if (plan.name != "all" && plan.name != scenario.name) continue;
        ++run;
        failed += run_one(scenario, plan) ? 0 : 1;
    }
    if (run == 0) {
        std::string names;
        for (const Scenario& scenario : all) names += " " + std::string(scenario.name);
        std::printf("there is no scenario '%s'; there are: all%s\n", plan.name.c_str(), names.c_str());
        return false;
    }
    std::printf("scenarios %s: run=%d failed=%d\n", failed == 0 ? "ok" : "FAILED", run, failed);
    return failed == 0;
}

}  // namespace gemel::sim
