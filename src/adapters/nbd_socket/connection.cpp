#include "adapters/nbd_socket/connection.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.hpp"
#include "base/invariant.hpp"

namespace gemel::nbd_socket {
namespace {

constexpr std::size_t kInputBytes = 32U << 10;
constexpr std::size_t kUsualRead = 16U << 10;  // more would only copy payload
constexpr std::size_t kHeadBytes = 64U << 10;
constexpr std::size_t kSegments = 2048;
constexpr std::size_t kMaxBacklog = 512;  // segments of answers a client may leave unread

static_assert(kInputBytes >= nbd::kReceiveBytes);

nbd::ReplyError error_of(BlockStatus status) {
    switch (status) {
        case BlockStatus::ok: return nbd::ReplyError::none;
        case BlockStatus::out_of_space: return nbd::ReplyError::no_space;
        case BlockStatus::refused: return nbd::ReplyError::shutting_down;
        case BlockStatus::io_error: break;
    }
    return nbd::ReplyError::io_error;
}

BlockOperation operation_of(const nbd::Request& request) {
    switch (request.command) {
        case nbd::Command::read: return BlockOperation::read;
        case nbd::Command::write: return BlockOperation::write;
        case nbd::Command::trim: return BlockOperation::discard;
        case nbd::Command::write_zeroes:
            // without NO_HOLE the client likes the space back
            return request.no_hole() ? BlockOperation::write_zeroes : BlockOperation::discard;
        case nbd::Command::flush:
        case nbd::Command::disconnect:
        case nbd::Command::block_status: break;
    }
    return BlockOperation::flush;
}

}  // namespace

Connection::Connection(ring::Reactor& reactor, int fd, nbd::Export exported, BlockService& service,
                       Handlers handlers)
    : reactor_(reactor),
      handlers_(std::move(handlers)),
      service_(service),
      server_(std::move(exported)),
      stream_(reactor, *this, fd, kHeadBytes, kSegments),
      input_(kInputBytes),
      operations_(kMaxRequests),
      parts_(kMaxParts) {
    for (std::uint32_t i = kMaxRequests; i > 0; --i) free_operations_.push_back(i - 1);
    for (std::uint32_t i = kMaxParts; i > 0; --i) free_parts_.push_back(i - 1);
    for (auto& part : parts_) part.connection = this;
    reads_waiting_.reserve(kMaxRequests);
}

Connection::~Connection() {
    INVARIANT(submitted_ == 0, "a connection is destroyed after its last request");
    reactor_.buffers().stop_waiting(*this);
}

void Connection::start() {
    if (send(server_.greeting())) read_more();
}

// ---- the client's bytes ----

void Connection::read_more() {
    if (!stream_.is_open()) return;
    const std::size_t have = input_last_ - input_first_;
    if (input_first_ > 0) {
        std::memmove(input_.data(), input_.data() + input_first_, have);
        input_first_ = 0;
        input_last_ = have;
    }
    const std::size_t until = have < kUsualRead ? kUsualRead : input_.size();
    stream_.receive(std::span(input_).subspan(input_last_, until - input_last_));
}

void Connection::on_received(std::size_t bytes) {
    if (receiving_ == nullptr) {
        input_last_ += bytes;
    } else if (!write_part_complete()) {
        return;
    }
    parse();
}

void Connection::parse() {
    while (stream_.is_open() && parse_one()) {
    }
}

// false: waits for something, or is over
bool Connection::parse_one() {
    if (current_ != kNone) return go_on();
    if (free_operations_.empty() || stream_.unsent_segments() > kMaxBacklog) {
        stalled_ = true;
        return false;
    }
    const auto step = server_.step(unread());
    input_first_ += step.consumed;
    if (!step.reply.empty() && !send(step.reply)) return false;
    return handle(step);
}

bool Connection::handle(const nbd::Step& step) {
    if (std::holds_alternative<nbd::NeedBytes>(step.found)) {
        read_more();
        return false;
    }
    if (const auto* submit = std::get_if<nbd::Submit>(&step.found)) return begin(submit->request);
    if (const auto* payload = std::get_if<nbd::Payload>(&step.found)) return begin(payload->request);
    if (const auto* close_now = std::get_if<nbd::Close>(&step.found)) {
        orderly_ = close_now->orderly;
        if (!orderly_) fail(std::string(close_now->reason));
        // an orderly client closes the socket itself once it has its last answer
        else
            read_more();
        return false;
    }
    return true;
}

void Connection::resume() {
    if (!std::exchange(stalled_, false)) return;
    parse();
}

// ---- requests ----

bool Connection::begin(const nbd::Request& request) {
    const std::uint32_t index = free_operations_.back();
    free_operations_.pop_back();
    Operation& operation = operations_[index];
    operation = Operation{.request = request};
    if (request.command == nbd::Command::block_status) {
        // Which blocks are allocated differs between the replicas; "all of it" is always a true answer.
        if (send(server_.block_status_reply(request, request.length, false).view())) finish(index, true);
        return stream_.is_open();
    }
    const bool too_long = (request.flags & nbd::kFlagDontFragment) != 0 && request.length > kPartBytes;
    if (too_long) operation.error = nbd::ReplyError::overflow;
    if (too_long || (request.length == 0 && request.command != nbd::Command::flush)) {
        finish(index, false);
        return stream_.is_open();
    }
    current_ = index;
    return go_on();
}

// true: the current operation needs no more of the stream
bool Connection::go_on() {
    switch (operations_[current_].request.command) {
        case nbd::Command::write: return start_write_part();
        case nbd::Command::read: {
            if (!start_read_part(current_)) {
                stalled_ = true;
                return false;
            }
            current_ = kNone;
            return true;
        }
        case nbd::Command::flush:
        case nbd::Command::trim:
        case nbd::Command::write_zeroes:
        case nbd::Command::disconnect:
        case nbd::Command::block_status: break;
    }
    return start_plain();
}

Connection::Part* Connection::take_part(std::uint32_t index, std::uint32_t bytes, bool with_payload) {
    if (free_parts_.empty()) return nullptr;
    std::uint32_t payload = kNoPayload;
    if (with_payload) {
        if (payload_in_flight_ > 0 && payload_in_flight_ + bytes > kMaxPayloadInFlight) return nullptr;
        const auto piece = reactor_.buffers().take(bytes, ring::Share::front);
        if (!piece) {
            wants_memory_ = true;
            reactor_.buffers().wait(*this, ring::Share::front);
            return nullptr;
        }
        payload = *piece;
        payload_in_flight_ += bytes;
    }
    Operation& operation = operations_[index];
    Part& part = parts_[free_parts_.back()];
    free_parts_.pop_back();
    part.operation_index = index;
    part.operation = operation_of(operation.request);
    part.fua = operation.request.fua();
    part.payload = payload;
    part.offset = operation.request.offset + operation.at;
    part.length = bytes;
    operation.at += bytes;
    ++operation.parts_open;
    return &part;
}

bool Connection::start_plain() {
    Part* part = take_part(current_, operations_[current_].request.length, false);
    if (part == nullptr) {
        stalled_ = true;
        return false;
    }
    current_ = kNone;
    submit(*part);
    return true;
}

bool Connection::start_write_part() {
    const Operation& operation = operations_[current_];
    Part* part = take_part(current_, std::min(operation.request.length - operation.at, kPartBytes), true);
    if (part == nullptr) {
        stalled_ = true;
        return false;
    }
    receiving_ = part;
    const auto memory = reactor_.buffers().memory(part->payload).first(part->length);
    const auto early = unread().first(std::min(unread().size(), memory.size()));
    copy_bytes(early, memory);
    input_first_ += early.size();
    if (early.size() == memory.size()) return write_part_complete();
    stream_.receive_all(memory.subspan(early.size()));
    return false;
}

bool Connection::write_part_complete() {
    Part& part = *std::exchange(receiving_, nullptr);
    const Operation& operation = operations_[current_];
    if (operation.at == operation.request.length) current_ = kNone;
    submit(part);
    return stream_.is_open();
}

bool Connection::start_read_part(std::uint32_t index) {
    const Operation& operation = operations_[index];
    Part* part = take_part(index, std::min(operation.request.length - operation.at, kPartBytes), true);
    if (part == nullptr) return false;
    submit(*part);
    return true;
}

void Connection::submit(Part& part) {
    ++submitted_;
    service_.submit(part);
}

// ---- answers ----

void Connection::part_done(Part& part, BlockStatus status) {
    --submitted_;
    const std::uint32_t index = part.operation_index;
    Operation& operation = operations_[index];
    --operation.parts_open;
    if (status != BlockStatus::ok && operation.error == nbd::ReplyError::none)
        operation.error = error_of(status);
    if (!stream_.is_open()) {
        release_part(part);
        return end_if_idle();
    }
    if (operation.request.command == nbd::Command::read) {
        read_part_done(index, part);
    } else {
        release_part(part);
        if (operation.parts_open == 0 && operation.at == operation.request.length) finish(index, false);
    }
    resume();
}

// The parts of a read are executed and sent one after the other.
void Connection::read_part_done(std::uint32_t index, Part& part) {
    Operation& operation = operations_[index];
    const nbd::Request& request = operation.request;
    if (operation.error != nbd::ReplyError::none) {
        release_part(part);
        // a simple reply has promised success already
        if (operation.data_sent && !server_.structured()) return fail("a later part of a read failed");
        return finish(index, false);
    }
    const bool last = operation.at == request.length;
    const auto head = server_.read_head(request, part.offset, part.length, last);
    const bool with_head = server_.structured() || !operation.data_sent;
    const auto bytes = with_head ? head.view() : std::span<const std::byte>();
    const bool sent = stream_.send(bytes, part.payload, part.length);
    operation.data_sent = true;
    release_part(part);
    if (!sent) return fail("the client does not read its answers");
    if (last) return finish(index, true);
    if (!start_read_part(index)) reads_waiting_.push_back(index);
}

void Connection::finish(std::uint32_t index, bool answered) {
    const Operation& operation = operations_[index];
    if (!answered && stream_.is_open()) send(server_.plain_reply(operation.request, operation.error).view());
    free_operations_.push_back(index);
}

bool Connection::send(std::span<const std::byte> bytes) {
    if (stream_.send(bytes)) return true;
    fail("the client does not read its answers");
    return false;
}

void Connection::release_part(Part& part) {
    if (part.payload != kNoPayload) {
        reactor_.buffers().release(part.payload);
        payload_in_flight_ -= part.length;
        part.payload = kNoPayload;
    }
    free_parts_.push_back(static_cast<std::uint32_t>(&part - parts_.data()));
}

bool Connection::try_again() {
    wants_memory_ = false;
    if (!stream_.is_open()) return true;
    while (!reads_waiting_.empty() && start_read_part(reads_waiting_.front())) {
        reads_waiting_.erase(reads_waiting_.begin());
    }
    if (!wants_memory_) resume();
    return !wants_memory_;
}

void Connection::on_drained() {
    resume();
}

// ---- the end ----

void Connection::fail(const std::string& why) {
    if (!stream_.is_open()) return;
    handlers_.log("NBD connection closed: " + why);
    stream_.close();
}

void Connection::close() {
    stream_.close();
}

void Connection::on_broken(std::string_view reason) {
    const bool usual = orderly_ || reason == "closed by the other side";
    if (!usual) handlers_.log("NBD connection lost: " + std::string(reason));
}

void Connection::on_closed() {
    stream_gone_ = true;
    reactor_.buffers().stop_waiting(*this);
    if (receiving_ != nullptr) release_part(*std::exchange(receiving_, nullptr));
    end_if_idle();
}

void Connection::end_if_idle() {
    if (!stream_gone_ || submitted_ > 0 || ended_) return;
    ended_ = true;
    handlers_.ended(*this);
}

front::Door door(ring::Reactor& reactor, BlockService& service, nbd::Export exported) {
    constexpr std::size_t kMaxConnections = 16;
    return {
        "nbd", kMaxConnections,
        [&reactor, &service, exported = std::move(exported)](int fd, front::Connection::Handlers handlers) {
            return std::make_unique<Connection>(reactor, fd, exported, service, std::move(handlers));
        }};
}

}  // namespace gemel::nbd_socket
