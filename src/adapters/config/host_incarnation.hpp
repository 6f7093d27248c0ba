// The host's incarnation: the kernel's boot id plus a nonce on tmpfs (run_dir/incarnation) that the first
// daemon to start creates. Both are new after a power-on, so that "the same host, a moment later" and
// "rebooted" are never confused.
#pragma once

#include <string>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gemel {

// Creates run_dir (0755) and the nonce when they are absent; safe against several daemons starting at once.
Result<Incarnation> host_incarnation(const std::string& run_dir);

// Two words from the kernel's random source: for ids and seeds of daemons.
Uuid random_uuid();
std::uint64_t random_word();

}  // namespace gemel
