#include "adapters/vhost_user/queue.hpp"

#include <algorithm>
#include <cerrno>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>

#include "base/invariant.hpp"

namespace gemel::vhost_user {
namespace {

constexpr int kTakenAtOnce = 256;  // then others have their turn
using front::kNoPayload;

front::BlockOperation operation_of(const vhost::BlockCommand& command) {
    switch (command.operation) {
        case vhost::Operation::read: return front::BlockOperation::read;
        case vhost::Operation::write: return front::BlockOperation::write;
        case vhost::Operation::discard: return front::BlockOperation::discard;
        case vhost::Operation::write_zeroes:
            return command.unmap ? front::BlockOperation::discard : front::BlockOperation::write_zeroes;
        case vhost::Operation::flush:
        case vhost::Operation::get_id: break;
    }
    return front::BlockOperation::flush;
}

bool has_payload(const vhost::BlockCommand& command) {
    return command.operation == vhost::Operation::read || command.operation == vhost::Operation::write;
}

}  // namespace

Queue::Queue(Owner& owner) : owner_(owner), kick_(*this, &Queue::kicked), call_(*this, &Queue::called) {}

Queue::~Queue() {
    INVARIANT(idle(), "a queue is destroyed after its last request");
    owner_.reactor.buffers().stop_waiting(*this);
}

// ---- the two events ----

void Queue::set_kick(OwnedFd fd) {
    INVARIANT(settled(), "a descriptor in use is not replaced");
    kick_.fd = std::move(fd);
    unsettling_ = false;
    wait_for_kick();
    if (!ring_) return;
    serve_later();
    call();  // nobody was told meanwhile
}

void Queue::set_call(OwnedFd fd) {
    INVARIANT(settled(), "a descriptor in use is not replaced");
    call_.fd = std::move(fd);
    unsettling_ = false;
    wait_for_kick();
    // what was shown between the old one and this may have gone unnoticed
    if (ring_) call();
}

void Queue::unsettle() {
    unsettling_ = true;
    if (kick_.busy) owner_.reactor.cancel(kick_);
    // a write to a full eventfd of somebody who does not read it
    if (call_.busy) owner_.reactor.cancel(call_);
}

void Queue::wait_for_kick() {
    if (kick_.busy || !kick_.fd.is_open() || !ring_ || unsettling_ || closing_) return;
    kick_.busy = true;
    owner_.reactor.when_readable(kick_.fd.get(), kick_);
}

void Queue::kicked(std::int32_t result) {
    if (result < 0 || unsettling_ || closing_) return owner_.changed();
    std::uint64_t count = 0;
    iovec vector{&count, sizeof count};
    // never waits, whatever the descriptor's mode is: it is the front end's too
    if (::preadv2(kick_.fd.get(), &vector, 1, -1, RWF_NOWAIT) < 0 && errno != EAGAIN && errno != EINTR) {
        return owner_.failed("a queue's kick cannot be read");
    }
    serve();
    wait_for_kick();
}

void Queue::call() {
    if (!call_.fd.is_open() || unsettling_) return;
    if (call_.busy) {
        call_again_ = true;
        return;
    }
    call_.busy = true;
    // through the ring: a descriptor that its owner made blocking, and filled, must not stop this thread
    owner_.reactor.write(call_.fd.get(), std::as_bytes(std::span(&call_value_, 1)), 0, 0, call_);
}

void Queue::called(std::int32_t) {
    if (std::exchange(call_again_, false)) call();
    if (!call_.busy) owner_.changed();
}

// ---- the ring ----

bool Queue::open(bool packed, const vhost::RingSetup& setup) {
    INVARIANT(!ring_ && commands_open_ == 0, "a queue has one ring at a time");
    ring_ = vhost::Ring::open(packed, setup, owner_.memory.guest(), owner_.memory.dirty_log());
    if (!ring_) return false;
    ring_memory_ = owner_.memory.hold();
    const std::size_t commands = std::min<std::size_t>(setup.size, kMaxCommands);
    commands_ = std::vector<Command>(commands);
    parts_ = std::vector<Part>(kMaxParts);
    free_commands_.clear();
    free_parts_.clear();
    for (std::size_t i = commands; i > 0; --i) free_commands_.push_back(static_cast<std::uint32_t>(i - 1));
    for (std::size_t i = kMaxParts; i > 0; --i) free_parts_.push_back(static_cast<std::uint32_t>(i - 1));
    for (Part& part : parts_) part.queue = this;
    wait_for_kick();
    // a former process may have died between showing and telling
    call();
    return true;
}

void Queue::run(bool running, bool write_through) {
    const bool starts = running && !running_;
    running_ = running;
    write_through_ = write_through;
    if (starts) serve_later();
}

bool Queue::remap() {
    if (!ring_) return true;
    if (!ring_->remap()) return false;
    ring_memory_ = owner_.memory.hold();
    return true;
}

void Queue::log_used(bool on, std::uint64_t address) {
    if (ring_) ring_->log_used(on, address);
}

bool Queue::drained() const {
    return commands_open_ == 0 && (!ring_ || !ring_->has_again());
}

std::uint32_t Queue::close_ring() {
    INVARIANT(ring_ && drained(), "a ring is closed when nothing of it is under way");
    show();
    const std::uint32_t base = ring_->base();
    ring_.reset();
    ring_memory_.reset();
    running_ = false;
    stalled_ = false;
    return base;
}

void Queue::close() {
    closing_ = true;
    unsettle();
    owner_.reactor.buffers().stop_waiting(*this);
    if (current_ != kNone) {
        commands_[current_].begun = true;
        commands_[current_].status = front::BlockStatus::refused;
        end_if_done(std::exchange(current_, kNone));
    }
}

// ---- taking ----

void Queue::serve_later() {
    if (std::exchange(posted_, true)) return;
    owner_.reactor.post([this] {
        posted_ = false;
        serve();
        owner_.changed();
    });
}

void Queue::serve() {
    if (!ring_ || closing_) return;
    show();
    stalled_ = false;
    if (current_ != kNone && !go_on()) return;
    for (int taken = 0; running_ || ring_->has_again();) {
        ring_->want_kicks(false);
        while (!stalled_ && !closing_ && (running_ || ring_->has_again()) && take_one()) {
            if (++taken == kTakenAtOnce) return serve_later();
        }
        if (stalled_ || closing_ || ring_->broken()) return;
        if (!running_ || !ring_->want_kicks(true)) return;
    }
}

// false: there is nothing (more) to be taken, or no room
bool Queue::take_one() {
    if (free_commands_.empty()) {
        stalled_ = true;
        return false;
    }
    show();  // a request may have ended inside the service's call
    const std::uint32_t index = free_commands_.back();
    Command& command = commands_[index];
    const vhost::Taken taken = ring_->take(command.chain);
    if (taken == vhost::Taken::nothing) return false;
    if (taken == vhost::Taken::broken) {
        owner_.failed(ring_->problem());
        return false;
    }
    free_commands_.pop_back();
    ++commands_open_;
    command.memory = owner_.memory.hold();
    command.command = vhost::parse(command.chain, owner_.disk);
    command.parts_open = command.at = 0;
    command.begun = false;
    command.status = front::BlockStatus::ok;
    begin(index);
    return true;
}

void Queue::begin(std::uint32_t index) {
    Command& command = commands_[index];
    if (command.command.broken) {
        command.begun = true;
        command.status = front::BlockStatus::refused;  // there is no place for an answer
        end_if_done(index);
        return owner_.failed("a chain that is no request of a block device");
    }
    if (command.command.refusal != vhost::BlockStatus::ok) return finish(index, command.command.refusal, 0);
    if (command.command.operation == vhost::Operation::get_id) {
        const std::uint32_t bytes =
            vhost::put_serial(command.command, owner_.serial, owner_.memory.dirty_log());
        return finish(index, vhost::BlockStatus::ok, bytes);
    }
    current_ = index;
    go_on();
}

// Begins parts of the current command. false: not all, for want of something.
bool Queue::go_on() {
    const std::uint32_t index = current_;
    Command& command = commands_[index];
    for (;;) {
        Part* part = take_part(command, index);
        if (part == nullptr) {
            stalled_ = true;
            return false;
        }
        const bool last = command.at == command.command.length_bytes || !has_payload(command.command);
        if (part->operation == front::BlockOperation::write) {
            const auto memory = owner_.reactor.buffers().memory(part->payload).first(part->length);
            vhost::get_data(command.command.data, part->at, memory);
        }
        command.begun = last;
        if (last) current_ = kNone;
        owner_.service.submit(*part);
        if (last || closing_) return true;
    }
}

Queue::Part* Queue::take_part(Command& command, std::uint32_t index) {
    if (free_parts_.empty()) return nullptr;
    std::uint32_t payload = kNoPayload;
    std::uint32_t bytes = command.command.length_bytes;
    if (has_payload(command.command)) {
        bytes = std::min(bytes - command.at, kPartBytes);
        if (payload_in_flight_ > 0 && payload_in_flight_ + bytes > kMaxPayloadInFlight) return nullptr;
        const auto piece = owner_.reactor.buffers().take(bytes, ring::Share::front);
        if (!piece) {
            wants_memory_ = true;
            owner_.reactor.buffers().wait(*this, ring::Share::front);
            return nullptr;
        }
        payload = *piece;
        payload_in_flight_ += bytes;
    }
    Part& part = parts_[free_parts_.back()];
    free_parts_.pop_back();
    part.command_index = index;
    part.at = command.at;
    part.operation = operation_of(command.command);
    part.fua = write_through_ && part.operation != front::BlockOperation::read;
    part.payload = payload;
    part.offset = command.command.offset_bytes + command.at;
    part.length = bytes;
    command.at += bytes;
    ++command.parts_open;
    return &part;
}

bool Queue::try_again() {
    wants_memory_ = false;
    serve();
    return !wants_memory_;
}

// ---- giving back ----

void Queue::part_done(Part& part, front::BlockStatus status) {
    const std::uint32_t index = part.command_index;
    Command& command = commands_[index];
    --command.parts_open;
    if (status != front::BlockStatus::ok) {
        // of several the one that forbids an answer
        if (command.status != front::BlockStatus::refused) command.status = status;
    } else if (part.operation == front::BlockOperation::read) {
        const auto memory = owner_.reactor.buffers().memory(part.payload).first(part.length);
        vhost::put_data(command.command.data, part.at, memory, owner_.memory.dirty_log());
    }
    release(part);
    end_if_done(index);
    show_later();
}

void Queue::end_if_done(std::uint32_t index) {
    Command& command = commands_[index];
    if (command.parts_open > 0 || !command.begun) return;
    const bool well = command.status == front::BlockStatus::ok;
    if (command.status == front::BlockStatus::refused || (closing_ && !well)) {
        const bool tell = !closing_;
        free_commands_.push_back(index);
        --commands_open_;
        command.memory.reset();
        if (tell && !command.command.broken) owner_.failed("the volume is not served here any more");
        return;
    }
    const bool to_guest = command.command.operation == vhost::Operation::read;
    finish(index, well ? vhost::BlockStatus::ok : vhost::BlockStatus::io_error,
           to_guest ? command.command.length_bytes : 0);
}

void Queue::finish(std::uint32_t index, vhost::BlockStatus status, std::uint32_t bytes) {
    Command& command = commands_[index];
    vhost::put_status(command.command.status, status, owner_.memory.dirty_log());
    ring_->put(command.chain, bytes + 1);
    shown_ = false;
    command.memory.reset();
    free_commands_.push_back(index);
    --commands_open_;
    show_later();
}

void Queue::show() {
    if (std::exchange(shown_, true)) return;
    if (ring_->publish()) call();
}

void Queue::show_later() {
    deferred_ = true;
    owner_.reactor.defer(*this);
}

void Queue::run_deferred() {
    deferred_ = false;
    show();
    if (stalled_ && !wants_memory_) serve();
    owner_.changed();
}

void Queue::release(Part& part) {
    if (part.payload != kNoPayload) {
        owner_.reactor.buffers().release(part.payload);
        payload_in_flight_ -= part.length;
        part.payload = kNoPayload;
    }
    free_parts_.push_back(static_cast<std::uint32_t>(&part - parts_.data()));
}

}  // namespace gemel::vhost_user
