#include "core/nbd/server.hpp"

#include <algorithm>
#include <utility>

#include "core/nbd/wire.hpp"

namespace gemel::nbd {

Server::Server(Export exported) : export_(std::move(exported)) {
    INVARIANT(export_.name.size() <= 255 && export_.description.size() <= 255, "names fit their replies");
    INVARIANT(export_.minimum_block > 0 && (export_.minimum_block & (export_.minimum_block - 1)) == 0,
              "a block size is a power of two");
    INVARIANT(export_.size_bytes % export_.minimum_block == 0, "a volume is made of whole blocks");
}

Step Server::step(std::span<const std::byte> bytes) {
    reply_size_ = 0;
    if (skip_ > 0) {
        const std::size_t consumed = static_cast<std::size_t>(std::min<std::uint64_t>(skip_, bytes.size()));
        skip_ -= consumed;
        Step step = consumed > 0 ? done(Again{}) : done(NeedBytes{1});
        step.consumed = consumed;
        return step;
    }
    switch (phase_) {
        case Phase::client_flags: return client_flags(bytes);
        case Phase::options: return option(bytes);
        case Phase::transmission: return request(bytes);
        case Phase::closed: break;
    }
    return done(Close{false, "the connection is over"});
}

Step Server::request(std::span<const std::byte> bytes) {
    if (bytes.size() < kRequestBytes) return done(NeedBytes{kRequestBytes});
    if (load_big(bytes, 0, 4) != kRequestMagic) return close(false, "a request without its magic number");
    Request found;
    found.flags = static_cast<std::uint16_t>(load_big(bytes, 4, 2));
    found.command = static_cast<Command>(load_big(bytes, 6, 2));
    found.cookie = load_big(bytes, 8, 8);
    found.offset = load_big(bytes, 16, 8);
    found.length = static_cast<std::uint32_t>(load_big(bytes, 24, 4));

    Step step;
    if (found.command == Command::disconnect) {
        step = close(true, "the client disconnected");
    } else if (found.command == Command::write && found.length > kMaxRequestBytes) {
        // its payload cannot be taken and is too long to be thrown away
        return close(false, "a write above the announced maximum");
    } else if (const ReplyError error = check(found); error != ReplyError::none) {
        step = refuse(found, error);
    } else if (found.command == Command::write && found.length > 0) {
        step = done(Payload{found});
    } else {
        step = done(Submit{found});
    }
    step.consumed = kRequestBytes;
    return step;
}

// A request that will not be executed: answered at once, its payload thrown away as it comes.
Step Server::refuse(const Request& bad, ReplyError error) {
    put_bytes(plain_reply(bad, error).view());
    if (bad.command == Command::write) skip_ = bad.length;
    return done(Again{});
}

ReplyError Server::check(const Request& candidate) const {
    unsigned allowed = 0;
    bool changes = false;
    bool has_range = true;
    switch (candidate.command) {
        case Command::read: allowed = kFlagFua | (structured_ ? kFlagDontFragment : 0U); break;
        case Command::write:
        case Command::trim:
            allowed = kFlagFua;
            changes = true;
            break;
        case Command::write_zeroes:
            allowed = kFlagFua | kFlagNoHole | (export_.fast_zero ? kFlagFastZero : 0U);
            changes = true;
            break;
        case Command::flush:
            allowed = kFlagFua;
            has_range = false;
            break;
        case Command::block_status:
            allowed = kFlagFua | kFlagRequestOne;
            if (!allocation_context_ || candidate.length == 0) return ReplyError::invalid;
            break;
        case Command::disconnect:
        default: return ReplyError::invalid;
    }
    if ((candidate.flags & ~allowed) != 0) return ReplyError::invalid;
    if (changes && export_.read_only) return ReplyError::not_permitted;
    if (!has_range)
        return candidate.offset == 0 && candidate.length == 0 ? ReplyError::none : ReplyError::invalid;
    if (candidate.offset % export_.minimum_block != 0 || candidate.length % export_.minimum_block != 0) {
        return ReplyError::invalid;
    }
    if (candidate.offset > export_.size_bytes || candidate.length > export_.size_bytes - candidate.offset) {
        return changes ? ReplyError::no_space : ReplyError::invalid;
    }
    if (candidate.command == Command::read && candidate.length > kMaxRequestBytes)
        return ReplyError::overflow;
    return ReplyError::none;
}

ReplyHead Server::read_head(const Request& request, std::uint64_t offset, std::uint32_t length,
                            bool last) const {
    if (!structured_) return plain_reply(request, ReplyError::none);
    ReplyHead head;
    store_big(head.bytes, 0, 4, kStructuredReplyMagic);
    store_big(head.bytes, 4, 2, last ? kChunkDone : 0);
    store_big(head.bytes, 6, 2, kChunkOffsetData);
    store_big(head.bytes, 8, 8, request.cookie);
    store_big(head.bytes, 16, 4, std::uint64_t{length} + 8);
    store_big(head.bytes, 20, 8, offset);
    head.size = 28;
    return head;
}

ReplyHead Server::plain_reply(const Request& request, ReplyError error) const {
    ReplyHead head;
    const bool chunk =
        structured_ && (request.command == Command::read || request.command == Command::block_status);
    if (!chunk) {
        store_big(head.bytes, 0, 4, kSimpleReplyMagic);
        store_big(head.bytes, 4, 4, static_cast<std::uint32_t>(error));
        store_big(head.bytes, 8, 8, request.cookie);
        head.size = 16;
        return head;
    }
    const bool failed = error != ReplyError::none;
    store_big(head.bytes, 0, 4, kStructuredReplyMagic);
    store_big(head.bytes, 4, 2, kChunkDone);
    store_big(head.bytes, 6, 2, failed ? kChunkError : kChunkNone);
    store_big(head.bytes, 8, 8, request.cookie);
    store_big(head.bytes, 16, 4, failed ? 6 : 0);
    if (failed) {
        store_big(head.bytes, 20, 4, static_cast<std::uint32_t>(error));
        store_big(head.bytes, 24, 2, 0);
    }
    head.size = failed ? 26 : 20;
    return head;
}

ReplyHead Server::block_status_reply(const Request& request, std::uint32_t length, bool hole) const {
    INVARIANT(length > 0 && length <= request.length, "an extent lies inside what was asked for");
    ReplyHead head;
    store_big(head.bytes, 0, 4, kStructuredReplyMagic);
    store_big(head.bytes, 4, 2, kChunkDone);
    store_big(head.bytes, 6, 2, kChunkBlockStatus);
    store_big(head.bytes, 8, 8, request.cookie);
    store_big(head.bytes, 16, 4, 12);
    store_big(head.bytes, 20, 4, kAllocationContextId);
    store_big(head.bytes, 24, 4, length);
    store_big(head.bytes, 28, 4, hole ? 3 : 0);
    head.size = 32;
    return head;
}

Step Server::close(bool orderly, std::string_view reason) {
    phase_ = Phase::closed;
    return done(Close{orderly, reason});
}

Step Server::done(Found found) const {
    return Step{0, std::span(reply_).first(reply_size_), found};
}

void Server::put(std::uint64_t value, std::size_t width) {
    store_big(reply_, reply_size_, width, value);
    reply_size_ += width;
}

void Server::put_bytes(std::span<const std::byte> bytes) {
    INVARIANT(reply_.size() - reply_size_ >= bytes.size(), "a step's replies are bounded");
    std::ranges::copy(bytes, reply_.begin() + static_cast<std::ptrdiff_t>(reply_size_));
    reply_size_ += bytes.size();
}

}  // namespace gemel::nbd
