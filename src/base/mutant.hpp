// Mutants: deliberate breaks, one per "stable before" edge, that prove the checkers look. In a build with
// GEMEL_MUTANTS the simulator switches one on at run time; in every other build mutant() is the constant
// false and the names vanish.
#pragma once

#include <string_view>

namespace gemel {

#ifdef GEMEL_MUTANTS
// true when the mutant of that name is the one switched on
bool mutant(std::string_view name) noexcept;
void select_mutant(std::string_view name);  // empty: none
#else
constexpr bool mutant(std::string_view) noexcept {
    return false;
}
#endif

}  // namespace gemel
