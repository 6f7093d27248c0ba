// Memory that is there when the machine has none left: the heap is one arena, touched and locked at start,
// and what is freed is kept. From then on allocations are served from it; no memory is asked of the kernel in
// the guard's loop as long as it holds less than the reserve (some thousand guests).
#pragma once

#include <cstddef>

#include "base/error.hpp"

namespace gemel::guard {

inline constexpr std::size_t kReserveBytes = std::size_t{16} << 20;

// Before any thread is started. Error: not locked (it goes on with the reserve touched), and how to allow it.
Status reserve_memory();

}  // namespace gemel::guard
