#include "sim/world/counters.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace gemel::sim {

Counters::Id Counters::id(std::string_view name) {
    if (const auto found = ids_.find(name); found != ids_.end()) return found->second;
    rows_.push_back(Row{std::string(name), 0, false});
    const Id made = static_cast<Id>(rows_.size() - 1);
    ids_.emplace(rows_.back().name, made);
    return made;
}

std::uint64_t Counters::count(std::string_view name) const {
    const auto found = ids_.find(name);
    return found == ids_.end() ? 0 : rows_[found->second].count;
}

std::uint64_t Counters::total(std::string_view prefix) const {
    std::uint64_t sum = 0;
    for (const Row& row : rows_) {
        if (row.name.starts_with(prefix)) sum += row.count;
    }
    return sum;
}

std::vector<std::string> Counters::missed() const {
    std::vector<std::string> names;
    for (const Row& row : rows_) {
        if (row.required && row.count == 0) names.push_back(row.name);
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::string Counters::table() const {
    std::vector<const Row*> sorted;
    for (const Row& row : rows_) sorted.push_back(&row);
    std::sort(sorted.begin(), sorted.end(), [](const Row* a, const Row* b) { return a->name < b->name; });
    std::string text;
    for (const Row* row : sorted) text += fmt::format("{:<44} {:>12}\n", row->name, row->count);
    return text;
}

void Counters::merge(std::string_view lines) {
    while (!lines.empty()) {
        const std::size_t end = std::min(lines.find('\n'), lines.size());
        const std::string_view line = lines.substr(0, end);
        lines.remove_prefix(std::min(end + 1, lines.size()));
        const std::size_t space = line.find(' ');
        const std::size_t digits = line.find_last_of(' ');
        if (space == std::string_view::npos) continue;
        std::uint64_t value = 0;
        std::from_chars(line.data() + digits + 1, line.data() + line.size(), value);
        add(line.substr(0, space), value);
    }
}

}  // namespace gemel::sim
