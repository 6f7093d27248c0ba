// Counters: how often each fault, verdict, state transition and decisive place was reached, over all seeds of
// a run. A place that must be reached is declared with its name before the run; at the end a declared place
// with zero is a failure, because a simulator that never gets there proves nothing about it. Names are
// dotted: "fault.power_cut".
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace gemel::sim {

class Counters {
  public:
    using Id = std::uint32_t;

    // the counter of that name, made when it is new
    Id id(std::string_view name);
    // a counter that must not stay zero over a long run
    void require(std::string_view name) { rows_[id(name)].required = true; }
    void add(Id id, std::uint64_t count = 1) { rows_[id].count += count; }
    void add(std::string_view name, std::uint64_t count = 1) { add(id(name), count); }
    std::uint64_t count(std::string_view name) const;
    std::uint64_t total(std::string_view prefix) const;

    // names of required counters that are zero
    std::vector<std::string> missed() const;
    // "name count" lines sorted by name, for a human and for merging
    std::string table() const;
    // adds the lines another process wrote with table()
    void merge(std::string_view lines);

  private:
    struct Row {
        std::string name;
        std::uint64_t count = 0;
        bool required = false;
    };
    std::deque<Row> rows_;  // stable addresses: the map's keys point into it
    std::unordered_map<std::string_view, Id> ids_;
};

}  // namespace gemel::sim
