// Server: one connection of an NBD client as a pure machine. Bytes of the client go in through step(), what
// is to be done comes out: bytes to send, requests to execute, "the next N bytes are a write's payload".
// Payload never passes through the machine: the driver reads it straight into its own buffer.
//
// Speaks fixed newstyle with EXPORT_NAME, LIST, INFO, GO, STRUCTURED_REPLY, LIST/SET_META_CONTEXT
// (base:allocation), then READ, WRITE, FLUSH, TRIM, WRITE_ZEROES, BLOCK_STATUS, DISC.
// A client is not trusted: whatever it sends, the machine consumes at most what it was given, answers within
// kMaxReplyBytes a step, and asks for no payload above kMaxRequestBytes. Not in it: TLS (the socket is a
// local one), the bound on requests in flight (the driver simply stops calling step()), the sockets.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "core/nbd/protocol.hpp"

namespace gemel::nbd {

inline constexpr std::uint32_t kMaxRequestBytes = 32U << 20;
inline constexpr std::size_t kMaxOptionBytes =
    8192;                                            // one option's data; longer ones are skipped and refused
inline constexpr std::size_t kMaxReplyBytes = 2048;  // of one step
inline constexpr std::uint32_t kMaxOptions = 256;    // a client that is still haggling then is sent away
// The driver's receive buffer must hold at least this much contiguously.
inline constexpr std::size_t kReceiveBytes = kOptionHeaderBytes + kMaxOptionBytes;

struct Export {
    std::string name;         // at most 255 bytes; the empty name means the same export
    std::string description;  // at most 255 bytes
    std::uint64_t size_bytes = 0;
    std::uint32_t minimum_block =
        512;  // power of two; offset and length of every request are multiples of it
    std::uint32_t preferred_block = 4096;
    bool read_only = false;
    bool fast_zero = false;  // announce FAST_ZERO: zeroing never falls back to writing zeroes
};

struct Request {
    Command command = Command::read;
    std::uint16_t flags = 0;
    std::uint64_t cookie = 0;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;

    bool fua() const { return (flags & kFlagFua) != 0; }
    bool no_hole() const { return (flags & kFlagNoHole) != 0; }
    bool fast_zero() const { return (flags & kFlagFastZero) != 0; }
};

// ---- what one step found ----
struct NeedBytes {  // come back when this many bytes (counted from the unconsumed head) are there
    std::size_t at_least = 0;
};
struct Again {};         // something was consumed; call step() again
struct Transmission {};  // negotiation is over: requests follow
struct Submit {          // execute, then answer with one of the encoders below
    Request request;
};
struct Payload {  // a write: the next request.length bytes of the stream are its data; execute when they are
                  // there
    Request request;
};
struct Close {  // send the reply, let running requests end, close. orderly: the client asked for it
    bool orderly = false;
    std::string_view reason;
};
using Found = std::variant<NeedBytes, Again, Transmission, Submit, Payload, Close>;

struct Step {
    std::size_t consumed = 0;
    std::span<const std::byte> reply;  // to be sent before anything else; valid until the next step()
    Found found;
};

// An encoded reply head of a request; the data of a read follows it on the wire.
struct ReplyHead {
    std::array<std::byte, 48> bytes{};
    std::size_t size = 0;
    std::span<const std::byte> view() const { return std::span(bytes).first(size); }
};

class Server {
  public:
    explicit Server(Export exported);

    // The greeting is to be sent at once, before the client says anything.
    std::span<const std::byte> greeting();
    // bytes: everything received and not yet consumed, in order. Looks at one message.
    Step step(std::span<const std::byte> bytes);

    bool structured() const { return structured_; }
    const Export& exported() const { return export_; }

    // Head of a successful read's data, or of one piece of it in a structured reply (offset, length: of the
    // piece; last: no more pieces). A simple reply has one head for the whole request.
    ReplyHead read_head(const Request& request, std::uint64_t offset, std::uint32_t length, bool last) const;
    // Answer without data: success of anything but READ and BLOCK_STATUS, or the failure of anything.
    ReplyHead plain_reply(const Request& request, ReplyError error) const;
    // One extent of base:allocation (hole: unallocated and reads as zero).
    ReplyHead block_status_reply(const Request& request, std::uint32_t length, bool hole) const;

  private:
    enum class Phase : std::uint8_t { client_flags, options, transmission, closed };

    Step client_flags(std::span<const std::byte> bytes);
    Step option(std::span<const std::byte> bytes);
    Step handle_option(std::uint32_t type, std::span<const std::byte> data);
    Step export_name(std::span<const std::byte> data);
    Step info_or_go(OptionType type, std::span<const std::byte> data);
    Step list(std::span<const std::byte> data);
    Step structured_reply(std::span<const std::byte> data);
    Step meta_context(OptionType type, std::span<const std::byte> data);
    Step request(std::span<const std::byte> bytes);
    Step refuse(const Request& bad, ReplyError error);
    ReplyError check(const Request& candidate) const;
    Step close(bool orderly, std::string_view reason);
    Step done(Found found) const;  // the reply is what has been put so far

    std::uint16_t transmission_flags() const;
    bool is_our_name(std::string_view name) const;
    void option_reply(std::uint32_t option, OptionReply type, std::span<const std::byte> data = {});
    void option_error(std::uint32_t option, OptionReply type, std::string_view why);
    void send_info(std::uint32_t option, bool want_name, bool want_description);

    void put(std::uint64_t value, std::size_t width);
    void put_bytes(std::span<const std::byte> bytes);

    Export export_;
    Phase phase_ = Phase::client_flags;
    bool no_zeroes_ = false;
    bool structured_ = false;
    bool allocation_context_ = false;
    std::uint32_t options_seen_ = 0;
    std::uint64_t skip_ = 0;  // bytes of a refused option or payload still to be thrown away
    std::array<std::byte, kMaxReplyBytes> reply_{};
    std::size_t reply_size_ = 0;
};

}  // namespace gemel::nbd
