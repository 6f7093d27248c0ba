#include "daemons/blockd/volume.hpp"

#include <algorithm>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "adapters/config/host_incarnation.hpp"
#include "adapters/nbd_socket/connection.hpp"
#include "adapters/vhost_user/connection.hpp"
#include "base/bytes.hpp"
#include "base/invariant.hpp"
#include "core/formats/layout.hpp"
#include "core/formats/records.hpp"
#include "daemons/blockd/image.hpp"

namespace gemel::blockd {
namespace {

using namespace replication;  // NOLINT: inputs and outputs of the engine

constexpr Duration kOpenAgain = milliseconds(20);
constexpr Duration kComplainEvery = seconds(10);
constexpr Duration kViewEvery = milliseconds(250);

FrontOperation translate(front::BlockOperation operation) {
    switch (operation) {
        case front::BlockOperation::read: return FrontOperation::read;
        case front::BlockOperation::write: return FrontOperation::write;
        case front::BlockOperation::flush: return FrontOperation::flush;
        case front::BlockOperation::discard: return FrontOperation::discard;
        case front::BlockOperation::write_zeroes: break;
    }
    return FrontOperation::write_zeroes;
}

front::BlockStatus translate(IoStatus status) {
    switch (status) {
        case IoStatus::ok: return front::BlockStatus::ok;
        case IoStatus::out_of_space: return front::BlockStatus::out_of_space;
        case IoStatus::refused: return front::BlockStatus::refused;
        case IoStatus::io_error: break;
    }
    return front::BlockStatus::io_error;
}

}  // namespace

Volume::Volume(ring::Reactor& reactor, VolumeOptions options, VolumeReports reports)
    : reactor_(reactor),
      options_(std::move(options)),
      reports_(std::move(reports)),
      open_timer_(reactor, [this] { try_open(); }),
      engine_timer_(reactor, [this] { input(Tick{}); }),
      view_timer_(reactor,
                  [this] {
                      tell_view(false);
                      view_timer_.arm(reactor_.now() + kViewEvery);
                  }),
      close_timer_(reactor, [this] { closed_if_idle(); }) {}

Volume::~Volume() = default;

// ---- attaching ----

void Volume::attach(Answer answer) {
    attach_answer_ = std::move(answer);
    open_since_ = reactor_.now();
    complained_at_ = reactor_.now();
    try_open();
}

void Volume::try_open() {
    if (closing_) return;
    auto opened = disk::open_exclusively(options_.path);
    Status result;
    if (!opened) {
        result = tl::unexpected<Error>(opened.error());
    } else if (!*opened) {
        if (reactor_.now() - complained_at_ >= kComplainEvery) {
            complained_at_ = reactor_.now();
            log(fmt::format(
                "{} is held by another process (a former gemel-blockd's last I/O, QEMU, a mount); waiting "
                "for {} s now",
                options_.path, (reactor_.now() - open_since_).milliseconds() / 1000));
        }
        return open_timer_.arm(reactor_.now() + kOpenAgain);
    } else {
        result = start_engine(**opened);
    }
    if (auto answer = std::exchange(attach_answer_, nullptr)) answer(result);
}

Status Volume::start_engine(disk::OpenFile file) {
    auto disk = std::make_unique<disk::Disk>(reactor_, file);  // owns the file from here on
    const auto found = read_superblock(options_.path);
    if (!found) return tl::unexpected<Error>(found.error());
    const auto& superblock = found->superblock;
    if (superblock.volume != options_.id) {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("{} holds a replica of volume {}, not of {} ({}): check the path", options_.path,
                        superblock.volume.to_string(), options_.name, options_.id.to_string()));
    }
    const auto layout = formats::Layout::for_size(superblock.size_bytes);
    if (disk->size_bytes() < layout.backing_bytes()) {
        return fail(ErrorCode::corrupt,
                    fmt::format("{} has {} bytes, its volume needs {}: it was cut short", options_.path,
                                disk->size_bytes(), layout.backing_bytes()));
    }
    size_bytes_ = superblock.size_bytes;
    // on tmpfs: it tells a former process of this incarnation from a fresh boot
    const bool outlived = ::access(marker().c_str(), F_OK) == 0;
    const int fd = ::open(marker().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0) ::close(fd);
    engine_ = std::make_unique<Engine>(engine_config(outlived));
    io_ = std::make_unique<VolumeIo>(reactor_, std::move(disk), layout.data_offset,
                                     [this](const Input& done) { input(done); });
    start_link();
    view_timer_.arm(reactor_.now() + kViewEvery);
    input(Tick{});
    log(fmt::format("attached {} ({} bytes{})", options_.path, size_bytes_,
                    outlived ? ", a former process may have left I/O behind" : ""));
    return {};
}

EngineConfig Volume::engine_config(bool outlived) {
    EngineConfig config;
    config.node = options_.node;
    config.cluster = options_.cluster;
    config.volume = options_.id;
    config.replica = options_.replica;
    config.incarnation = options_.incarnation;
    config.process = options_.process;
    config.outlived_io_possible = outlived;
    config.heartbeat = options_.timing.heartbeat;
    config.lease = options_.timing.lease;
    config.random_seed = random_word();
    return config;
}

void Volume::start_link() {
    if (options_.peer_node.empty()) return;
    PeerLinkOptions link;
    link.session.cluster = options_.cluster;
    link.session.volume = options_.id;
    link.session.replica = options_.replica;
    link.session.node = options_.node;
    link.session.peer_node = options_.peer_node;
    link.session.incarnation = options_.incarnation;
    link.session.process = options_.process;
    link.session.heartbeat = options_.timing.heartbeat;
    link.session.link_loss = options_.timing.link_loss;
    link.links = options_.peer_links;
    link.log = [this](const std::string& line) { log(line); };
    link.input = [this](const Input& one) {
        if (const auto* up = std::get_if<PeerUp>(&one)) {
            peer_incarnation_ = up->incarnation;
            reports_.session(up->node, up->incarnation, true);
        } else if (std::holds_alternative<PeerDown>(one) && peer_incarnation_) {
            reports_.session(options_.peer_node, *peer_incarnation_, false);
        }
        input(one);
    };
    link_ = std::make_unique<PeerLink>(reactor_, std::move(link));
    link_->start();
}

void Volume::peer_connection(int fd) {
    if (link_ && !closing_) return link_->accepted(fd);
    ::close(fd);
}

// ---- the engine ----

// Inputs that come up while outputs are executed wait their turn: the engine takes one at a time.
void Volume::input(Input one) {
    inputs_.push_back(std::move(one));
    if (stepping_ || !engine_) return;
    stepping_ = true;
    while (!inputs_.empty()) {
        const Input next = std::move(inputs_.front());
        inputs_.pop_front();
        // read afresh each time: a process that was stopped must not act on an old lease (L2)
        last_step_ = std::max(last_step_, ring::Reactor::read_clock());
        outputs_.clear();
        engine_->step(last_step_, next, outputs_);
        // by index: nothing below appends to it
        for (std::size_t i = 0; i < outputs_.size(); ++i) execute(outputs_[i]);
    }
    stepping_ = false;
    engine_timer_.arm(closing_ ? Instant::never() : engine_->next_deadline());
}

void Volume::execute(Output& output) {
    struct Executor {
        Volume& v;
        void operator()(const DiskRead& o) { v.io_->start(o); }
        void operator()(const DiskWrite& o) { v.io_->start(o); }
        void operator()(const DiskZero& o) { v.io_->start(o); }
        void operator()(const DiskFlush& o) { v.io_->start(o); }
        void operator()(const DiskHash& o) { v.io_->start(o); }
        void operator()(const DiskFetch& o) { v.io_->start(o); }
        void operator()(const ReadMetadata& o) { v.io_->start(o); }
        void operator()(const WriteMetadata& o) { v.io_->start(o); }
        void operator()(const PeerSend& o) { v.link_->send(o); }
        void operator()(const PeerDrop& o) { v.link_->drop(o); }
        void operator()(const FrontComplete& o) {
            // the tag is the request's address, see submit()
            auto* request = reinterpret_cast<front::BlockRequest*>(static_cast<std::uintptr_t>(o.tag));
            if (o.data_from != kNoPayload) {  // read from the peer
                auto& buffers = v.reactor_.buffers();
                copy_bytes(buffers.memory(o.data_from).first(request->length),
                           buffers.memory(request->payload));
                buffers.release(o.data_from);
            }
            request->block_done(translate(o.status));
        }
        void operator()(const ServeFront& o) { v.open_front(o); }
        void operator()(const StopFront& o) { v.close_front(o.epoch, true); }
        void operator()(const ReleasePayload& o) { v.reactor_.buffers().release(o.payload); }
        void operator()(const Propose& o) {
            v.proposals_[o.proposal] = o;
            v.reports_.propose(v.options_.name, o);
        }
        void operator()(const NeedRecord& o) { v.reports_.need_record(v.options_.name, o.at_least_revision); }
        void operator()(const EpochRefused& o) { v.answer_refusals(o.epoch); }
        void operator()(const LeaseExtended& o) { v.reports_.lease(v.options_.name, o); }
        void operator()(const Notice& o) { v.take_notice(o); }
    };
    std::visit(Executor{*this}, output);
}

void Volume::submit(front::BlockRequest& request) {
    FrontRequest front;
    front.tag = static_cast<FrontTag>(reinterpret_cast<std::uintptr_t>(&request));
    front.epoch = front_ ? front_->epoch() : 0;
    front.operation = translate(request.operation);
    front.offset = request.offset;
    front.length = request.length;
    front.fua = request.fua;
    front.payload = request.payload;
    input(front);
}

// ---- the front end ----

std::vector<front::Door> Volume::doors() {
    nbd::Export exported;
    exported.name = options_.name;
    exported.description = "Gemel volume " + options_.name;
    exported.size_bytes = size_bytes_;
    vhost::Disk disk;
    disk.size_bytes = size_bytes_;
    disk.queues = vhost::kMaxQueues;
    return {nbd_socket::door(reactor_, *this, std::move(exported)),
            vhost_user::door(reactor_, *this, disk, options_.name)};
}

void Volume::open_front(const ServeFront& serve) {
    if (closing_) return;
    if (front_ && front_->epoch() != serve.epoch) close_front(front_->epoch(), true);
    if (front_) return;
    front::FrontEndOptions options;
    options.run_dir = options_.run_dir;
    options.volume = options_.name;
    options.epoch = serve.epoch;
    options.secret = serve.secret;
    options.successors =
        committed_ && committed_->record.owner && committed_->record.owner->purpose == "export";
    options.doors = doors();
    options.log = reports_.log;
    options.bound = [this](pid_t) { front_report(); };
    auto opened = front::FrontEnd::open(reactor_, std::move(options));
    if (!opened) return log(opened.error().message);
    front_ = std::move(*opened);
    log("serves " + front_->path());
    front_report();
}

void Volume::close_front(std::uint64_t epoch, bool forget) {
    if (!front_ || front_->epoch() != epoch) return;
    auto* closing = closing_fronts_.emplace_back(std::move(front_)).get();
    closing->close(forget, [this, closing] {
        std::erase_if(closing_fronts_, [&](const auto& each) { return each.get() == closing; });
    });
    reports_.front(options_.name, epoch, "", 0);
}

void Volume::front_report() {
    if (front_) reports_.front(options_.name, front_->epoch(), front_->path(), front_->client());
}

// ---- the control plane ----

void Volume::record(const CommittedVolume& committed) {
    committed_ = committed;
    if (link_) link_->allow();
    input(CommittedRecordIn{committed});
}

void Volume::renew(Instant sent_at, const CommittedVolume& committed) {
    input(StoreRenewal{sent_at, committed});
}

void Volume::refuse_epoch(std::uint64_t epoch, Answer answer) {
    refusals_.emplace_back(epoch, std::move(answer));
    input(RefuseEpoch{epoch});
}

void Volume::answer_refusals(std::uint64_t epoch) {
    for (auto& [refused, answer] : refusals_) {
        if (refused <= epoch && answer) std::exchange(answer, nullptr)({});
    }
    std::erase_if(refusals_, [](const auto& each) { return !each.second; });
}

void Volume::peer_proven_down(const Incarnation& incarnation) {
    input(PeerProvenDown{incarnation});
}

void Volume::proposal_done(const ProposalDone& done) {
    // an unknown outcome is asked for again by the engine, under a number of its own
    proposals_.erase(done.proposal);
    if (done.current) committed_ = done.current;
    input(done);
}

View Volume::view() const {
    return engine_ ? engine_->view() : View{};
}

void Volume::repeat_reports() {
    for (const auto& [number, propose] : proposals_) reports_.propose(options_.name, propose);
    tell_view(true);
    front_report();
}

void Volume::take_notice(const Notice& notice) {
    reports_.notice(options_.name, notice);
    tell_view(false);
}

void Volume::tell_view(bool even_if_equal) {
    if (!engine_) return;
    View now = engine_->view();
    // a lease that is prolonged four times a second and the number of requests are no news
    const auto facts = [](const View& v) {
        return std::make_tuple(v.attached, v.role, v.local_state, v.peer_state, v.connection, v.sync,
                               v.frozen, v.generation, v.epoch, v.epoch_floor, v.refused_epoch,
                               v.incoming_epoch, v.early_requests != 0, v.record_revision, v.dirty_bytes,
                               v.resync_done_bytes, v.resync_total_bytes, v.active_extents, v.problem);
    };
    if (view_told_ && !even_if_equal && facts(now) == facts(told_view_)) return;
    view_told_ = true;
    told_view_ = now;
    reports_.view(options_.name, now);
}

// ---- the end ----

void Volume::close(bool clean, std::function<void()> closed) {
    INVARIANT(!closing_, "a volume is closed once");
    closing_ = true;
    clean_ = clean;
    closed_ = std::move(closed);
    open_timer_.disarm();
    view_timer_.disarm();
    engine_timer_.disarm();
    if (auto answer = std::exchange(attach_answer_, nullptr)) {
        answer(fail(ErrorCode::failed_precondition,
                    "the volume was detached before its backing could be opened"));
    }
    if (front_) close_front(front_->epoch(), false);
    closed_if_idle();
}

void Volume::closed_if_idle() {
    // what is in flight needs the peer to come to its end
    if (closing_fronts_.empty() && !std::exchange(link_stopping_, true)) {
        if (link_) {
            link_->stop([this] { link_stopped_ = true; });
        } else {
            link_stopped_ = true;
        }
    }
    const bool idle = link_stopped_ && closing_fronts_.empty() && (!io_ || io_->idle());
    if (!idle) return close_timer_.arm(reactor_.now() + milliseconds(5));
    if (clean_) ::unlink(marker().c_str());
    reactor_.post(std::exchange(closed_, nullptr));
}

}  // namespace gemel::blockd
