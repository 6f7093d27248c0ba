#include "sim/world/network.hpp"

#include <utility>

namespace gemel::sim {
namespace {
constexpr std::int64_t kBaseMicros = 30;
constexpr std::int64_t kJitterMicros = 60;
constexpr std::int64_t kRetransmitMicros = 200'000;
}  // namespace

void Network::set_isolated(std::uint32_t node, bool isolated) {
    isolated_[node] = isolated;
    changed();
}

void Network::cut(Cable cable, std::uint32_t from, std::uint32_t to, bool cut_it) {
    direction(cable, from, to).cut = cut_it;
    trace_.note(tasks_.now(), from, "network.cut", static_cast<std::uint64_t>(cable), to, cut_it ? 1 : 0);
    changed();
}

void Network::cut_both_ways(Cable cable, std::uint32_t a, std::uint32_t b, bool cut_it) {
    direction(cable, a, b).cut = cut_it;
    cut(cable, b, a, cut_it);
}

void Network::heal() {
    bmc_dead_ = {};
    for (auto& cable : directions_) {
        for (auto& from : cable) from.fill(Direction{});
    }
    changed();
}

void Network::changed() {
    for (const auto& listener : listeners_) listener();
}

Duration Network::delay(Cable cable, std::uint32_t from, std::uint32_t to) {
    const Direction& way = direction(cable, from, to);
    std::int64_t micros = kBaseMicros + static_cast<std::int64_t>(random_.below(kJitterMicros));
    micros *= way.slow_factor;
    if (way.lossy_percent > 0 && random_.chance(way.lossy_percent, 100)) micros += kRetransmitMicros;
    return microseconds(micros);
}

Duration Network::link_delay(std::uint32_t from, std::uint32_t to) {
    const bool first = passes(Cable::link1, from, to);
    const bool second = passes(Cable::link2, from, to);
    const bool use_second = second && (!first || random_.chance(1, 2));
    return delay(use_second ? Cable::link2 : Cable::link1, from, to);
}

void Network::send(Cable cable, std::uint32_t from, std::uint32_t to, std::function<void()> arrive) {
    if (from != to && !passes(cable, from, to)) return;
    tasks_.after(from == to ? microseconds(20) : delay(cable, from, to),
                 [this, cable, from, to, arrive = std::move(arrive)] {
                     if (from == to || passes(cable, from, to)) arrive();
                 });
}

}  // namespace gemel::sim
