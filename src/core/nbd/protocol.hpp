// Numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md) that the server side uses. All fields on
// the wire are big-endian. Nothing here does anything.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gemel::nbd {

inline constexpr std::uint64_t kGreetingMagic = 0x4e42444d41474943ULL;  // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054ULL;    // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9ULL;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;

// handshake flags
inline constexpr std::uint16_t kFixedNewstyle = 1;
inline constexpr std::uint16_t kNoZeroes = 2;

enum class OptionType : std::uint32_t {
    export_name = 1,
    abort = 2,
    list = 3,
    info = 6,
    go = 7,
    structured_reply = 8,
    list_meta_context = 9,
    set_meta_context = 10,
};

enum class OptionReply : std::uint32_t {
    ack = 1,
    server = 2,
    info = 3,
    meta_context = 4,
    unsupported = 0x80000001U,
    invalid = 0x80000003U,
    unknown = 0x80000006U,
    too_big = 0x80000009U,
};

inline constexpr std::uint16_t kInfoExport = 0;
inline constexpr std::uint16_t kInfoName = 1;
inline constexpr std::uint16_t kInfoDescription = 2;
inline constexpr std::uint16_t kInfoBlockSize = 3;

// transmission flags
inline constexpr std::uint16_t kHasFlags = 1;
inline constexpr std::uint16_t kReadOnly = 2;
inline constexpr std::uint16_t kSendFlush = 4;
inline constexpr std::uint16_t kSendFua = 8;
inline constexpr std::uint16_t kSendTrim = 32;
inline constexpr std::uint16_t kSendWriteZeroes = 64;
inline constexpr std::uint16_t kSendDontFragment = 128;
inline constexpr std::uint16_t kCanMultiConn = 256;
inline constexpr std::uint16_t kSendFastZero = 2048;

// command flags
inline constexpr std::uint16_t kFlagFua = 1;
inline constexpr std::uint16_t kFlagNoHole = 2;
inline constexpr std::uint16_t kFlagDontFragment = 4;
inline constexpr std::uint16_t kFlagRequestOne = 8;
inline constexpr std::uint16_t kFlagFastZero = 16;

// structured reply chunks
inline constexpr std::uint16_t kChunkDone = 1;
inline constexpr std::uint16_t kChunkNone = 0;
inline constexpr std::uint16_t kChunkOffsetData = 1;
inline constexpr std::uint16_t kChunkBlockStatus = 5;
inline constexpr std::uint16_t kChunkError = 0x8001;

enum class Command : std::uint16_t {
    read = 0,
    write = 1,
    disconnect = 2,
    flush = 3,
    trim = 4,
    write_zeroes = 6,
    block_status = 7,
};

// Error numbers of the protocol (equal to Linux's, but fixed by the protocol).
enum class ReplyError : std::uint32_t {
    none = 0,
    not_permitted = 1,
    io_error = 5,
    no_memory = 12,
    invalid = 22,
    no_space = 28,
    overflow = 75,
    not_supported = 95,
    shutting_down = 108,
};

inline constexpr std::size_t kRequestBytes = 28;
inline constexpr std::size_t kOptionHeaderBytes = 16;
inline constexpr std::size_t kMaxNameBytes = 4096;
inline constexpr std::uint32_t kAllocationContextId = 1;
inline constexpr char kAllocationContext[] = "base:allocation";

}  // namespace gemel::nbd
