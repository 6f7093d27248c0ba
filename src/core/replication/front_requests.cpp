#include "core/replication/front_requests.hpp"

#include <algorithm>

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/core.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {
namespace {

bool is_write(FrontOperation operation) {
    return operation == FrontOperation::write || operation == FrontOperation::write_zeroes ||
           operation == FrontOperation::discard;
}

// What a slot's state may become; anything else is a bug.
bool legal(FrontState from, FrontState to) {
    switch (from) {
        case FrontState::locking:
            return to == FrontState::gated || to == FrontState::settling || to == FrontState::fetching;
        case FrontState::gated:
            return to == FrontState::making_room || to == FrontState::reading || to == FrontState::fetching;
        case FrontState::making_room: return to == FrontState::intent || to == FrontState::applying;
        case FrontState::intent: return to == FrontState::applying;
        case FrontState::applying:
            return to == FrontState::gated || to == FrontState::settling || to == FrontState::answering;
        case FrontState::reading:
            return to == FrontState::answering || to == FrontState::locking || to == FrontState::gated ||
                   to == FrontState::fetching;
        case FrontState::fetching: return to == FrontState::repairing || to == FrontState::answering;
        case FrontState::repairing:
        case FrontState::settling: return to == FrontState::answering;
        case FrontState::answering: return false;
    }
    return false;
}

}  // namespace

FrontRequests::FrontRequests(Core& core, std::uint32_t capacity)
    : core_(core),
      slots_(capacity),
      gated_(slots_),
      gated_reads_(slots_),
      making_room_(slots_),
      intent_(slots_),
      settling_(slots_),
      answering_(slots_) {
    early_.reserve(capacity);
}

void FrontRequests::move(std::uint32_t index, FrontState next) {
    FrontSlot& slot = slots_.at(index);
    INVARIANT(legal(slot.state, next), "a request moves along its chart");
    slot.state = next;
}

bool FrontRequests::valid(const FrontRequest& r) const {
    if (r.operation == FrontOperation::flush) return true;
    const bool aligned = r.offset % 512 == 0 && r.length % 512 == 0 && r.length > 0;
    const bool inside = r.offset < core_.layout.size_bytes && r.length <= core_.layout.size_bytes - r.offset;
    const bool data = r.operation == FrontOperation::read || r.operation == FrontOperation::write;
    return aligned && inside && (!data || (r.length <= kMaxRequestBytes && r.payload != kNoPayload));
}

void FrontRequests::submit(const FrontRequest& request) {
    const bool served =
        core_.authority.role() == Role::primary && request.epoch == core_.authority.served_epoch();
    const bool early = !served && request.epoch != 0 && request.epoch == core_.authority.incoming_epoch();
    if (early && valid(request) && early_.size() < early_.capacity()) {
        early_.push_back(request);
        if (early_.size() == 1) core_.notice(NoticeKind::handover, "it is asked something, which waits");
        return;
    }
    const auto index = served && valid(request) ? slots_.take() : std::nullopt;
    if (!index) {
        core_.emit(FrontComplete{request.tag, IoStatus::refused});
        return;
    }
    FrontSlot& slot = slots_.at(*index);
    slot.request = request;
    slot.serial = next_serial_++ & 0x3fffffffU;
    slot.started = core_.now;
    if (request.operation == FrontOperation::flush) {
        move(*index, FrontState::settling);
        slot.settles_with = core_.rounds.want();
        settling_.push(*index);
        return;
    }
    slot.piece_at = request.offset;
    slot.lock =
        core_.locks.acquire(request.offset, request.offset + request.length,
                            request.operation == FrontOperation::read, lock_owner(LockOwner::front, *index));
    if (core_.locks.granted(slot.lock)) lock_granted(*index);
}

void FrontRequests::lock_granted(std::uint32_t index) {
    if (slots_.at(index).status == IoStatus::refused) {
        complete(index, IoStatus::refused);
    } else if (slots_.at(index).repair) {
        fetch(index);
    } else {
        gate(index);
    }
}

// Nothing is submitted while frozen; strictly in order, so that a thaw does not reorder. Reads have a queue
// of their own: they are served while the peer is lost (rule 10), also behind a write that waits.
void FrontRequests::gate(std::uint32_t index) {
    move(index, FrontState::gated);
    const bool read = slots_.at(index).request.operation == FrontOperation::read;
    (read ? gated_reads_ : gated_).push(index);
    open_gate();
}

void FrontRequests::open_gate() {
    if (!gated_reads_.empty() && core_.authority.may_read()) {
        while (!gated_reads_.empty()) submit_read(gated_reads_.pop());
    }
    while (!gated_.empty() && core_.authority.may_acknowledge()) make_room(gated_.pop());
}

void FrontRequests::submit_read(std::uint32_t index) {
    if (core_.authority.over_network()) {
        fetch(index);
        return;
    }
    move(index, FrontState::reading);
    const FrontRequest& r = slots_.at(index).request;
    core_.emit(DiskRead{make_tag(TagKind::front, index), r.offset, r.length, r.payload});
}

// A medium's error is not the guest's as long as the peer's copy is current (D15, K1). The range is locked
// anew, alone: what is rewritten must be the newest data, and no two may rewrite it.
void FrontRequests::read_failed(std::uint32_t index) {
    FrontSlot& slot = slots_.at(index);
    const FrontRequest& r = slot.request;
    core_.media_error(r.offset, r.length);
    if (core_.authority.over_network()) {
        fetch(index);
    } else if (!core_.authority.peer_needed()) {
        slot.status = IoStatus::io_error;
        answer(index);
    } else if (core_.local_failed()) {
        gate(index);  // until that is committed
    } else {
        slot.repair = true;
        move(index, FrontState::locking);
        core_.release_lock(slot.lock);
        slot.lock =
            core_.locks.acquire(r.offset, r.offset + r.length, false, lock_owner(LockOwner::front, index));
        if (core_.locks.granted(slot.lock)) fetch(index);
    }
}

// Without a session in which the peer is UpToDate it waits: for the session, or for the peer to leave.
void FrontRequests::fetch(std::uint32_t index) {
    FrontSlot& slot = slots_.at(index);
    if (slot.state != FrontState::fetching) move(index, FrontState::fetching);
    const FrontRequest& r = slot.request;
    const bool dumb = core_.session.mirrored() && !core_.session.serves_reads() &&
                      !core_.authority.over_network() && !core_.source.active();
    if (!core_.authority.peer_needed() || dumb) {
        slot.status = IoStatus::io_error;
        answer(index);
        return;
    }
    fetches_wait_ = true;
    if (!core_.session.serves_reads()) return;
    core_.emit(PeerSend{core_.session.id(), ReadMessage{wire_number(index), r.epoch, core_.write_generation(),
                                                        r.offset, r.length}});
}

void FrontRequests::read_reply(const ReadReplyMessage& reply, PayloadHandle payload) {
    const auto index = static_cast<std::uint32_t>(reply.request & 0xffffffffU);
    const bool waits = slots_.taken(index) && wire_number(index) == reply.request &&
                       slots_.at(index).state == FrontState::fetching;
    const bool refused =
        reply.status == AckStatus::refused_epoch || reply.status == AckStatus::refused_generation;
    const bool fits = waits && payload != kNoPayload && reply.length == slots_.at(index).request.length;
    if (!fits && payload != kNoPayload) core_.emit(ReleasePayload{payload});
    if (!waits) return;  // its guest is gone
    FrontSlot& slot = slots_.at(index);
    if (refused) {
        core_.session.peer_refused(reply.status);
    } else if (reply.status == AckStatus::io_error) {
        core_.notice(NoticeKind::disk_error, "a block can be read on neither replica");
        slot.status = IoStatus::io_error;
        answer(index);
    } else if (!fits) {
        core_.session.drop("a read was answered with another length");
    } else {
        slot.fetched = payload;
        if (slot.repair && !core_.local_failed()) {
            move(index, FrontState::repairing);
            core_.emit(DiskWrite{make_tag(TagKind::front, index), slot.request.offset, slot.request.length,
                                 payload});
        } else {
            answer(index);
        }
    }
}

void FrontRequests::make_room(std::uint32_t index) {
    move(index, FrontState::making_room);
    FrontSlot& slot = slots_.at(index);
    const std::uint64_t end = slot.request.offset + slot.request.length;
    slot.piece_length = std::min(kPieceBytes, end - slot.piece_at);
    if (core_.authority.over_network()) {
        submit_piece(index);
        return;
    }
    if (making_room_.empty() &&
        core_.extents->enter(slot.piece_at, slot.piece_length, core_.rounds.settled())) {
        entered(index);
        return;
    }
    making_room_.push(index);
    core_.again();
}

void FrontRequests::entered(std::uint32_t index) {
    FrontSlot& slot = slots_.at(index);
    slot.in_log = true;
    slot.waits_for = core_.extents->entered_transaction();
    if (slot.waits_for == 0 || mutant("intent_before_data")) {
        submit_piece(index);
    } else {
        move(index, FrontState::intent);
        intent_.push(index);
        core_.again();
    }
}

// Strictly in order, and nothing is held while waiting: the log cannot deadlock (D19, M4).
void FrontRequests::find_room() {
    while (!making_room_.empty()) {
        const FrontSlot& slot = slots_.at(making_room_.front());
        if (!core_.extents->enter(slot.piece_at, slot.piece_length, core_.rounds.settled())) {
            if (core_.extents->make_room(core_.rounds.settled())) core_.rounds.want();
            return;
        }
        entered(making_room_.pop());
    }
}

void FrontRequests::intent_stable(Transaction transaction) {
    intent_.take_if([&](std::uint32_t i) { return slots_.at(i).waits_for <= transaction; },
                    [&](std::uint32_t i) { submit_piece(i); });
}

// The extents are active: both replicas at once. Alone, the bits are set before anything is submitted.
void FrontRequests::submit_piece(std::uint32_t index) {
    move(index, FrontState::applying);
    FrontSlot& slot = slots_.at(index);
    slot.local_done = slot.peer_done = false;
    slot.made_stable = slot.request.operation == FrontOperation::write && wants_stable(slot);
    slot.mirrored = core_.session.mirrored();
    if (core_.authority.over_network()) {  // sent now, or when the peer is back: it is never without
        slot.local_done = true;
        if (slot.mirrored) send_to_peer(index);
        slot.mirrored = true;
        return;
    }
    if (slot.mirrored) {
        core_.extents->touch(slot.piece_at, slot.piece_length);
        send_to_peer(index);
        slot.peer_done = mutant("join_after_propose") && !core_.authority.other_in_ack_set();
    } else if (core_.authority.peer_needed()) {
        // The peer was lost while the intent was being written: it is sent on return, or tracked when it has
        // left.
        core_.extents->touch(slot.piece_at, slot.piece_length);
        slot.mirrored = true;
    } else {
        core_.bitmap->set(slot.piece_at, slot.piece_length);
        core_.extents->note_dirty(slot.piece_at, slot.piece_length);
        slot.peer_done = true;
    }
    write_locally(index);
}

std::uint64_t FrontRequests::wire_number(std::uint32_t index) {
    return std::uint64_t{slots_.at(index).serial} << 32 | index;
}

void FrontRequests::send_to_peer(std::uint32_t index) {
    const FrontSlot& slot = slots_.at(index);
    const std::uint64_t generation = core_.write_generation();
    if (slot.request.operation == FrontOperation::write) {
        const WriteMessage message{wire_number(index),  slot.request.epoch,  generation,
                                   slot.request.offset, slot.request.length, slot.made_stable};
        core_.emit(PeerSend{core_.session.id(), message, slot.request.payload});
    } else {
        const ZeroMessage message{wire_number(index),
                                  slot.request.epoch,
                                  generation,
                                  slot.piece_at,
                                  slot.piece_length,
                                  slot.request.operation == FrontOperation::discard,
                                  false};  // zeroing is made stable by the next round
        core_.emit(PeerSend{core_.session.id(), message, kNoPayload});
    }
}

void FrontRequests::write_locally(std::uint32_t index) {
    const FrontSlot& slot = slots_.at(index);
    const DiskTag tag = make_tag(TagKind::front, index);
    if (slot.request.operation == FrontOperation::write) {
        core_.emit(
            DiskWrite{tag, slot.request.offset, slot.request.length, slot.request.payload, slot.made_stable});
    } else {
        core_.emit(DiskZero{tag, slot.piece_at, slot.piece_length,
                            slot.request.operation == FrontOperation::discard});
    }
}

void FrontRequests::disk_done(std::uint32_t index, IoStatus status) {
    FrontSlot& slot = slots_.at(index);
    if (slot.state == FrontState::repairing) {
        if (status == IoStatus::ok) core_.block_repaired(slot.request.offset, slot.request.length);
        if (status != IoStatus::ok && core_.authority.peer_needed())
            core_.fail_local("a block could not be rewritten");
    }
    if (slot.state == FrontState::reading || slot.state == FrontState::repairing) {
        if (slot.status == IoStatus::refused) {
            complete(index, IoStatus::refused);
        } else if (status != IoStatus::ok && slot.state == FrontState::reading) {
            read_failed(index);
        } else {
            answer(index);
        }
        return;
    }
    INVARIANT(slot.state == FrontState::applying && !slot.local_done, "one disk operation a piece");
    slot.local_done = true;
    if (status != IoStatus::ok) local_error(index, status);
    piece_may_have_ended(index);
}

// The only copy that counts is here: the guest must know. Otherwise this replica is out, and the guest is
// told nothing until that is committed (K2).
void FrontRequests::local_error(std::uint32_t index, IoStatus status) {
    FrontSlot& slot = slots_.at(index);
    if (core_.authority.peer_needed() || core_.local_failed()) {
        core_.fail_local(status == IoStatus::out_of_space ? "no space for a write" : "write failed");
        return;
    }
    core_.notice(NoticeKind::disk_error, "write failed and there is no other current replica");
    core_.bitmap->set(slot.piece_at, slot.piece_length);
    core_.extents->note_dirty(slot.piece_at, slot.piece_length);
    if (slot.status == IoStatus::ok) slot.status = status;
}

void FrontRequests::peer_ack(const AckMessage& ack) {
    const auto index = static_cast<std::uint32_t>(ack.request & 0xffffffffU);
    const bool known = slots_.taken(index) && wire_number(index) == ack.request &&
                       slots_.at(index).state == FrontState::applying && slots_.at(index).mirrored;
    if (!known || slots_.at(index).peer_done) {
        core_.session.drop("answer to a write nobody sent");
        return;
    }
    if (ack.status != AckStatus::ok) {
        core_.session.peer_refused(ack.status);
        return;
    }
    slots_.at(index).peer_done = true;
    piece_may_have_ended(index);
}

void FrontRequests::piece_may_have_ended(std::uint32_t index) {
    FrontSlot& slot = slots_.at(index);
    if (!slot.local_done || !slot.peer_done) return;
    if (core_.local_failed() && !core_.authority.over_network())
        return;  // it waits for the commit that takes this replica out, or for the demotion
    leave_log(slot);
    if (!slot.made_stable) unsettled_ = core_.rounds.next();
    slot.piece_at += slot.piece_length;
    slot.piece_length = 0;
    if (slot.status == IoStatus::refused) {
        complete(index, IoStatus::refused);
    } else if (slot.status == IoStatus::ok && slot.piece_at < slot.request.offset + slot.request.length) {
        gate(index);
    } else {
        finish_write(index);
    }
}

bool FrontRequests::wants_stable(const FrontSlot& slot) const {
    return slot.request.fua || core_.authority.record().ack_mode == AckMode::stable;
}

void FrontRequests::finish_write(std::uint32_t index) {
    FrontSlot& slot = slots_.at(index);
    if (!wants_stable(slot) || slot.made_stable || slot.status != IoStatus::ok) {
        answer(index);
        return;
    }
    move(index, FrontState::settling);
    slot.settles_with = core_.rounds.want();
    settling_.push(index);
    core_.again();
}

void FrontRequests::round_ended(RoundId round) {
    settling_.take_if([&](std::uint32_t i) { return slots_.at(i).settles_with <= round; },
                      [&](std::uint32_t i) { answer(i); });
}

// The last gate: nothing is told to the guest across a state change (D2) or without a valid lease.
void FrontRequests::answer(std::uint32_t index) {
    move(index, FrontState::answering);
    const FrontSlot& slot = slots_.at(index);
    const bool open = slot.request.operation == FrontOperation::read ? core_.authority.may_read()
                                                                     : core_.authority.may_acknowledge();
    if (open) {
        complete(index, slot.status);
    } else {
        answering_.push(index);
    }
}

void FrontRequests::complete(std::uint32_t index, IoStatus status) {
    FrontSlot& slot = slots_.at(index);
    if (is_write(slot.request.operation)) {
        const Duration took = core_.now - slot.started;
        write_latency_ = write_latency_ == Duration{} ? took : (write_latency_ * 7 + took) / 8;
        last_write_ = core_.now;
    }
    if (status != IoStatus::ok && slot.fetched != kNoPayload) {
        core_.emit(ReleasePayload{slot.fetched});
        slot.fetched = kNoPayload;
    }
    core_.emit(FrontComplete{slot.request.tag, status, slot.fetched});
    if (slot.lock != IntervalLock::kNone) core_.release_lock(slot.lock);
    slots_.release(index);
}

// Own disk failed and nobody else is current: waiting would help nobody, the guest is told (D15). What still
// has a disk operation in flight is told when that ends.
void FrontRequests::fail_all() {
    core_.session.drop("no current replica can be reached any more", true);
    const auto everyone = [](std::uint32_t) { return true; };
    const auto nothing = [](std::uint32_t) {};
    for (auto* queue : {&gated_, &gated_reads_, &making_room_, &intent_, &settling_, &answering_})
        queue->take_if(everyone, nothing);
    slots_.for_each([&](std::uint32_t i, FrontSlot& slot) {
        const bool on_disk = slot.state == FrontState::reading || slot.state == FrontState::repairing ||
                             (slot.state == FrontState::applying && !slot.local_done);
        if (slot.state == FrontState::locking || on_disk) return;
        complete(i, IoStatus::io_error);
    });
}

void FrontRequests::pump() {
    const bool hopeless = core_.local_failed() && (!core_.authority.peer_needed() || only_copy_failed_);
    if (hopeless && slots_.used() > 0) fail_all();
    if (!over_network_ && core_.authority.over_network()) go_over_network();
    if (fetches_wait_ && !core_.authority.peer_needed()) ask_again();
    open_gate();
    if (!core_.local_failed()) find_room();
    if (answering_.empty()) return;
    const auto open = [&](std::uint32_t i) {
        return slots_.at(i).request.operation == FrontOperation::read ? core_.authority.may_read()
                                                                      : core_.authority.may_acknowledge();
    };
    answering_.take_if(open, [&](std::uint32_t i) { complete(i, slots_.at(i).status); });
}

// Own disk failed, committed: what waited for it goes to the peer, or has ended there already (K2).
void FrontRequests::go_over_network() {
    over_network_ = true;
    core_.notice(NoticeKind::over_network, "the guest is served from the peer's replica");
    const auto everyone = [](std::uint32_t) { return true; };
    const auto submit = [this](std::uint32_t i) { submit_piece(i); };
    making_room_.take_if(everyone, submit);
    intent_.take_if(everyone, submit);
    slots_.for_each([&](std::uint32_t i, FrontSlot& slot) {
        if (slot.state == FrontState::applying) piece_may_have_ended(i);
    });
}

void FrontRequests::only_copy_rebooted() {
    // What has not ended is sent again; what the node's former life answered of it is not.
    const RoundId settled = core_.rounds.settled();
    bool answered = unsettled_ > settled || core_.extents->ended_unstable(settled);
    slots_.for_each([&](std::uint32_t, const FrontSlot& slot) {
        const bool applied = slot.state == FrontState::applying && slot.mirrored && slot.peer_done;
        answered = answered || (applied && !slot.made_stable);
    });
    if (!answered) return;
    only_copy_failed_ = only_copy_forgot_ = true;
    core_.notice(NoticeKind::disk_error,
                 "the node of the only current replica restarted and may have lost what was not flushed: the "
                 "guest's disk has failed");
}

// Nobody else has the blocks that are waited for any more, or somebody has them now.
void FrontRequests::ask_again() {
    fetches_wait_ = false;
    slots_.for_each([&](std::uint32_t i, FrontSlot& slot) {
        if (slot.state == FrontState::fetching) fetch(i);
    });
}

void FrontRequests::peer_joined() {
    ask_again();
}

void FrontRequests::leave_log(FrontSlot& slot) {
    if (slot.in_log)
        core_.extents->leave(slot.piece_at, slot.piece_length, core_.rounds.next(), slot.made_stable);
    slot.in_log = false;
}

void FrontRequests::peer_resumed() {
    slots_.for_each([&](std::uint32_t i, FrontSlot& slot) {
        if (slot.state == FrontState::applying && slot.mirrored && !slot.peer_done) send_to_peer(i);
    });
    ask_again();
}

void FrontRequests::peer_gone() {
    slots_.for_each([&](std::uint32_t i, FrontSlot& slot) {
        if (slot.state != FrontState::applying || !slot.mirrored || slot.peer_done) return;
        core_.bitmap->set(slot.piece_at, slot.piece_length);
        core_.extents->note_dirty(slot.piece_at, slot.piece_length);
        slot.peer_done = true;
        piece_may_have_ended(i);
    });
}

// The buffer of a request without a disk operation in flight can be given back at once.
void FrontRequests::refuse_if_idle(std::uint32_t index) {
    FrontSlot& slot = slots_.at(index);
    if (slot.state == FrontState::reading || slot.state == FrontState::repairing ||
        slot.state == FrontState::locking) {
        slot.status = IoStatus::refused;
        return;
    }
    if (slot.state == FrontState::applying) {
        slot.status = IoStatus::refused;
        if (slot.mirrored && !slot.peer_done) {
            core_.bitmap->set(slot.piece_at, slot.piece_length);
            core_.extents->note_dirty(slot.piece_at, slot.piece_length);
            slot.peer_done = true;
        }
        if (!slot.local_done) return;
    }
    leave_log(slot);
    complete(index, IoStatus::refused);
}

void FrontRequests::promoted() {
    for (const FrontRequest& request : early_) submit(request);
    early_.clear();
}

void FrontRequests::early_refused() {
    for (const FrontRequest& request : early_) core_.emit(FrontComplete{request.tag, IoStatus::refused});
    early_.clear();
}

void FrontRequests::demoted() {
    const auto everyone = [](std::uint32_t) { return true; };
    const auto nothing = [](std::uint32_t) {};
    for (auto* queue : {&gated_, &gated_reads_, &making_room_, &intent_, &settling_, &answering_})
        queue->take_if(everyone, nothing);
    only_copy_failed_ = only_copy_forgot_ = false;
    bool sent = false;
    slots_.for_each([&](std::uint32_t i, FrontSlot& slot) {
        sent = sent || (slot.state == FrontState::applying && slot.mirrored && !slot.peer_done);
        refuse_if_idle(i);
    });
    if (sent) core_.session.drop("demoted with writes in flight");
}

}  // namespace gemel::replication
