#include "cli/text.hpp"

#include <algorithm>
#include <limits>
#include <sstream>

#include <fmt/format.h>

namespace gemel::cli {

namespace {

constexpr std::int64_t kSmallestVolumeBytes = 1LL << 20;
constexpr std::int64_t kLargestVolumeBytes = 64LL << 40;
constexpr std::int64_t kVolumeGrainBytes = 4096;
constexpr std::size_t kLongestName = 40;

bool is_name_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

}  // namespace

std::string paint(Colour colour, const std::string& text, bool colours) {
    if (!colours || colour == Colour::plain || text.empty()) return text;
    const char* code = "0";
    switch (colour) {
        case Colour::plain: break;
        case Colour::bold: code = "1"; break;
        case Colour::good: code = "32"; break;
        case Colour::warn: code = "33"; break;
        case Colour::bad: code = "1;31"; break;
        case Colour::dim: code = "2"; break;
    }
    return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

std::string human_size(std::int64_t bytes) {
    static const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < std::size(units)) {
        value /= 1024;
        ++unit;
    }
    const bool whole = value >= 100 || value == static_cast<double>(static_cast<std::int64_t>(value));
    return whole ? fmt::format("{:.0f} {}", value, units[unit])
                 : fmt::format("{:.1f} {}", value, units[unit]);
}

std::string human_duration(std::int64_t ms) {
    if (ms < 1000) return fmt::format("{} ms", ms);
    const std::int64_t s = ms / 1000;
    if (s < 120) return fmt::format("{} s", s);
    if (s < 7200) return fmt::format("{} min", s / 60);
    return fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
}

Result<std::int64_t> parse_size(std::string_view text) {
    std::size_t digits = 0;
    std::int64_t value = 0;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') {
        if (value > std::numeric_limits<std::int64_t>::max() / 10 - 10) {
            return fail(ErrorCode::invalid_argument,
                        fmt::format("the size '{}' is too large: at most 64T", text));
        }
        value = value * 10 + (text[digits] - '0');
        ++digits;
    }
    const std::string_view unit = text.substr(digits);
    static constexpr std::string_view kUnits = "KMGTP";
    int shift = 0;
    bool good = digits > 0;
    if (good && !unit.empty()) {
        const auto power = kUnits.find(unit[0]);
        good = power != std::string_view::npos && (unit.size() == 1 || unit.substr(1) == "iB");
        shift = good ? 10 * (static_cast<int>(power) + 1) : 0;
    }
    if (!good) {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format(
                "'{}' is not a size: write a whole number and K, M, G or T (powers of 1024), like 20G",
                text));
    }
    if (value > (std::numeric_limits<std::int64_t>::max() >> shift)) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("the size '{}' is too large: at most 64T", text));
    }
    return value << shift;
}

Result<std::int64_t> parse_volume_size(std::string_view text) {
    auto size = parse_size(text);
    if (!size) return size;
    if (*size < kSmallestVolumeBytes || *size > kLargestVolumeBytes) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("a volume of {} is not possible: 1M to 64T is expected, like 20G",
                                human_size(*size)));
    }
    if (*size % kVolumeGrainBytes != 0) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} bytes is not a multiple of 4096: write {} or a size like 20G", *size,
                                (*size / kVolumeGrainBytes + 1) * kVolumeGrainBytes));
    }
    return size;
}

Status check_name(std::string_view what, std::string_view name) {
    const bool good = !name.empty() && name.size() <= kLongestName &&
                      std::all_of(name.begin(), name.end(), is_name_character) && name.front() != '-' &&
                      name.back() != '-';
    if (good) return {};
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("'{}' is not a {} name: 1 to 40 lower case letters, digits and dashes are expected, "
                    "beginning and ending with a letter or digit",
                    name, what));
}

std::vector<std::string> wrap(const std::string& text, std::size_t width) {
    std::vector<std::string> lines;
    std::istringstream words(text);
    std::string word;
    while (words >> word) {
        if (lines.empty() || lines.back().size() + 1 + word.size() > width) {
            lines.push_back(word);
        } else {
            lines.back() += " " + word;
        }
    }
    return lines;
}

std::string Table::render(bool colours) const {
    std::vector<std::size_t> widths(header_.size());
    for (std::size_t i = 0; i < header_.size(); ++i) widths[i] = header_[i].size();
    for (const auto& row : rows_) {
        for (std::size_t i = 0; i < row.size() && i < widths.size(); ++i) {
            widths[i] = std::max(widths[i], row[i].text.size());
        }
    }
    std::string out;
    const auto line = [&](const std::vector<Cell>& row) {
        std::string blanks;
        for (std::size_t i = 0; i < row.size() && i < widths.size(); ++i) {
            if (!row[i].text.empty()) out += blanks + paint(row[i].colour, row[i].text, colours);
            if (!row[i].text.empty()) blanks.clear();
            blanks += std::string(widths[i] - row[i].text.size() + 2, ' ');
        }
        out += "\n";
    };
    std::vector<Cell> head;
    for (const auto& title : header_) head.push_back({title, Colour::bold});
    line(head);
    for (const auto& row : rows_) line(row);
    return out;
}

}  // namespace gemel::cli
