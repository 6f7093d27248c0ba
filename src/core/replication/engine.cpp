#include "core/replication/engine.hpp"

#include "core/replication/core.hpp"

namespace gemel::replication {

Engine::Engine(EngineConfig config) : core_(std::make_unique<Core>(std::move(config))) {}
Engine::~Engine() = default;

void Engine::step(Instant now, const Input& input, Outputs& outputs) {
    core_->step(now, input, outputs);
}

Instant Engine::next_deadline() const {
    return core_->next_deadline();
}

View Engine::view() const {
    return core_->view();
}

}  // namespace gemel::replication
