#include "adapters/vhost_user/connection.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::vhost_user {
namespace {

static_assert(CMSG_SPACE(vhost::kMaxDescriptors * sizeof(int)) <= 64);

// Other descriptors could be always readable, or wait when they are written to.
bool is_eventfd(int fd) {
    std::array<char, 64> target{};
    const ssize_t length =
        ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), target.data(), target.size());
    return length > 0 &&
           std::string_view(target.data(), static_cast<std::size_t>(length)) == "anon_inode:[eventfd]";
}

}  // namespace

Connection::Connection(ring::Reactor& reactor, int fd, const vhost::Disk& disk, std::string serial,
                       front::BlockService& service, Handlers handlers)
    : reactor_(reactor),
      handlers_(std::move(handlers)),
      socket_(fd),
      serial_(std::move(serial)),
      session_(disk),
      owner_{reactor,
             service,
             memory_,
             session_.disk(),
             serial_,
             [this](std::string_view why) { fail(why); },
             [this] { queue_changed(); }} {
    for (std::uint16_t i = 0; i < session_.queues(); ++i) queues_.push_back(std::make_unique<Queue>(owner_));
}

Connection::~Connection() {
    INVARIANT(ended_, "a connection is destroyed after its last request");
}

void Connection::start() {
    receive();
}

// ---- messages in ----

void Connection::receive() {
    if (closing_ || receiving_) return;
    vector_ = {input_.data() + have_, want_ - have_};
    received_message_ = {};
    received_message_.msg_iov = &vector_;
    received_message_.msg_iovlen = 1;
    received_message_.msg_control = control_.bytes.data();
    received_message_.msg_controllen = control_.bytes.size();
    receiving_ = true;
    reactor_.receive_message(socket_.get(), received_message_, MSG_CMSG_CLOEXEC, *this);
}

bool Connection::collect_descriptors() {
    for (cmsghdr* one = CMSG_FIRSTHDR(&received_message_); one != nullptr;
         one = CMSG_NXTHDR(&received_message_, one)) {
        if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (one->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(one) + i * sizeof(int), sizeof fd);
            received_.emplace_back(fd);
        }
    }
    return received_.size() <= vhost::kMaxDescriptors && (received_message_.msg_flags & MSG_CTRUNC) == 0;
}

void Connection::on_complete(std::int32_t result, std::uint32_t) {
    receiving_ = false;
    const bool well = result <= 0 || collect_descriptors();
    if (closing_) return end_if_idle();
    if (result == -EINTR || result == -EAGAIN) return receive();
    if (result == 0) return close();
    if (result < 0) return fail(std::strerror(-result));
    if (!well) return fail("a message with more descriptors than this protocol has");
    have_ += static_cast<std::size_t>(result);
    if (have_ < want_) return receive();
    const auto header = std::span(input_).first<vhost::kHeaderBytes>();
    if (want_ == vhost::kHeaderBytes) {
        const auto bytes = vhost::Session::payload_bytes(header);
        if (!bytes) return fail("what was received is no message of the vhost-user protocol");
        want_ += *bytes;
        if (have_ < want_) return receive();
    }
    message();
}

void Connection::message() {
    const auto header = std::span(input_).first<vhost::kHeaderBytes>();
    const auto payload = std::span(input_).subspan(vhost::kHeaderBytes, want_ - vhost::kHeaderBytes);
    act(session_.message(header, payload, received_.size()));
}

std::vector<int> Connection::descriptors() const {
    std::vector<int> fds;
    for (const OwnedFd& one : received_) fds.push_back(one.get());
    return fds;
}

// ---- what they ask for ----

void Connection::act(const vhost::Action& action) {
    struct Actor {
        Connection& c;
        void operator()(const vhost::Nothing&) const {
            if (c.send_reply()) c.answered();
        }
        void operator()(const vhost::MapMemory& o) const {
            c.done(c.memory_.replace(o.regions, c.descriptors()));
        }
        void operator()(const vhost::AddMemory& o) const {
            c.done(c.memory_.add(o.region, c.received_.front().get()));
        }
        void operator()(const vhost::RemoveMemory& o) const { c.done(c.memory_.remove(o.region)); }
        void operator()(const vhost::MapLog& o) const {
            c.done(c.memory_.map_log(c.received_.front().get(), o.offset, o.size_bytes));
        }
        void operator()(const vhost::SetEvent& o) const { c.act_on_event(o); }
        void operator()(const vhost::SetRequestChannel&) const {
            c.request_channel_ = std::move(c.received_.front());
            c.done(true);
        }
        void operator()(const vhost::StopQueue& o) const { c.stop_queue(o.queue); }
        void operator()(const vhost::MakeInFlight& o) const { c.make_in_flight(o.bytes); }
        void operator()(const vhost::MapInFlight& o) const {
            // a ring's records do not change under it
            if (c.any_ring()) return c.done(false);
            c.done(c.memory_.map_in_flight(c.received_.front().get(), o.offset, o.size_bytes));
        }
        void operator()(const vhost::Close& o) const { c.fail(o.reason); }
    };
    std::visit(Actor{*this}, action);
}

bool Connection::any_ring() const {
    return std::ranges::any_of(queues_, [](const auto& each) { return each->is_open(); });
}

void Connection::make_in_flight(std::uint64_t bytes) {
    OwnedFd memory;
    if (!any_ring()) {
        auto made = memory_.make_in_flight(bytes);
        if (!made) handlers_.log(made.error().message);
        if (made) memory = OwnedFd(*made);
    }
    session_.in_flight_made(memory.is_open());
    if (send_reply(memory.get())) answered();
}

// The old descriptor's operation has to end before the new one takes its place.
void Connection::act_on_event(const vhost::SetEvent& event) {
    if (event.present && !is_eventfd(received_.front().get())) {
        return fail("a queue's event is no eventfd");
    }
    if (event.event == vhost::QueueEvent::error) return done(true);  // what is wrong ends the connection
    event_ = event;
    waiting_ = Waiting::event;
    waiting_queue_ = event.queue;
    queues_[event.queue]->unsettle();
    queue_changed();
}

void Connection::place_event() {
    Queue& queue = *queues_[event_.queue];
    OwnedFd fd = event_.present ? std::move(received_.front()) : OwnedFd();
    if (event_.event == vhost::QueueEvent::kick) {
        queue.set_kick(std::move(fd));
    } else {
        queue.set_call(std::move(fd));
    }
    done(true);
}

void Connection::stop_queue(std::uint16_t index) {
    queues_[index]->run(false, false);
    waiting_ = Waiting::stop;
    waiting_queue_ = index;
    queue_changed();
}

void Connection::queue_changed() {
    if (closing_) return end_if_idle();
    Queue& queue = *queues_[waiting_queue_];
    if (waiting_ == Waiting::event && queue.settled()) {
        waiting_ = Waiting::nothing;
        place_event();
    } else if (waiting_ == Waiting::stop && queue.drained()) {
        waiting_ = Waiting::nothing;
        const std::uint32_t base =
            queue.is_open() ? queue.close_ring() : session_.queue(waiting_queue_).setup.base;
        session_.queue_stopped(waiting_queue_, base);
        if (send_reply()) answered();
    }
}

// ---- answers ----

void Connection::done(const Status& status) {
    if (!status) handlers_.log("vhost-user: " + status.error().message);
    done(status.has_value());
}

void Connection::done(bool well) {
    session_.done(well);
    if (!session_.failed().empty()) return fail(session_.failed());
    if (send_reply()) answered();
}

bool Connection::send_reply(int descriptor) {
    const auto bytes = session_.reply();
    if (bytes.empty()) return true;
    iovec vector{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    Control control;
    if (descriptor >= 0) {
        message.msg_control = control.bytes.data();
        message.msg_controllen = CMSG_SPACE(sizeof(int));
        cmsghdr* one = CMSG_FIRSTHDR(&message);
        one->cmsg_level = SOL_SOCKET;
        one->cmsg_type = SCM_RIGHTS;
        one->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(one), &descriptor, sizeof descriptor);
    }
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(bytes.size())) return true;
    fail("the front end does not read its answers");
    return false;
}

void Connection::answered() {
    received_.clear();
    have_ = 0;
    want_ = vhost::kHeaderBytes;
    memory_.log(session_.logs());
    if (!remap()) return fail("a queue's memory is not shared any more");
    for (std::uint16_t i = 0; i < session_.queues(); ++i) {
        if (!arrange(i))
            return fail(
                fmt::format("queue {} cannot be opened: its parts lie outside the shared "
                            "memory, or its in-flight records make no sense",
                            i));
    }
    receive();
}

bool Connection::remap() {
    return std::ranges::all_of(queues_, [](const auto& each) { return each->remap(); });
}

bool Connection::arrange(std::uint16_t index) {
    const vhost::QueueState& state = session_.queue(index);
    Queue& queue = *queues_[index];
    if (state.runs() && !queue.is_open()) {
        vhost::RingSetup setup = state.setup;
        const auto records = session_.records(index);
        const auto all = memory_.in_flight();
        if (records.bytes > 0 && records.offset + records.bytes <= all.size()) {
            setup.in_flight = all.subspan(records.offset, records.bytes);
        }
        if (!queue.open(session_.packed(), setup)) return false;
    }
    queue.log_used(state.setup.log_used && session_.logs(), state.setup.used_log);
    queue.run(state.runs(), session_.write_through());
    return true;
}

// ---- the end ----

void Connection::fail(std::string_view why) {
    if (closing_) return;
    handlers_.log(fmt::format("vhost-user connection closed: {}", why));
    close();
}

void Connection::close() {
    if (closing_) return;
    closing_ = true;
    waiting_ = Waiting::nothing;
    ::shutdown(socket_.get(), SHUT_RDWR);
    if (receiving_) reactor_.cancel(*this);
    for (const auto& queue : queues_) queue->close();
    // not from inside the caller's call
    reactor_.post([this] { end_if_idle(); });
}

void Connection::end_if_idle() {
    if (ended_ || !closing_ || receiving_) return;
    if (!std::ranges::all_of(queues_, [](const auto& each) { return each->idle(); })) return;
    ended_ = true;
    handlers_.ended(*this);
}

front::Door door(ring::Reactor& reactor, front::BlockService& service, const vhost::Disk& disk,
                 std::string serial) {
    return {
        "vhost", 1,
        [&reactor, &service, disk, serial = std::move(serial)](int fd, front::Connection::Handlers handlers) {
            return std::make_unique<Connection>(reactor, fd, disk, serial, service, std::move(handlers));
        }};
}

}  // namespace gemel::vhost_user
