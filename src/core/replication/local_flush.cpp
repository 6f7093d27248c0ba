#include "core/replication/local_flush.hpp"

#include <utility>

#include "core/replication/core.hpp"
#include "core/replication/tags.hpp"

namespace gemel::replication {

LocalFlush::LocalFlush(Core& core, Slots<PeerSlot>& peer_slots)
    : core_(core), waiting_(peer_slots), covered_(peer_slots) {}

void LocalFlush::for_peer(std::uint32_t slot) {
    waiting_.push(slot);
}

void LocalFlush::pump() {
    if (busy_ || core_.local_failed() || (waiting_.empty() && !round_waits_ && !bitmap_waits_)) return;
    busy_ = true;
    round_covered_ = std::exchange(round_waits_, false);
    bitmap_waits_ = false;
    bitmap_covered_ = core_.bitmap->clears();
    while (!waiting_.empty()) covered_.push(waiting_.pop());
    core_.emit(DiskFlush{make_tag(TagKind::flush, 0)});
}

void LocalFlush::done(IoStatus status) {
    busy_ = false;
    if (status != IoStatus::ok) core_.fail_local("flush failed");
    while (!covered_.empty()) core_.peer_requests.flushed(covered_.pop(), status);
    if (core_.local_failed()) {
        while (!waiting_.empty()) core_.peer_requests.flushed(waiting_.pop(), IoStatus::io_error);
        return;
    }
    core_.bitmap->flushed(bitmap_covered_);
    if (std::exchange(round_covered_, false)) core_.rounds.local_flushed();
    core_.again();
}

}  // namespace gemel::replication
