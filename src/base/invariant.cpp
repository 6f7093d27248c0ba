#include "base/invariant.hpp"

#include <cstdio>
#include <cstdlib>

namespace gemel {

void invariant_failed(const char* expression, const char* file, int line, const char* why) noexcept {
    std::fprintf(stderr, "INVARIANT broken at %s:%d: %s (%s)\n", file, line, expression, why);
    std::fflush(stderr);
    std::abort();
}

}  // namespace gemel
