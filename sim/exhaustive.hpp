// Exhaustive mode: two nodes, two blocks, every sequence of up to three operations, and a crash after every
// single event from the first request until all are answered and settled; then recovery with every checker.
#pragma once

#include <cstdint>
#include <string>

namespace gemel::sim {

struct ExhaustivePlan {
    std::uint32_t operations = 3;  // at most, in a sequence
    std::uint32_t jobs = 2;
    bool quiet = false;
    std::string mutant;
    bool stop_at_first = false;
};

struct ExhaustiveSummary {
    std::uint64_t programs = 0;
    std::uint64_t schedules = 0;
    std::uint64_t failed = 0;
    std::string first;  // the first failure, in words
};

ExhaustiveSummary run_exhaustive(const ExhaustivePlan& plan);

}  // namespace gemel::sim
