// Big-endian fields of NBD messages, bounds checked by the caller's knowledge of the message's size. Private
// to core/nbd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/invariant.hpp"

namespace gemel::nbd {

inline std::uint64_t load_big(std::span<const std::byte> bytes, std::size_t at, std::size_t width) {
    INVARIANT(at + width <= bytes.size(), "the caller checked the message's size");
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < width; ++i)
        value = value << 8 | std::to_integer<std::uint64_t>(bytes[at + i]);
    return value;
}

inline void store_big(std::span<std::byte> bytes, std::size_t at, std::size_t width, std::uint64_t value) {
    INVARIANT(at + width <= bytes.size(), "the caller knows the size of what it encodes");
    for (std::size_t i = 0; i < width; ++i) {
        bytes[at + i] = static_cast<std::byte>(value >> (8 * (width - 1 - i)) & 0xff);
    }
}

// Reads fields of untrusted bytes in order; past the end it fails once and for all and yields zeroes.
class BigReader {
  public:
    explicit BigReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

    std::uint64_t integer(std::size_t width) {
        const auto field = raw(width);
        return field.size() == width ? load_big(field, 0, width) : 0;
    }
    std::span<const std::byte> raw(std::uint64_t count) {
        if (!ok_ || bytes_.size() - position_ < count) {
            ok_ = false;
            return {};
        }
        const auto field = bytes_.subspan(position_, static_cast<std::size_t>(count));
        position_ += static_cast<std::size_t>(count);
        return field;
    }
    // u32 length, then the text
    std::string_view text() {
        const auto field = raw(integer(4));
        return {reinterpret_cast<const char*>(field.data()), field.size()};
    }
    bool ok() const { return ok_; }
    bool at_end() const { return ok_ && position_ == bytes_.size(); }

  private:
    std::span<const std::byte> bytes_;
    std::size_t position_ = 0;
    bool ok_ = true;
};

inline std::span<const std::byte> as_bytes(std::string_view text) {
    return std::as_bytes(std::span(text));
}

}  // namespace gemel::nbd
