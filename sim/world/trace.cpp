#include "sim/world/trace.hpp"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

namespace gemel::sim {

std::string Trace::line(const Record& record) {
    const std::string who =
        record.node == kWorld ? std::string("world") : fmt::format("node{}", record.node + 1);
    const double when = Duration{record.when.nanoseconds_since_boot}.seconds();
    if (!record.text.empty())
        return fmt::format("{:>13.6f} {} {:<28} {}", when, who, record.name, record.text);
    return fmt::format("{:>13.6f} {} {:<28} {} {} {}", when, who, record.name, record.a, record.b, record.c);
}

void Trace::note_text(Instant now, std::uint32_t node, const char* name, std::string_view text) {
    std::uint64_t sum = 0xcbf29ce484222325ULL;
    for (const char c : text) sum = (sum ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ULL;
    hash_ = mix(mix(hash_ ^ sum, static_cast<std::uint64_t>(now.nanoseconds_since_boot)), node);
    Record& record = ring_[notes_++ % kRing];
    record = Record{now, name, 0, 0, 0, node, std::string(text)};
    if (print_) print(record);
    if (listener_) listener_(now, node, name, 0, text);
}

void Trace::print(const Record& record) {
    const std::string text = line(record) + "\n";
    std::fwrite(text.data(), 1, text.size(), stdout);
}

std::vector<std::string> Trace::last(std::size_t count) const {
    const std::uint64_t wanted = std::min<std::uint64_t>({count, notes_, kRing});
    std::vector<std::string> lines;
    lines.reserve(wanted);
    for (std::uint64_t i = notes_ - wanted; i < notes_; ++i) lines.push_back(line(ring_[i % kRing]));
    return lines;
}

}  // namespace gemel::sim
