#include "core/vhost/block_command.hpp"

#include <algorithm>
#include <cstring>

#include "base/invariant.hpp"
#include "core/vhost/ring_layout.hpp"

namespace gemel::vhost {

namespace {

inline constexpr std::uint32_t kTypeRead = 0;
inline constexpr std::uint32_t kTypeWrite = 1;
inline constexpr std::uint32_t kTypeFlush = 4;
inline constexpr std::uint32_t kTypeGetId = 8;
inline constexpr std::uint32_t kTypeDiscard = 11;
inline constexpr std::uint32_t kTypeWriteZeroes = 13;
inline constexpr std::uint32_t kFlagUnmap = 1;

struct Header {
    std::uint32_t type;
    std::uint32_t priority;
    std::uint64_t sector;
};
struct Range {
    std::uint64_t sector;
    std::uint32_t sectors;
    std::uint32_t flags;
};
static_assert(sizeof(Header) == 16 && sizeof(Range) == 16);

std::uint64_t total_bytes(std::span<const Piece> pieces) {
    std::uint64_t sum = 0;
    for (const Piece& piece : pieces) sum += piece.length;
    return sum;
}

// How the bytes lie in the descriptors is the driver's choice: the header is the first 16 of them.
bool take_header(std::span<Piece>& pieces, Header& header) {
    if (total_bytes(pieces) < sizeof header) return false;
    get_data(pieces, 0, std::as_writable_bytes(std::span(&header, 1)));
    std::uint32_t left = sizeof header;
    while (left > 0) {
        Piece& first = pieces.front();
        const std::uint32_t part = std::min(left, first.length);
        first.memory += part;
        first.guest_address += part;
        first.length -= part;
        left -= part;
        if (first.length == 0) pieces = pieces.subspan(1);
    }
    return true;
}

// Where on the disk it is, if it is there and whole blocks.
BlockStatus place(BlockCommand& command, std::uint64_t sector, std::uint64_t bytes, std::uint64_t most,
                  const Disk& disk) {
    const std::uint64_t sectors = disk.size_bytes / kSectorBytes;
    if (bytes == 0 || bytes > most || bytes % disk.block_bytes != 0) return BlockStatus::io_error;
    if (sector > sectors || bytes / kSectorBytes > sectors - sector) return BlockStatus::io_error;
    if (sector * kSectorBytes % disk.block_bytes != 0) return BlockStatus::io_error;
    command.offset_bytes = sector * kSectorBytes;
    command.length_bytes = static_cast<std::uint32_t>(bytes);
    return BlockStatus::ok;
}

BlockStatus range(BlockCommand& command, const Disk& disk) {
    Range asked{};
    if (total_bytes(command.data) != sizeof asked) return BlockStatus::io_error;
    get_data(command.data, 0, std::as_writable_bytes(std::span(&asked, 1)));
    command.data = {};
    const std::uint32_t known = command.operation == Operation::write_zeroes ? kFlagUnmap : 0;
    if ((asked.flags & ~known) != 0) return BlockStatus::unsupported;
    command.unmap = command.operation == Operation::discard || (asked.flags & kFlagUnmap) != 0;
    return place(command, asked.sector, std::uint64_t{asked.sectors} * kSectorBytes, kMaxRangeBytes, disk);
}

bool changes(Operation operation) {
    return operation == Operation::write || operation == Operation::discard ||
           operation == Operation::write_zeroes;
}

BlockStatus understand(BlockCommand& command, const Header& header, std::span<Piece> readable,
                       std::span<Piece> writable, const Disk& disk) {
    switch (header.type) {
        case kTypeRead: command.operation = Operation::read; break;
        case kTypeWrite: command.operation = Operation::write; break;
        case kTypeFlush: command.operation = Operation::flush; return BlockStatus::ok;
        case kTypeGetId: command.operation = Operation::get_id; break;
        case kTypeDiscard: command.operation = Operation::discard; break;
        case kTypeWriteZeroes: command.operation = Operation::write_zeroes; break;
        default: return BlockStatus::unsupported;
    }
    const bool to_guest = command.operation == Operation::read || command.operation == Operation::get_id;
    if (!(to_guest ? readable : writable).empty()) return BlockStatus::io_error;
    command.data = to_guest ? writable : readable;
    if (disk.read_only && changes(command.operation)) return BlockStatus::io_error;
    if (command.operation == Operation::get_id) return BlockStatus::ok;
    if (command.operation == Operation::read || command.operation == Operation::write) {
        return place(command, header.sector, total_bytes(command.data), kMaxCommandBytes, disk);
    }
    return range(command, disk);
}

template <typename Copy>
void each_part(std::span<const Piece> pieces, std::uint32_t offset, std::size_t bytes, Copy&& copy) {
    std::size_t done = 0;
    for (const Piece& piece : pieces) {
        if (done == bytes) return;
        if (offset >= piece.length) {
            offset -= piece.length;
            continue;
        }
        const std::size_t part = std::min<std::size_t>(piece.length - offset, bytes - done);
        copy(piece, offset, done, part);
        done += part;
        offset = 0;
    }
    INVARIANT(done == bytes, "the caller knows what the pieces hold");
}

}  // namespace

BlockCommand parse(Chain& chain, const Disk& disk) {
    BlockCommand command;
    const auto first = std::ranges::find_if(chain.pieces, &Piece::device_writes);
    std::span<Piece> readable(chain.pieces.begin(), first);
    std::span<Piece> writable(first, chain.pieces.end());
    Header header{};
    if (writable.empty() || !take_header(readable, header)) {
        command.broken = true;
        return command;
    }
    Piece& last = writable.back();
    --last.length;
    command.status = {last.memory + last.length, last.guest_address + last.length, 1, true};
    if (last.length == 0) writable = writable.first(writable.size() - 1);
    command.refusal = understand(command, header, readable, writable, disk);
    return command;
}

void get_data(std::span<const Piece> pieces, std::uint32_t offset, std::span<std::byte> to) {
    each_part(pieces, offset, to.size(),
              [&](const Piece& piece, std::uint32_t at, std::size_t done, std::size_t bytes) {
                  std::memcpy(to.data() + done, piece.memory + at, bytes);
              });
    // what was copied is not read from the guest again
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

void put_data(std::span<const Piece> pieces, std::uint32_t offset, std::span<const std::byte> from,
              const DirtyLog& log) {
    each_part(pieces, offset, from.size(),
              [&](const Piece& piece, std::uint32_t at, std::size_t done, std::size_t bytes) {
                  std::memcpy(piece.memory + at, from.data() + done, bytes);
                  log.mark(piece.guest_address + at, bytes);
              });
}

void put_status(const Piece& status, BlockStatus value, const DirtyLog& log) {
    *status.memory = static_cast<std::byte>(value);
    log.mark(status.guest_address, 1);
}

std::uint32_t put_serial(const BlockCommand& command, std::string_view serial, const DirtyLog& log) {
    std::array<std::byte, kSerialBytes> text{};
    std::ranges::copy(std::as_bytes(std::span(serial.substr(0, kSerialBytes))), text.begin());
    const std::uint64_t bytes = std::min<std::uint64_t>(kSerialBytes, total_bytes(command.data));
    put_data(command.data, 0, std::span(text).first(bytes), log);
    return static_cast<std::uint32_t>(bytes);
}

ConfigSpace config_space(const Disk& disk, bool writeback) {
    ConfigSpace bytes{};
    const auto put = [&bytes](std::size_t at, auto value) {
        std::memcpy(bytes.data() + at, &value, sizeof value);
    };
    const std::uint32_t logical_per_physical = std::max(disk.physical_bytes / disk.block_bytes, 1U);
    const auto exponent = static_cast<std::uint8_t>(std::countr_zero(logical_per_physical));
    put(0, disk.size_bytes / kSectorBytes);
    put(12, kMaxDataPieces);
    put(20, disk.block_bytes);
    put(24, exponent);
    put(26, static_cast<std::uint16_t>(logical_per_physical));
    put(kConfigWritebackAt, static_cast<std::uint8_t>(writeback ? 1 : 0));
    put(34, disk.queues);
    put(36, kMaxRangeBytes / kSectorBytes);
    put(40, std::uint32_t{1});
    put(44, disk.physical_bytes / kSectorBytes);
    put(48, kMaxRangeBytes / kSectorBytes);
    put(52, std::uint32_t{1});
    put(56, std::uint8_t{1});
    return bytes;
}

}  // namespace gemel::vhost
