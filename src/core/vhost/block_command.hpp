// BlockCommand: what one chain of a virtio block device asks for, and the device's configuration space.
// parse() trusts nothing: a chain that is no block request is `broken` (the guest's driver is wrong and gets
// no answer, because there is no place for one); one that cannot be done carries its answer in `refusal`.
// Source: VIRTIO 1.1, "Block Device".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/vhost/ring.hpp"

namespace gemel::vhost {

inline constexpr std::uint32_t kSectorBytes = 512;
inline constexpr std::uint32_t kMaxCommandBytes = 32U << 20;  // of a read or a write
inline constexpr std::uint32_t kMaxRangeBytes = 1U << 30;     // of a discard or a write of zeroes
inline constexpr std::uint32_t kMaxDataPieces = 126;  // announced; with header and status 128 descriptors
inline constexpr std::size_t kSerialBytes = 20;

enum class Operation : std::uint8_t { read, write, flush, discard, write_zeroes, get_id };

enum class BlockStatus : std::uint8_t { ok = 0, io_error = 1, unsupported = 2 };

struct Disk {
    std::uint64_t size_bytes = 0;
    std::uint32_t block_bytes = 512;  // logical; what requests are aligned to
    std::uint32_t physical_bytes = 4096;
    std::uint16_t queues = 1;
    bool read_only = false;
};

struct BlockCommand {
    Operation operation = Operation::read;
    BlockStatus refusal = BlockStatus::ok;  // otherwise: answer this, do nothing
    bool broken = false;
    bool unmap = false;  // write_zeroes: the range may be deallocated
    std::uint64_t offset_bytes = 0;
    std::uint32_t length_bytes = 0;
    std::span<Piece> data;  // of the chain: what is written to the disk, or where what was read goes
    Piece status;           // one byte
};

BlockCommand parse(Chain& chain, const Disk& disk);

// Copies between the pieces, from byte `offset` of them on, and memory of ours; the caller knows that they
// hold so much. put_data() marks what it wrote in the log.
void get_data(std::span<const Piece> pieces, std::uint32_t offset, std::span<std::byte> to);
void put_data(std::span<const Piece> pieces, std::uint32_t offset, std::span<const std::byte> from,
              const DirtyLog& log);
void put_status(const Piece& status, BlockStatus value, const DirtyLog& log);
// get_id: at most kSerialBytes of it, filled up with zero bytes. Returns how many bytes were written.
std::uint32_t put_serial(const BlockCommand& command, std::string_view serial, const DirtyLog& log);

inline constexpr std::size_t kConfigBytes = 60;
inline constexpr std::size_t kConfigWritebackAt = 32;
using ConfigSpace = std::array<std::byte, kConfigBytes>;
ConfigSpace config_space(const Disk& disk, bool writeback);

}  // namespace gemel::vhost
