#include "sim/world/block_node.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "sim/world/violation.hpp"

namespace gemel::sim {
namespace {

using replication::IoStatus;
constexpr std::uint32_t kResyncChunks = 8;

IoStatus status_of(DiskOutcome outcome) {
    return outcome == DiskOutcome::ok ? IoStatus::ok : IoStatus::io_error;
}

constexpr const char* kNoticeCounters[] = {"notice.attached",
                                           "notice.role_changed",
                                           "notice.connection_changed",
                                           "notice.sync_changed",
                                           "notice.replica_state_changed",
                                           "notice.frozen",
                                           "notice.thawed",
                                           "notice.verdict",
                                           "notice.resync_finished",
                                           "notice.split_brain",
                                           "notice.refused",
                                           "notice.disk_error",
                                           "notice.lease_lapsed",
                                           "notice.lease_resumed",
                                           "notice.handover",
                                           "notice.metadata_unknown",
                                           "notice.over_network",
                                           "notice.block_repaired"};

}  // namespace

BlockNode::BlockNode(Parts parts, std::uint32_t node, Prng random)
    : parts_(parts), node_(node), random_(random) {}

void BlockNode::start(const replication::EngineConfig& config) {
    INVARIANT(!alive(), "one process at a time");
    config_ = config;
    starting_ = true;
    process_ += 1;
    parts_.trace.note(parts_.queue.now(), node_, "blockd.start", process_);
    open_back_end();
}

// The lock on the back end is free when the last I/O of the former process has ended.
void BlockNode::open_back_end() {
    if (parts_.disk.outlived_io()) {
        parts_.counters.add("site.waited_for_outlived_io");
        parts_.queue.after(milliseconds(1), *this, kOpenBackEnd, process_);
        return;
    }
    starting_ = false;
    config_.resync_chunks = kResyncChunks;
    parts_.disk.attach(process_, *this);
    engine_ = std::make_unique<replication::Engine>(config_);
    if (parts_.watch != nullptr) parts_.watch->engine_starts(node_);
    parts_.link.attach(node_, *this, PeerIdentity{config_.replica, config_.incarnation, config_.process});
    step(replication::Tick{});
}

void BlockNode::die() {
    paused_ = false;
    if (!alive()) return;
    parts_.trace.note(parts_.queue.now(), node_, "blockd.die", process_);
    parts_.disk.process_died();
    parts_.link.process_died(node_);
    if (parts_.guest.alive() && parts_.guest.node() == node_) parts_.guest.front_lost();
    engine_.reset();
    starting_ = false;
    served_epoch_ = 0;
    front_.clear();
    waiting_inputs_.clear();
    fetches_.clear();
    paused_inputs_.clear();
    for (std::uint32_t handle = 0; handle < owned_.size(); ++handle) {
        if (owned_[handle]) parts_.payloads.release(handle);
    }
    owned_.clear();
    timer_armed_ = Instant::never();
    ++timer_life_;
    paused_ = false;
}

void BlockNode::pause(bool paused) {
    paused_ = paused;
    if (paused) return;
    std::deque<replication::Input> held = std::exchange(paused_inputs_, {});
    for (replication::Input& input : held) {
        if (engine_ != nullptr) step(input);
    }
    if (engine_ != nullptr) step(replication::Tick{});
}

replication::View BlockNode::view() const {
    return engine_ == nullptr ? replication::View{} : engine_->view();
}

std::uint32_t BlockNode::take_payload(std::size_t sectors) {
    const std::uint32_t handle = parts_.payloads.take(sectors);
    if (owned_.size() <= handle) owned_.resize(handle + 1, false);
    owned_[handle] = true;
    return handle;
}

void BlockNode::release_payload(std::uint32_t handle) {
    if (handle >= owned_.size() || !owned_[handle]) {
        throw Violation("D11", "node" + std::to_string(node_ + 1) + ": a buffer was let go that is not held");
    }
    owned_[handle] = false;
    parts_.payloads.release(handle);
}

void BlockNode::input(replication::Input input) {
    if (engine_ == nullptr) return;
    if (paused_) {
        paused_inputs_.push_back(std::move(input));
        return;
    }
    step(input);
}

void BlockNode::step(const replication::Input& input) {
    if (stepping_) {
        waiting_inputs_.push_back(input);
        return;
    }
    stepping_ = true;
    const auto run = [this](const replication::Input& one) {
        outputs_.clear();
        const Instant local = parts_.clock.local(parts_.queue.now());
        if (parts_.watch != nullptr) parts_.watch->sees_input(node_, local, one);
        engine_->step(local, one, outputs_);
        for (const replication::Output& output : outputs_) {
            if (parts_.watch != nullptr) parts_.watch->sees_output(node_, local, output);
            carry_out(output);
        }
    };
    try {
        run(input);
        while (!waiting_inputs_.empty()) {
            const replication::Input next = std::move(waiting_inputs_.front());
            waiting_inputs_.pop_front();
            run(next);
        }
    } catch (...) {
        stepping_ = false;
        throw;
    }
    stepping_ = false;
    arm_timer();
}

void BlockNode::arm_timer() {
    const Instant local = engine_->next_deadline();
    if (local == Instant::never()) return;
    const Instant real = parts_.clock.real(local);
    if (timer_armed_ <= real && timer_armed_ > parts_.queue.now()) return;
    timer_armed_ = std::max(real, parts_.queue.now() + microseconds(1));
    parts_.queue.at(timer_armed_, *this, kTimer, timer_life_);
}

void BlockNode::on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t) {
    if (kind == kOpenBackEnd) {
        if (starting_ && a == process_) open_back_end();
        return;
    }
    if (a != timer_life_ || engine_ == nullptr) return;
    timer_armed_ = Instant::never();
    if (paused_) return;  // pause(false) ticks
    const Instant local_deadline = engine_->next_deadline();
    if (local_deadline <= parts_.clock.local(parts_.queue.now())) {
        step(replication::Tick{});
    } else {
        arm_timer();
    }
}

bool BlockNode::carry_out_disk(const replication::Output& output) {
    Disk& disk = parts_.disk;
    if (const auto* read = std::get_if<replication::DiskRead>(&output)) {
        disk.read(process_, read->tag, read->offset, read->length, read->payload);
    } else if (const auto* write = std::get_if<replication::DiskWrite>(&output)) {
        disk.write(process_, write->tag, write->offset, write->length, write->payload, write->stable);
    } else if (const auto* fetch = std::get_if<replication::DiskFetch>(&output)) {
        const std::uint32_t payload = take_payload(fetch->length / kSectorBytes);
        fetches_[fetch->tag] = payload;
        disk.read(process_, fetch->tag, fetch->offset, fetch->length, payload);
    } else if (const auto* zero = std::get_if<replication::DiskZero>(&output)) {
        disk.zero(process_, zero->tag, zero->offset, zero->length);
    } else if (const auto* flush = std::get_if<replication::DiskFlush>(&output)) {
        disk.flush(process_, flush->tag);
    } else if (const auto* hash = std::get_if<replication::DiskHash>(&output)) {
        disk.hash(process_, hash->tag, hash->offset, hash->length);
    } else if (const auto* meta = std::get_if<replication::ReadMetadata>(&output)) {
        disk.read_metadata(process_, meta->tag, meta->offset, meta->length);
    } else if (const auto* store = std::get_if<replication::WriteMetadata>(&output)) {
        disk.write_metadata(process_, store->tag, store->offset, store->bytes, store->stable);
    } else {
        return false;
    }
    return true;
}

void BlockNode::carry_out(const replication::Output& output) {
    if (carry_out_disk(output)) return;
    if (const auto* send = std::get_if<replication::PeerSend>(&output)) {
        std::vector<Stamp> stamps;
        if (send->payload != replication::kNoPayload) {
            const std::span<Stamp> from = parts_.payloads.stamps(send->payload);
            stamps.assign(from.begin(), from.end());
        }
        parts_.link.send(node_, send->session, send->message, std::move(stamps));
        if (send->last_use) release_payload(send->payload);
    } else if (const auto* drop = std::get_if<replication::PeerDrop>(&output)) {
        parts_.trace.note_text(parts_.queue.now(), node_,
                               drop->stay_away ? "engine.sends_away" : "engine.drops_peer", drop->reason);
        parts_.counters.add(drop->stay_away ? "engine.sends_away" : "engine.drops_peer");
        parts_.link.drop(node_, drop->session, drop->stay_away);
    } else if (const auto* complete = std::get_if<replication::FrontComplete>(&output)) {
        complete_front(*complete);
    } else if (const auto* serve = std::get_if<replication::ServeFront>(&output)) {
        served_epoch_ = serve->epoch;
        parts_.control.serve_front(node_, serve->epoch);
    } else if (const auto* stop = std::get_if<replication::StopFront>(&output)) {
        if (served_epoch_ == stop->epoch) served_epoch_ = 0;
        parts_.control.stop_front(node_, stop->epoch);
    } else if (const auto* release = std::get_if<replication::ReleasePayload>(&output)) {
        release_payload(release->payload);
    } else if (const auto* propose = std::get_if<replication::Propose>(&output)) {
        parts_.control.propose(node_, *propose);
    } else if (const auto* need = std::get_if<replication::NeedRecord>(&output)) {
        parts_.control.need_record(node_, need->at_least_revision);
    } else if (const auto* refused = std::get_if<replication::EpochRefused>(&output)) {
        parts_.control.epoch_refused(node_, refused->epoch);
    } else if (const auto* extended = std::get_if<replication::LeaseExtended>(&output)) {
        parts_.control.lease_extended(node_, extended->epoch, extended->until);
    } else if (const auto* notice = std::get_if<replication::Notice>(&output)) {
        note(*notice);
    }
}

void BlockNode::note(const replication::Notice& notice) {
    const auto kind = static_cast<std::size_t>(notice.kind);
    parts_.counters.add(kNoticeCounters[kind]);
    parts_.trace.note_text(parts_.queue.now(), node_, kNoticeCounters[kind], notice.text);
    parts_.control.view_changed(node_);
}

void BlockNode::complete_front(const replication::FrontComplete& complete) {
    const auto found = front_.find(complete.tag);
    if (found == front_.end())
        throw Violation("D1", "a front-end request was completed twice, or never existed");
    const FrontSlot slot = found->second;
    front_.erase(found);
    std::vector<Stamp> read;
    if (slot.payload != replication::kNoPayload) {
        if (slot.request.operation == GuestOperation::read) {
            const bool from_peer = complete.data_from != replication::kNoPayload;
            const std::span<Stamp> stamps =
                parts_.payloads.stamps(from_peer ? complete.data_from : slot.payload);
            read.assign(stamps.begin(), stamps.end());
            if (from_peer) parts_.counters.add("site.read_from_peer");
        }
        release_payload(slot.payload);
    }
    if (complete.data_from != replication::kNoPayload) release_payload(complete.data_from);
    // a guest that died took its connection along
    if (!parts_.guest.alive() || parts_.guest.node() != node_ || parts_.guest.epoch() != slot.epoch) {
        if (complete.status == IoStatus::ok) parts_.control.answered_nobody(node_, slot.epoch, slot.request);
        return;
    }
    parts_.guest.completed(complete.tag, complete.status == IoStatus::ok, read,
                           complete.status == IoStatus::io_error);
}

void BlockNode::front_submit(std::uint64_t epoch, const GuestRequest& request) {
    replication::FrontRequest front;
    front.tag = request.tag;
    front.epoch = epoch;
    front.operation = static_cast<replication::FrontOperation>(request.operation);
    front.offset = request.offset;
    front.length = request.length;
    front.fua = request.fua;
    FrontSlot slot{replication::kNoPayload, request, epoch};
    if (request.operation == GuestOperation::write || request.operation == GuestOperation::read) {
        slot.payload = take_payload(request.length / kSectorBytes);
        if (request.operation == GuestOperation::write) {
            std::ranges::fill(parts_.payloads.stamps(slot.payload), request.stamp);
        }
        front.payload = slot.payload;
    }
    front_[request.tag] = slot;
    input(front);
}

void BlockNode::disk_done(std::uint64_t tag, DiskOutcome outcome) {
    const auto fetch = fetches_.find(tag);
    if (fetch == fetches_.end()) return step(replication::DiskDone{tag, status_of(outcome)});
    std::uint32_t payload = fetch->second;
    fetches_.erase(fetch);
    if (outcome != DiskOutcome::ok) {
        release_payload(payload);
        payload = replication::kNoPayload;
    }
    step(replication::FetchDone{tag, status_of(outcome), payload});
}

void BlockNode::metadata_read_done(std::uint64_t tag, DiskOutcome outcome, std::span<const std::byte> bytes) {
    step(replication::MetadataRead{tag, status_of(outcome), bytes});
}

void BlockNode::hash_done(std::uint64_t tag, DiskOutcome outcome, std::uint64_t high, std::uint64_t low) {
    step(replication::HashDone{tag, status_of(outcome), high, low});
}

void BlockNode::peer_up(SessionId session, const PeerIdentity& peer) {
    replication::PeerUp up;
    up.session = session;
    up.node = node_ == 0 ? "node2" : "node1";
    up.replica = peer.replica;
    up.incarnation = peer.incarnation;
    up.process = peer.process;
    up.serves_reads = true;
    peer_ = peer;
    input(up);
    parts_.control.peer_session(node_, true, peer_);
}

void BlockNode::peer_down(SessionId session) {
    input(replication::PeerDown{session});
    parts_.control.peer_session(node_, false, peer_);
}

void BlockNode::peer_message(SessionId session, const replication::PeerMessage& message,
                             const std::vector<Stamp>& stamps) {
    replication::PeerMessageIn in;
    in.session = session;
    in.message = message;
    if (!stamps.empty()) {
        in.payload = take_payload(stamps.size());
        std::ranges::copy(stamps, parts_.payloads.stamps(in.payload).begin());
    }
    input(std::move(in));
}

}  // namespace gemel::sim
