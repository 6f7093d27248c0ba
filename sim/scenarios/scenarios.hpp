// The scripted scenarios: scenarios.md of the design, one function each, and the runner that compares their
// logs with the golden ones in tests/scenarios.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/scenarios/stage.hpp"

namespace gemel::sim {

struct Scenario {
    std::string_view name;    // "W1": also the golden log's file name
    std::string_view fault;   // what happens
    std::string_view must;    // what must come of it
    void (*run)(Stage&);      // throws a Violation when it went wrong
    StageOptions stage = {};  // the world it plays in
};

// Each group's file adds its own.
void add_write_path(std::vector<Scenario>& all);
void add_flush_and_metadata(std::vector<Scenario>& all);
void add_resync(std::vector<Scenario>& all);
void add_generations(std::vector<Scenario>& all);
void add_network_and_lease(std::vector<Scenario>& all);
void add_fencing(std::vector<Scenario>& all);
void add_two_voters(std::vector<Scenario>& all);
void add_quorum(std::vector<Scenario>& all);
void add_volume_and_store(std::vector<Scenario>& all);
void add_regressions(std::vector<Scenario>& all);
std::vector<Scenario> all_scenarios();

struct ScenarioPlan {
    std::string name;     // or "all"
    std::string golden;   // folder; empty: print the log
    bool update = false;  // write the golden logs instead of comparing
};
// Prints what it did; true when every log is as it should be.
bool run_scenarios(const ScenarioPlan& plan);
// With a mutant switched on: the first scenario that goes wrong, and how; empty when none does. Of all, or of
// those that play with the real control plane.
std::string broken_scenario(const std::string& mutant, bool only_real_control = false);

}  // namespace gemel::sim
