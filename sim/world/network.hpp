// Network: the paths between hosts and what is wrong with them. A path is a cable between two hosts with a
// state for each direction: cut, lossy, slow. Messages over TCP are not lost by a lossy path, they are late;
// a cut holds them back until it heals or somebody gives up. The links between two engines are in
// peer_link.hpp; here are the cables, and single control messages that arrive late, twice (where the sender
// repeats) or never.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/instant.hpp"
#include "base/prng.hpp"
#include "sim/world/tasks.hpp"
#include "sim/world/trace.hpp"

namespace gemel::sim {

inline constexpr std::uint32_t kNodes = 3;  // two hosts and the witness
inline constexpr std::uint32_t kWitness = 2;
inline constexpr std::uint32_t kLinks = 2;  // replication links between the two hosts

enum class Cable : std::uint8_t { control, link1, link2, management };
inline constexpr std::uint32_t kCables = 4;

struct Direction {
    bool cut = false;
    std::uint32_t lossy_percent = 0;
    std::uint32_t slow_factor = 1;
};

class Network {
  public:
    Network(Tasks& tasks, Trace& trace, Prng random) : tasks_(tasks), trace_(trace), random_(random) {}

    Direction& direction(Cable cable, std::uint32_t from, std::uint32_t to) {
        return directions_[static_cast<std::size_t>(cable)][from][to];
    }
    const Direction& direction(Cable cable, std::uint32_t from, std::uint32_t to) const {
        return directions_[static_cast<std::size_t>(cable)][from][to];
    }
    // a host that has no power or is disconnected as a whole; its BMC has a supply and a cable of its own
    void set_isolated(std::uint32_t node, bool isolated);
    void set_bmc(std::uint32_t node, bool powered) { bmc_dead_[node] = !powered; }
    void cut(Cable cable, std::uint32_t from, std::uint32_t to, bool cut);
    void cut_both_ways(Cable cable, std::uint32_t a, std::uint32_t b, bool cut_it);
    void changed();  // after direction() was written to
    void heal();

    bool passes(Cable cable, std::uint32_t from, std::uint32_t to) const {
        const bool reached = cable == Cable::management ? !bmc_dead_[to] : !isolated_[to];
        return !isolated_[from] && reached && !direction(cable, from, to).cut;
    }
    // some replication link carries frames that way
    bool links_pass(std::uint32_t from, std::uint32_t to) const {
        return passes(Cable::link1, from, to) || passes(Cable::link2, from, to);
    }
    // one way, in working order; retransmissions included
    Duration delay(Cable cable, std::uint32_t from, std::uint32_t to);
    Duration link_delay(std::uint32_t from, std::uint32_t to);

    // `arrive` runs at the other end unless the message is lost; a message under way when the cable is cut is
    // lost
    void send(Cable cable, std::uint32_t from, std::uint32_t to, std::function<void()> arrive);

    void on_change(std::function<void()> listener) { listeners_.push_back(std::move(listener)); }

  private:
    Tasks& tasks_;
    Trace& trace_;
    Prng random_;
    std::array<std::array<std::array<Direction, kNodes>, kNodes>, kCables> directions_{};
    std::array<bool, kNodes> isolated_{};
    std::array<bool, kNodes> bmc_dead_{};
    std::vector<std::function<void()>> listeners_;
};

}  // namespace gemel::sim
