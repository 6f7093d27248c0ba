// What an NBD client sends, for the tests: big-endian fields put together by hand, independent of the code
// under test. Only for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gemel::nbd::testing {

using Bytes = std::vector<std::byte>;

inline void put(Bytes& bytes, std::uint64_t value, int width) {
    for (int i = width - 1; i >= 0; --i) bytes.push_back(static_cast<std::byte>(value >> (8 * i) & 0xff));
}
inline void put(Bytes& bytes, std::string_view text) {
    for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
}
inline std::uint64_t field(std::span<const std::byte> bytes, std::size_t at, int width) {
    std::uint64_t value = 0;
    for (int i = 0; i < width; ++i)
        value = value << 8 | std::to_integer<std::uint64_t>(bytes[at + static_cast<std::size_t>(i)]);
    return value;
}

inline Bytes client_flags(std::uint32_t flags) {
    Bytes bytes;
    put(bytes, flags, 4);
    return bytes;
}
inline Bytes option(std::uint32_t type, const Bytes& data) {
    Bytes bytes;
    put(bytes, "IHAVEOPT");
    put(bytes, type, 4);
    put(bytes, data.size(), 4);
    bytes.insert(bytes.end(), data.begin(), data.end());
    return bytes;
}
inline Bytes go_data(std::string_view name, const std::vector<std::uint16_t>& infos = {}) {
    Bytes bytes;
    put(bytes, name.size(), 4);
    put(bytes, name);
    put(bytes, infos.size(), 2);
    for (const auto info : infos) put(bytes, info, 2);
    return bytes;
}
inline Bytes meta_data(std::string_view name, const std::vector<std::string>& queries) {
    Bytes bytes;
    put(bytes, name.size(), 4);
    put(bytes, name);
    put(bytes, queries.size(), 4);
    for (const auto& query : queries) {
        put(bytes, query.size(), 4);
        put(bytes, query);
    }
    return bytes;
}
inline Bytes request(std::uint16_t flags, std::uint16_t command, std::uint64_t cookie, std::uint64_t offset,
                     std::uint32_t length) {
    Bytes bytes;
    put(bytes, 0x25609513, 4);
    put(bytes, flags, 2);
    put(bytes, command, 2);
    put(bytes, cookie, 8);
    put(bytes, offset, 8);
    put(bytes, length, 4);
    return bytes;
}

}  // namespace gemel::nbd::testing
