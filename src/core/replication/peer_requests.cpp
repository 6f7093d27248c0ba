#include "core/replication/peer_requests.hpp"

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/core.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {

PeerRequests::PeerRequests(Core& core, std::uint32_t capacity)
    : core_(core), slots_(capacity), epoch_(slots_) {}

bool PeerRequests::inside(std::uint64_t offset, std::uint64_t length) const {
    const std::uint64_t size = core_.layout.size_bytes;
    return offset % 512 == 0 && length % 512 == 0 && length > 0 && offset < size && length <= size - offset;
}

AckStatus PeerRequests::check(std::uint64_t epoch, std::uint64_t generation_counter) const {
    if (core_.local_failed()) return AckStatus::io_error;
    if (!core_.authority.accepts(epoch) && !mutant("epoch_check_skipped")) return AckStatus::refused_epoch;
    if (generation_counter != core_.session.generation_counter()) return AckStatus::refused_generation;
    return AckStatus::ok;
}

void PeerRequests::refuse(PeerRequestKind kind, std::uint64_t request, std::uint64_t epoch, AckStatus status,
                          PayloadHandle payload) {
    if (kind == PeerRequestKind::read) {
        core_.emit(PeerSend{core_.session.id(), ReadReplyMessage{request, 0, status}});
    } else {
        core_.emit(PeerSend{core_.session.id(), AckMessage{request, epoch, status}});
    }
    if (payload != kNoPayload) core_.emit(ReleasePayload{payload});
}

PeerSlot* PeerRequests::take(PeerRequestKind kind, std::uint64_t request, PayloadHandle payload,
                             std::uint32_t& index) {
    const auto taken = slots_.take();
    if (!taken) {
        if (payload != kNoPayload) core_.emit(ReleasePayload{payload});
        core_.session.drop("more requests in flight than both sides agreed on");
        return nullptr;
    }
    index = *taken;
    PeerSlot& slot = slots_.at(index);
    slot.kind = kind;
    slot.session = core_.session.id();
    slot.request = request;
    slot.payload = payload;
    return &slot;
}

template <typename Message>
PeerSlot* PeerRequests::take_checked(PeerRequestKind kind, const Message& message, PayloadHandle payload,
                                     std::uint32_t& index) {
    const AckStatus status = check(message.epoch, message.generation_counter);
    if (status != AckStatus::ok) {
        refuse(kind, message.request, message.epoch, status, payload);
        return nullptr;
    }
    PeerSlot* slot = take(kind, message.request, payload, index);
    if (slot == nullptr) return nullptr;
    slot->epoch = message.epoch;
    slot->offset = message.offset;
    slot->length = message.length;
    return slot;
}

void PeerRequests::write(const WriteMessage& message, PayloadHandle payload) {
    if (!inside(message.offset, message.length) || message.length > kMaxRequestBytes) {
        core_.emit(ReleasePayload{payload});
        core_.session.drop("a write outside the volume");
        return;
    }
    std::uint32_t index = 0;
    PeerSlot* slot = take_checked(PeerRequestKind::write, message, payload, index);
    if (slot == nullptr) return;
    slot->stable = message.stable;
    admit(index);
}

void PeerRequests::zero(const ZeroMessage& message) {
    if (!inside(message.offset, message.length)) {
        core_.session.drop("a zeroing outside the volume");
        return;
    }
    std::uint32_t index = 0;
    PeerSlot* slot = take_checked(PeerRequestKind::zero, message, kNoPayload, index);
    if (slot == nullptr) return;
    slot->unmap = message.unmap;
    slot->stable = message.stable;
    admit(index);
}

void PeerRequests::flush(const FlushMessage& message) {
    const bool retiring = message.epoch == 0;
    AckStatus status =
        check(retiring ? core_.metadata.wanted().granted_epoch : message.epoch, message.generation_counter);
    if (retiring && status == AckStatus::refused_epoch) status = AckStatus::ok;
    if (status != AckStatus::ok) {
        refuse(PeerRequestKind::flush, message.request, message.epoch, status, kNoPayload);
        return;
    }
    std::uint32_t index = 0;
    PeerSlot* slot = take(PeerRequestKind::flush, message.request, kNoPayload, index);
    if (slot == nullptr) return;
    slot->epoch = message.epoch;
    admit(index);
}

void PeerRequests::heartbeat(const HeartbeatMessage& message) {
    // While this side still serves another epoch its own writes are in flight: the new owner has to wait.
    const bool serving =
        core_.authority.served_epoch() != 0 && core_.authority.served_epoch() != message.epoch;
    const bool refused = serving || !core_.authority.accepts(message.epoch);
    if (serving) core_.emit(NeedRecord{core_.authority.revision() + 1});
    core_.emit(PeerSend{core_.session.id(), HeartbeatAckMessage{message.number, message.epoch, refused}});
}

void PeerRequests::resync_write(const ResyncWriteMessage& message, PayloadHandle payload) {
    if (!core_.target.receiving() || !inside(message.offset, message.length) ||
        message.length > kResyncChunkBytes) {
        core_.emit(ReleasePayload{payload});
        core_.session.drop("resync data that was not asked for");
        return;
    }
    std::uint32_t index = 0;
    PeerSlot* slot = take(PeerRequestKind::resync_write, message.chunk, payload, index);
    if (slot == nullptr) return;
    slot->offset = message.offset;
    slot->length = message.length;
    start(index);
}

void PeerRequests::compare(const ResyncCompareMessage& message) {
    if (!core_.target.receiving() || !inside(message.offset, message.length) ||
        message.length > kResyncChunkBytes) {
        core_.session.drop("a resync compare that was not asked for");
        return;
    }
    std::uint32_t index = 0;
    PeerSlot* slot = take(PeerRequestKind::compare, message.chunk, kNoPayload, index);
    if (slot == nullptr) return;
    slot->offset = message.offset;
    slot->length = message.length;
    slot->hash_high = message.hash_high;
    slot->hash_low = message.hash_low;
    start(index);
}

// Of the owner whose disk cannot read, or is gone. The same checks as for a write: an owner of an older epoch
// must not see what a newer one is writing (D13).
void PeerRequests::read(const ReadMessage& message) {
    if (!inside(message.offset, message.length) || message.length > kMaxRequestBytes ||
        !core_.session.may_serve_reads()) {
        core_.session.drop("a read outside the volume, or of a replica that is not UpToDate");
        return;
    }
    std::uint32_t index = 0;
    if (take_checked(PeerRequestKind::read, message, kNoPayload, index) != nullptr) admit(index);
}

// A higher epoch than ever seen here is stored stably before anything of it is answered (D13).
void PeerRequests::admit(std::uint32_t index) {
    const std::uint64_t epoch = slots_.at(index).epoch;
    if (epoch <= core_.metadata.stable().granted_epoch || mutant("epoch_check_skipped")) {
        start(index);
        return;
    }
    core_.metadata.edit([&](formats::Superblock& s) { s.granted_epoch = std::max(s.granted_epoch, epoch); });
    epoch_.push(index);
    core_.again();
}

void PeerRequests::pump() {
    if (epoch_.empty()) return;
    const std::uint64_t durable = core_.metadata.stable().granted_epoch;
    epoch_.take_if([&](std::uint32_t i) { return slots_.at(i).epoch <= durable; },
                   [&](std::uint32_t i) { start(i); });
}

void PeerRequests::start(std::uint32_t index) {
    PeerSlot& slot = slots_.at(index);
    if (slot.kind == PeerRequestKind::flush) {
        want_stable(index);
        return;
    }
    slot.state = PeerRequestState::locking;
    const bool shared = slot.kind == PeerRequestKind::compare || slot.kind == PeerRequestKind::read;
    slot.lock = core_.locks.acquire(slot.offset, slot.offset + slot.length, shared,
                                    lock_owner(LockOwner::peer, index));
    if (core_.locks.granted(slot.lock)) lock_granted(index);
}

void PeerRequests::lock_granted(std::uint32_t index) {
    PeerSlot& slot = slots_.at(index);
    // Its sender is gone and nothing of it is on the disk yet: an old session's request is not begun any
    // more.
    if (slot.session != core_.session.id() || core_.local_failed()) {
        answer(index, AckStatus::io_error);
        return;
    }
    const DiskTag tag = make_tag(TagKind::peer, index);
    slot.state = PeerRequestState::applying;
    if (slot.kind == PeerRequestKind::compare) {
        slot.state = PeerRequestState::hashing;
        core_.emit(DiskHash{make_tag(TagKind::peer_hash, index), slot.offset,
                            static_cast<std::uint32_t>(slot.length)});
    } else if (slot.kind == PeerRequestKind::read) {
        slot.state = PeerRequestState::reading;
        core_.emit(DiskFetch{make_tag(TagKind::peer_fetch, index), slot.offset,
                             static_cast<std::uint32_t>(slot.length)});
    } else if (slot.kind == PeerRequestKind::zero) {
        core_.emit(DiskZero{tag, slot.offset, slot.length, slot.unmap});
    } else {
        core_.emit(DiskWrite{tag, slot.offset, static_cast<std::uint32_t>(slot.length), slot.payload,
                             slot.kind == PeerRequestKind::write && slot.stable});
    }
}

void PeerRequests::disk_done(std::uint32_t index, IoStatus status) {
    PeerSlot& slot = slots_.at(index);
    INVARIANT(slot.state == PeerRequestState::applying, "a peer's data operation ends once");
    if (status != IoStatus::ok) {
        answer(index, AckStatus::io_error);
        core_.fail_local("write for the peer failed");
        return;
    }
    if (slot.kind == PeerRequestKind::resync_write || (slot.kind == PeerRequestKind::zero && slot.stable)) {
        want_stable(index);
    } else {
        answer(index, AckStatus::ok);
    }
}

void PeerRequests::hash_done(std::uint32_t index, const HashDone& done) {
    PeerSlot& slot = slots_.at(index);
    // A flush that failed in a former process of this boot may have forgotten what the disk still shows (F4,
    // H38): such a copy is written again, however equal it looks.
    const bool trusted = !core_.config.outlived_io_possible || mutant("outlived_copy_trusted");
    const bool same = trusted && done.status == IoStatus::ok && done.hash_high == slot.hash_high &&
                      done.hash_low == slot.hash_low;
    if (same) {
        want_stable(index);  // equal is not stable: the block may have been written and never flushed
    } else {
        answer(index, AckStatus::ok, false);
    }
}

void PeerRequests::fetch_done(std::uint32_t index, const FetchDone& done) {
    PeerSlot& slot = slots_.at(index);
    INVARIANT(slot.state == PeerRequestState::reading, "a peer's read ends once");
    slot.payload = done.payload;
    if (done.status != IoStatus::ok)
        core_.notice(NoticeKind::disk_error, "a block that the peer asked for cannot be read here either");
    answer(index, done.status == IoStatus::ok ? AckStatus::ok : AckStatus::io_error);
}

void PeerRequests::want_stable(std::uint32_t index) {
    PeerSlot& slot = slots_.at(index);
    slot.state = PeerRequestState::flushing;
    if (core_.local_failed()) {
        answer(index, AckStatus::io_error);
        return;
    }
    core_.local_flush.for_peer(index);
    core_.again();
}

void PeerRequests::flushed(std::uint32_t index, IoStatus status) {
    answer(index, status == IoStatus::ok ? AckStatus::ok : AckStatus::io_error, status == IoStatus::ok);
}

void PeerRequests::answer(std::uint32_t index, AckStatus status, bool same) {
    PeerSlot& slot = slots_.at(index);
    if (slot.session == core_.session.id() && core_.session.connected()) {
        const bool chunk =
            slot.kind == PeerRequestKind::resync_write || slot.kind == PeerRequestKind::compare;
        if (slot.kind == PeerRequestKind::read) {
            const auto length = status == AckStatus::ok ? static_cast<std::uint32_t>(slot.length) : 0;
            core_.emit(PeerSend{slot.session, ReadReplyMessage{slot.request, length, status}, slot.payload,
                                slot.payload != kNoPayload});
            slot.payload = kNoPayload;
        } else if (chunk) {
            const bool equal = slot.kind == PeerRequestKind::compare && same;
            core_.emit(PeerSend{slot.session, ResyncAckMessage{slot.request, equal, status}});
        } else {
            core_.emit(PeerSend{slot.session, AckMessage{slot.request, slot.epoch, status}});
        }
    }
    if (slot.payload != kNoPayload) core_.emit(ReleasePayload{slot.payload});
    if (slot.lock != IntervalLock::kNone) core_.release_lock(slot.lock);
    slots_.release(index);
}

}  // namespace gemel::replication
