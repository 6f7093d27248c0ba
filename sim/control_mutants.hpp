// The control plane's mutants (core/cluster/mutants.hpp) and where each is looked for: with which voters and
// faults. A profile names faults that reach the rule, never the breach. A mutant counts as found only by a
// promise that the unbroken program keeps in every seed of the same profile.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "sim/world/control.hpp"
#include "sim/world/faults.hpp"

namespace gemel::sim {

struct HuntProfile {
    std::string_view mutant;
    std::optional<Voters> voters;  // none: as the seed wants
    std::vector<Fault> faults;     // empty: as the seed wants
};

bool is_control_mutant(std::string_view name);
// the profile of that control-plane mutant; one with the mutant's name alone when there is no special one
HuntProfile hunt_profile(std::string_view mutant);
// Prints one line for each; false when one survives.
bool hunt_control_mutants(std::uint32_t jobs, std::string_view only);

}  // namespace gemel::sim
