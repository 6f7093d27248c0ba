#include "base/bytes.hpp"

#include <algorithm>
#include <cstring>

#include "base/invariant.hpp"

namespace gemel {

void copy_bytes(std::span<const std::byte> from, std::span<std::byte> to) {
    INVARIANT(to.size() >= from.size(), "who copies knows the room there is");
    if (!from.empty()) std::memcpy(to.data(), from.data(), from.size());
}

void ByteWriter::integer(std::uint64_t value, std::size_t width) {
    INVARIANT(remaining() >= width, "an encoder knows the size of what it writes");
    for (std::size_t i = 0; i < width; ++i) {
        buffer_[position_ + i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
    }
    position_ += width;
}

void ByteWriter::uuid(const Uuid& id) {
    raw(std::as_bytes(std::span(id.bytes)));
}

void ByteWriter::raw(std::span<const std::byte> bytes) {
    INVARIANT(remaining() >= bytes.size(), "an encoder knows the size of what it writes");
    if (!bytes.empty()) std::memcpy(buffer_.data() + position_, bytes.data(), bytes.size());
    position_ += bytes.size();
}

void ByteWriter::text(std::string_view value) {
    INVARIANT(value.size() <= 0xffff, "texts on disk and wire are short");
    u16(static_cast<std::uint16_t>(value.size()));
    raw(std::as_bytes(std::span(value)));
}

void ByteWriter::zeroes(std::size_t count) {
    INVARIANT(remaining() >= count, "an encoder knows the size of what it writes");
    std::fill_n(buffer_.begin() + static_cast<std::ptrdiff_t>(position_), count, std::byte{0});
    position_ += count;
}

void ByteWriter::patch_u32(std::size_t at, std::uint32_t value) {
    INVARIANT(at + 4 <= position_, "only a field already written can be patched");
    for (std::size_t i = 0; i < 4; ++i) buffer_[at + i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
}

std::uint64_t ByteReader::integer(std::size_t width) {
    const auto bytes = raw(width);
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
        value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
    return value;
}

Uuid ByteReader::uuid() {
    Uuid id;
    const auto bytes = raw(id.bytes.size());
    if (!bytes.empty()) std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
    return id;
}

std::span<const std::byte> ByteReader::raw(std::size_t count) {
    if (!ok_ || remaining() < count) {
        ok_ = false;
        return {};
    }
    const auto bytes = buffer_.subspan(position_, count);
    position_ += count;
    return bytes;
}

std::string ByteReader::text() {
    const auto bytes = raw(u16());
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace gemel
