#include "base/mutant.hpp"

#ifdef GEMEL_MUTANTS
#include <string>

namespace gemel {
namespace {
std::string& selected() {
    static std::string name;
    return name;
}
}  // namespace

bool mutant(std::string_view name) noexcept {
    return selected() == name;
}
void select_mutant(std::string_view name) {
    selected() = name;
}

}  // namespace gemel
#endif
