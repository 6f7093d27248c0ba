// The mutants: deliberate breaks in core (core/replication/mutants.hpp names them), each one "stable before"
// edge or one comparison. The simulator must find every one within its budget of seeds, or its checkers do
// not look.
#pragma once

#include <cstdint>
#include <string_view>

namespace gemel::sim {

// Runs them all (or the one named), prints the table; true when every one was found.
bool hunt_mutants(std::uint32_t jobs, std::string_view only);

}  // namespace gemel::sim
