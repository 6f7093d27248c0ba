// INVARIANT: a check that stays on in release builds. A broken invariant is a bug of ours, never an operating
// error (those are inputs): the process prints where and why, and aborts, because going on could destroy
// data.
#pragma once

namespace gemel {

[[noreturn]] void invariant_failed(const char* expression, const char* file, int line,
                                   const char* why) noexcept;

}  // namespace gemel

// INVARIANT(condition, "why it must hold")
#define INVARIANT(condition, why)                                           \
    do {                                                                    \
        if (!(condition)) [[unlikely]]                                      \
            ::gemel::invariant_failed(#condition, __FILE__, __LINE__, why); \
    } while (false)
