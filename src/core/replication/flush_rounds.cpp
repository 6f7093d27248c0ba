#include "core/replication/flush_rounds.hpp"

#include "base/invariant.hpp"
#include "base/mutant.hpp"
#include "core/replication/core.hpp"

namespace gemel::replication {

void FlushRounds::pump() {
    const bool over_network = core_.authority.over_network();
    // the own part of a round that failed, or never will end: it does not count any more
    if (running_ && !local_done_ && over_network) local_flushed();
    if (running_ || !wanted_ || !core_.attached() || (core_.local_failed() && !over_network)) return;
    // While the peer is missing and still counted, nothing can become stable "on both": wait for it or its
    // leave.
    if (core_.authority.peer_needed() && !core_.session.mirrored()) return;
    start();
}

void FlushRounds::start() {
    wanted_ = false;
    running_ = true;
    local_done_ = core_.authority.over_network();
    peer_done_ = !core_.session.mirrored() || mutant("flush_ignores_peer");
    ++next_;
    if (!local_done_) core_.local_flush.for_round();
    if (!peer_done_) ask_peer();
    core_.again();
}

void FlushRounds::ask_peer() {
    FlushMessage flush;
    flush.request = kRequestBit | (next_ - 1);
    flush.epoch = core_.authority.role() == Role::primary ? core_.lease.epoch() : 0;
    flush.generation_counter = core_.write_generation();
    core_.emit(PeerSend{core_.session.id(), flush});
}

void FlushRounds::local_flushed() {
    INVARIANT(running_ && !local_done_, "one own flush a round");
    local_done_ = true;
    finish_if_done();
}

void FlushRounds::peer_ack(const AckMessage& ack) {
    if (!running_ || peer_done_ || ack.request != (kRequestBit | (next_ - 1))) {
        core_.session.drop("answer to a flush nobody sent");
        return;
    }
    if (ack.status != AckStatus::ok) {
        core_.session.peer_refused(ack.status);
        return;
    }
    peer_done_ = true;
    finish_if_done();
}

void FlushRounds::peer_resumed() {
    if (running_ && !peer_done_) ask_peer();
}

void FlushRounds::peer_gone() {
    if (!running_ || peer_done_) return;
    peer_done_ = true;
    finish_if_done();
}

void FlushRounds::finish_if_done() {
    if (!local_done_ || !peer_done_) return;
    running_ = false;
    settled_ = next_ - 1;
    core_.front.round_ended(settled_);
    core_.again();
}

}  // namespace gemel::replication
