// ByteWriter and ByteReader: little-endian fields into and out of a caller's buffer, with bounds always
// checked. A reader that ran past its end stays failed and returns zeroes: decode everything, then ask ok()
// once. A writer that overflows is a bug of ours (INVARIANT): every encoder knows its size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/ids.hpp"

namespace gemel {

// memcpy with its bound checked. std::ranges::copy between two spans is a loop of single bytes with g++ 12:
// 4 KiB take microseconds.
void copy_bytes(std::span<const std::byte> from, std::span<std::byte> to);

class ByteWriter {
  public:
    explicit ByteWriter(std::span<std::byte> buffer) : buffer_(buffer) {}

    void u8(std::uint8_t value) { integer(value, 1); }
    void u16(std::uint16_t value) { integer(value, 2); }
    void u32(std::uint32_t value) { integer(value, 4); }
    void u64(std::uint64_t value) { integer(value, 8); }
    void i64(std::int64_t value) { integer(static_cast<std::uint64_t>(value), 8); }
    void uuid(const Uuid& id);
    template <typename Tag>
    void id(const TypedId<Tag>& typed) {
        uuid(typed.value);
    }
    void raw(std::span<const std::byte> bytes);
    // u16 length, then the bytes
    void text(std::string_view value);
    void zeroes(std::size_t count);
    std::size_t position() const { return position_; }
    std::size_t remaining() const { return buffer_.size() - position_; }
    // overwrite an earlier field, e.g. a length or a checksum known only at the end
    void patch_u32(std::size_t at, std::uint32_t value);

  private:
    void integer(std::uint64_t value, std::size_t width);
    std::span<std::byte> buffer_;
    std::size_t position_ = 0;
};

class ByteReader {
  public:
    explicit ByteReader(std::span<const std::byte> buffer) : buffer_(buffer) {}

    std::uint8_t u8() { return static_cast<std::uint8_t>(integer(1)); }
    std::uint16_t u16() { return static_cast<std::uint16_t>(integer(2)); }
    std::uint32_t u32() { return static_cast<std::uint32_t>(integer(4)); }
    std::uint64_t u64() { return integer(8); }
    std::int64_t i64() { return static_cast<std::int64_t>(integer(8)); }
    Uuid uuid();
    template <typename Id>
    Id id() {
        return Id{uuid()};
    }
    std::span<const std::byte> raw(std::size_t count);
    std::string text();
    void skip(std::size_t count) { raw(count); }
    bool ok() const { return ok_; }
    bool at_end() const { return ok_ && position_ == buffer_.size(); }
    std::size_t position() const { return position_; }
    std::size_t remaining() const { return buffer_.size() - position_; }

  private:
    std::uint64_t integer(std::size_t width);
    std::span<const std::byte> buffer_;
    std::size_t position_ = 0;
    bool ok_ = true;
};

}  // namespace gemel
