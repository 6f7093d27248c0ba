// Words, sizes and tables for humans: what is typed in is checked here before anything is sent, what is shown
// is laid out for 80 columns of ASCII. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"

namespace gemel::cli {

enum class Colour { plain, bold, good, warn, bad, dim };

// text between escape sequences where colours is true, else text
std::string paint(Colour colour, const std::string& text, bool colours);

// "20 GiB", "1.5 GiB", "640 MiB", "512 B"
std::string human_size(std::int64_t bytes);
// "800 ms", "90 s", "5 min", "2 h 20 min"
std::string human_duration(std::int64_t ms);
// 20G, 512M, 1T, 4096 (bytes), 20GiB; powers of 1024. Decimal units (20GB) are refused as ambiguous.
Result<std::int64_t> parse_size(std::string_view text);
// a size a volume may have: 1 MiB to 64 TiB, a multiple of 4096 bytes
Result<std::int64_t> parse_volume_size(std::string_view text);
// what: "volume", "guest", "node", ...; the rule is the API's schema Name
Status check_name(std::string_view what, std::string_view name);

// lines of at most width characters; words that are longer stay whole
std::vector<std::string> wrap(const std::string& text, std::size_t width);

struct Cell {
    std::string text;
    Colour colour = Colour::plain;
};

// Columns as wide as their widest cell, two blanks between them; nothing after the last.
class Table {
  public:
    explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
    void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
    bool empty() const { return rows_.empty(); }
    std::string render(bool colours) const;

  private:
    std::vector<std::string> header_;
    std::vector<std::vector<Cell>> rows_;
};

}  // namespace gemel::cli
