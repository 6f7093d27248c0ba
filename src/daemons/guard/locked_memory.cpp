#include "daemons/guard/locked_memory.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <malloc.h>
#include <memory>
#include <string>
#include <sys/mman.h>

namespace gemel::guard {

Status reserve_memory() {
    ::mallopt(M_ARENA_MAX, 1);        // threads share the reserve
    ::mallopt(M_MMAP_MAX, 0);         // large blocks come out of it too
    ::mallopt(M_TRIM_THRESHOLD, -1);  // and nothing of it is given back
    const int locked = ::mlockall(MCL_CURRENT | MCL_FUTURE);
    const int why = errno;
    {
        const std::unique_ptr<char, decltype(&std::free)> reserve(
            static_cast<char*>(std::malloc(kReserveBytes)), &std::free);
        if (!reserve)
            return fail(ErrorCode::out_of_space, "16 MiB of memory are not to be had; the guard needs them");
        std::memset(reserve.get(), 1, kReserveBytes);
        asm volatile("" : : "r"(reserve.get()) : "memory");  // the touching must not be optimised away
    }
    if (locked == 0) return {};
    return fail(ErrorCode::failed_precondition,
                std::string("cannot lock its memory: ") + std::strerror(why) + " (raise LimitMEMLOCK)");
}

}  // namespace gemel::guard
