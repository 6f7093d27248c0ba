// Waiting for an etcd process of ours, which tells nobody when it is ready. Blocking; any thread.
#pragma once

#include <chrono>
#include <thread>

#include "base/instant.hpp"

namespace gemel::etcd {

// Asks every 10 ms until it is true, at most `limit`; false: it never was.
template <typename Condition>
bool poll_until(Duration limit, Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::nanoseconds(limit.nanoseconds);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return true;
}

}  // namespace gemel::etcd
