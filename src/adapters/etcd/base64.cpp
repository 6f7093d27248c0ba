#include "adapters/etcd/base64.hpp"

#include <array>
#include <cstdint>

namespace gemel::etcd {
namespace {

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<std::int8_t, 256> make_reverse() {
    std::array<std::int8_t, 256> table{};
    for (auto& entry : table) entry = -1;
    for (std::size_t i = 0; i < kAlphabet.size(); ++i)
        table[static_cast<unsigned char>(kAlphabet[i])] = static_cast<std::int8_t>(i);
    return table;
}
constexpr auto kReverse = make_reverse();

std::uint32_t byte_at(std::string_view bytes, std::size_t i) {
    return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U;
}

}  // namespace

std::string base64_encoded(std::string_view bytes) {
    std::string out;
    out.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::uint32_t word =
            byte_at(bytes, i) << 16 | byte_at(bytes, i + 1) << 8 | byte_at(bytes, i + 2);
        out += kAlphabet[word >> 18 & 63];
        out += kAlphabet[word >> 12 & 63];
        out += i + 1 < bytes.size() ? kAlphabet[word >> 6 & 63] : '=';
        out += i + 2 < bytes.size() ? kAlphabet[word & 63] : '=';
    }
    return out;
}

Result<std::string> base64_decoded(std::string_view text) {
    const auto bad = [] {
        return fail(ErrorCode::corrupt, "the store answered with something that is not base64");
    };
    if (text.size() % 4 != 0) return bad();
    std::size_t padding = 0;
    while (padding < 2 && !text.empty() && text.back() == '=') {
        text.remove_suffix(1);
        ++padding;
    }
    std::string out;
    out.reserve(text.size() / 4 * 3 + 2);
    std::uint32_t word = 0;
    unsigned bits = 0;
    for (const char c : text) {
        const auto value = kReverse[static_cast<unsigned char>(c)];
        if (value < 0) return bad();
        word = word << 6 | static_cast<std::uint32_t>(value);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out += static_cast<char>(static_cast<unsigned char>(word >> bits & 0xFF));
        }
    }
    return out;
}

}  // namespace gemel::etcd
