// Violation: a broken promise. Thrown where it is seen, caught where a seed is run.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace gemel::sim {

class Violation : public std::runtime_error {
  public:
    Violation(std::string promise, const std::string& what)
        : std::runtime_error(promise + ": " + what), promise_(std::move(promise)) {}
    const std::string& promise() const { return promise_; }

  private:
    std::string promise_;
};

}  // namespace gemel::sim
