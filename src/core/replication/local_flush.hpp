// LocalFlush: one flush of the own disk at a time; who asks while one is in flight shares the next. A flush
// covers what had completed when it was emitted, so a request joins only after its data completed (W7). A
// failed flush is never tried again as if it could succeed (F4): the disk is failed.
#pragma once

#include <cstdint>

#include "core/replication/interface.hpp"
#include "core/replication/slots.hpp"

namespace gemel::replication {

class Core;
struct PeerSlot;

class LocalFlush {
  public:
    LocalFlush(Core& core, Slots<PeerSlot>& peer_slots);
    void for_round() { round_waits_ = true; }
    void for_bitmap() { bitmap_waits_ = true; }
    void for_peer(std::uint32_t slot);
    void pump();
    void done(IoStatus status);

  private:
    Core& core_;
    SlotQueue<PeerSlot> waiting_;
    SlotQueue<PeerSlot> covered_;
    bool round_waits_ = false;
    bool round_covered_ = false;
    bool bitmap_waits_ = false;
    std::uint64_t bitmap_covered_ = 0;  // clears of the bitmap that the flush in flight makes good
    bool busy_ = false;
};

}  // namespace gemel::replication
