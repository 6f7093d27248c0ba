#include "base/ids.hpp"

#include <cstring>

namespace gemel {
namespace {

constexpr std::size_t kTextLength = 36;
constexpr bool is_dash_position(std::size_t i) {
    return i == 8 || i == 13 || i == 18 || i == 23;
}

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

tl::unexpected<Error> not_an_id(std::string_view text) {
    return fail(ErrorCode::invalid_argument, "'" + std::string(text.substr(0, 64)) +
                                                 "' is not an id: expected 8-4-4-4-12 hexadecimal digits");
}

}  // namespace

std::string Uuid::to_string() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    text.reserve(kTextLength);
    for (const std::uint8_t byte : bytes) {
        if (is_dash_position(text.size())) text.push_back('-');
        text.push_back(kDigits[byte >> 4]);
        text.push_back(kDigits[byte & 15]);
    }
    return text;
}

Uuid Uuid::from_random(std::uint64_t high, std::uint64_t low) {
    Uuid id;
    std::memcpy(id.bytes.data(), &high, 8);
    std::memcpy(id.bytes.data() + 8, &low, 8);
    id.bytes[6] = static_cast<std::uint8_t>((id.bytes[6] & 0x0f) | 0x40);
    id.bytes[8] = static_cast<std::uint8_t>((id.bytes[8] & 0x3f) | 0x80);
    return id;
}

Result<Uuid> Uuid::parse(std::string_view text) {
    if (text.size() != kTextLength) return not_an_id(text);
    Uuid id;
    std::size_t nibble = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (is_dash_position(i)) {
            if (text[i] != '-') return not_an_id(text);
            continue;
        }
        const int value = hex_value(text[i]);
        if (value < 0) return not_an_id(text);
        auto& byte = id.bytes[nibble / 2];
        byte = static_cast<std::uint8_t>(byte << 4 | value);
        ++nibble;
    }
    return id;
}

Result<Incarnation> Incarnation::parse(std::string_view text) {
    if (text.size() != 2 * kTextLength + 1 || text[kTextLength] != '/') return not_an_id(text);
    auto boot = Uuid::parse(text.substr(0, kTextLength));
    auto nonce = Uuid::parse(text.substr(kTextLength + 1));
    if (!boot || !nonce) return not_an_id(text);
    return Incarnation{*boot, *nonce};
}

}  // namespace gemel

std::size_t std::hash<gemel::Uuid>::operator()(const gemel::Uuid& id) const noexcept {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    std::memcpy(&high, id.bytes.data(), 8);
    std::memcpy(&low, id.bytes.data() + 8, 8);
    return static_cast<std::size_t>(high ^ (low * 0x9e3779b97f4a7c15ULL));
}
