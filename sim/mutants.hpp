// The table of mutants: deliberate breaks in core, each one "stable before" edge or one comparison, that the
// simulator must find within its budget of seeds. A mutant that is not in the table proves nothing; a test
// compares the table with the names in the sources.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace gemel::sim {

struct Mutant {
    std::string_view name;
    std::string_view promise;  // that breaks first, usually
    std::uint64_t seeds;       // budget
};

std::span<const Mutant> mutants();
// runs them all, prints the table; true when every one was found
bool hunt_mutants(std::uint32_t jobs, std::string_view only);

}  // namespace gemel::sim
