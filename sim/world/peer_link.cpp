#include "sim/world/peer_link.hpp"

#include <algorithm>
#include <utility>

namespace gemel::sim {
namespace {

constexpr Duration kConnectEvery = milliseconds(60);
constexpr Duration kLinkLoss = milliseconds(2000);
constexpr std::int64_t kCheckJitterMillis = 300;

std::uint64_t pack(std::uint64_t session, std::uint32_t node) {
    return session << 1 | node;
}

}  // namespace

PeerLink::PeerLink(EventQueue& queue, Trace& trace, Network& network, Prng random)
    : queue_(queue), trace_(trace), network_(network), random_(random) {
    network_.on_change([this] { network_changed(); });
}

SessionId PeerLink::session_id(std::uint64_t number) {
    return SessionId::from_random(0x5e55ULL, number);
}

void PeerLink::attach(std::uint32_t node, PeerClient& client, const PeerIdentity& identity) {
    forget(node);
    Side& side = sides_[node];
    side.client = &client;
    side.identity = identity;
    try_connect();
}

void PeerLink::forget(std::uint32_t node) {
    const bool paused = sides_[node].paused;
    sides_[node] = Side{};
    sides_[node].paused = paused;
}

bool PeerLink::healthy() const {
    return network_.links_pass(0, 1) && network_.links_pass(1, 0) && !sides_[0].paused && !sides_[1].paused;
}

void PeerLink::network_changed() {
    const bool now_healthy = healthy();
    if (now_healthy) {
        was_healthy_ = true;
        ++outage_;
        for (std::uint32_t node = 0; node < 2; ++node) {
            for (Packet& packet : sides_[node].incoming) packet.held = false;
            schedule_delivery(node);
        }
        try_connect();
        return;
    }
    for (std::uint32_t node = 0; node < 2; ++node) {
        for (Packet& packet : sides_[node].incoming) packet.held = !network_.links_pass(1 - node, node);
        schedule_delivery(node);
    }
    if (!was_healthy_) return;
    was_healthy_ = false;
    ++outage_;
    for (std::uint32_t node = 0; node < 2; ++node) {
        const Duration jitter = milliseconds(random_.between(0, kCheckJitterMillis));
        queue_.after(kLinkLoss + jitter, *this, kCheckSilence, node, outage_);
    }
}

void PeerLink::try_connect() {
    if (connect_scheduled_) return;
    connect_scheduled_ = true;
    queue_.after(kConnectEvery + milliseconds(random_.between(0, 40)), *this, kTryConnect);
}

void PeerLink::send(std::uint32_t node, SessionId session, const replication::PeerMessage& message,
                    std::vector<Stamp> stamps) {
    const Side& from = sides_[node];
    Side& to = sides_[1 - node];
    if (!from.up || session != session_id(from.session)) return;
    if (!(to.up || to.opening) || to.session != from.session || to.ends_after_queue) return;
    Instant arrives = queue_.now() + network_.link_delay(node, 1 - node);
    if (!to.incoming.empty()) arrives = std::max(arrives, to.incoming.back().arrives);
    to.incoming.push_back(Packet{message, std::move(stamps), arrives, !network_.links_pass(node, 1 - node)});
    schedule_delivery(1 - node);
}

void PeerLink::schedule_delivery(std::uint32_t node) {
    Side& side = sides_[node];
    if (!side.up || side.deliver_scheduled || side.incoming.empty() || side.paused) return;
    if (!network_.links_pass(1 - node, node) && !side.ends_after_queue) return;
    side.deliver_scheduled = true;
    queue_.at(side.incoming.front().arrives, *this, kDeliver, pack(side.session, node));
}

void PeerLink::deliver(std::uint32_t node) {
    Side& side = sides_[node];
    side.deliver_scheduled = false;
    if (!side.up || side.incoming.empty() || side.paused) return;
    if (!network_.links_pass(1 - node, node) && !side.ends_after_queue) return;
    if (side.incoming.front().arrives > queue_.now()) return schedule_delivery(node);
    Packet packet = std::move(side.incoming.front());
    side.incoming.pop_front();
    schedule_delivery(node);
    ++delivered_;
    trace_.note(queue_.now(), node, "link.deliver", packet.message.index(), side.session,
                packet.stamps.empty() ? 0 : packet.stamps[0]);
    side.client->peer_message(session_id(side.session), packet.message, packet.stamps);
}

void PeerLink::end_side(std::uint32_t node) {
    Side& side = sides_[node];
    side.opening = false;
    if (!side.up) return;
    side.up = false;
    side.incoming.clear();
    side.ends_after_queue = false;
    trace_.note(queue_.now(), node, "link.down", side.session);
    if (side.client != nullptr) side.client->peer_down(session_id(side.session));
    try_connect();
}

// The other side learns after `delay` that the session is over; of what is under way to it a prefix may
// arrive.
void PeerLink::peer_hears(std::uint32_t node, Duration delay) {
    Side& side = sides_[node];
    if (!side.up && !side.opening) return;
    if (!side.incoming.empty()) {
        const std::size_t kept = random_.below(side.incoming.size() + 1);
        while (side.incoming.size() > kept) side.incoming.pop_back();
    }
    side.ends_after_queue = true;
    if (!side.incoming.empty())
        delay = std::max(delay, side.incoming.back().arrives - queue_.now() + microseconds(1));
    schedule_delivery(node);
    queue_.after(delay, *this, kDown, pack(side.session, node));
}

void PeerLink::drop(std::uint32_t node, SessionId session, bool stay_away) {
    Side& side = sides_[node];
    if (stay_away) side.stay_away = true;
    if (!side.up || session != session_id(side.session)) return;
    const std::uint64_t number = side.session;
    side.incoming.clear();
    if (network_.links_pass(node, 1 - node) && sides_[1 - node].session == number) {
        peer_hears(1 - node, microseconds(200));
    }
    queue_.after(microseconds(1), *this, kDown, pack(number, node));
}

void PeerLink::allow(std::uint32_t node) {
    sides_[node].stay_away = false;
    try_connect();
}

void PeerLink::process_died(std::uint32_t node) {
    Side& side = sides_[node];
    const bool was_up = side.up || side.opening;
    const std::uint64_t number = side.session;
    forget(node);
    if (was_up && network_.links_pass(node, 1 - node) && sides_[1 - node].session == number) {
        peer_hears(1 - node, microseconds(300));
    } else if (was_up) {
        queue_.after(kLinkLoss, *this, kCheckSilence, 1 - node, number << 32 | 1);
    }
}

void PeerLink::host_vanished(std::uint32_t node) {
    const std::uint64_t number = sides_[node].session;
    const bool was_up = sides_[node].up || sides_[node].opening;
    forget(node);
    Side& other = sides_[1 - node];
    if (!was_up || !other.up || other.session != number) return;
    // frames that left before the cut may still come in, nothing says that it was the last
    std::erase_if(other.incoming, [](const Packet& packet) { return packet.held; });
    other.ends_after_queue = true;
    schedule_delivery(1 - node);
    queue_.after(kLinkLoss + milliseconds(random_.between(0, kCheckJitterMillis)), *this, kDown,
                 pack(number, 1 - node));
}

void PeerLink::pause(std::uint32_t node, bool paused) {
    Side& side = sides_[node];
    side.paused = paused;
    network_changed();
    if (!paused && std::exchange(side.down_wanted, false)) end_side(node);
    if (!paused) schedule_delivery(node);
}

void PeerLink::reset() {
    if (!sides_[0].up || !sides_[1].up || sides_[0].session != sides_[1].session) return;
    peer_hears(0, microseconds(random_.between(100, 3000)));
    peer_hears(1, microseconds(random_.between(100, 3000)));
}

bool PeerLink::corrupt() {
    if (!sides_[0].up || !sides_[1].up || sides_[0].session != sides_[1].session) return false;
    for (std::uint32_t node = 0; node < 2; ++node) {
        if (sides_[node].incoming.empty()) continue;
        sides_[node].incoming.clear();
        reset();
        return true;
    }
    return false;
}

void PeerLink::connect() {
    connect_scheduled_ = false;
    if (sides_[0].client == nullptr || sides_[1].client == nullptr) return;
    const auto busy = [](const Side& side) { return side.up || side.opening; };
    if (sides_[0].session == sides_[1].session && busy(sides_[0]) && busy(sides_[1])) return;
    if (sides_[0].stay_away || sides_[1].stay_away || !healthy()) return;
    if (protocols_[0] != protocols_[1]) return try_connect();  // refused at the hello, and tried again
    if (busy(sides_[0]) || busy(sides_[1])) {
        // a new connection tells the side that still believes in the old one
        for (std::uint32_t node = 0; node < 2; ++node) end_side(node);
        return try_connect();
    }
    ++sessions_;
    for (std::uint32_t node = 0; node < 2; ++node) {
        sides_[node].session = sessions_;
        sides_[node].opening = true;
        sides_[node].incoming.clear();
        sides_[node].deliver_scheduled = false;  // an event of the session before finds another number
        sides_[node].ends_after_queue = false;
        queue_.after(microseconds(random_.between(50, 900)), *this, kOpen, pack(sessions_, node));
    }
}

void PeerLink::open(std::uint32_t node, std::uint64_t session) {
    Side& side = sides_[node];
    const Side& other = sides_[1 - node];
    if (side.session != session || !side.opening) return;
    side.opening = false;
    if (other.session != session || !(other.up || other.opening)) return try_connect();
    side.up = true;
    trace_.note(queue_.now(), node, "link.up", session);
    side.client->peer_up(session_id(session), other.identity);
    schedule_delivery(node);
}

void PeerLink::on_event(std::uint32_t kind, std::uint64_t a, std::uint64_t b) {
    const auto node = static_cast<std::uint32_t>(a & 1);
    const std::uint64_t session = a >> 1;
    switch (kind) {
        case kTryConnect: connect(); break;
        case kOpen: open(node, session); break;
        case kDeliver:
            if (sides_[node].session == session) deliver(node);
            break;
        case kCheckSilence:
            if (b >> 32 != 0 ? sides_[node].session != b >> 32 : b != outage_) return;
            if (sides_[node].paused) {
                sides_[node].down_wanted = true;
            } else {
                end_side(node);
            }
            break;
        case kDown:
            if (sides_[node].session != session) return;
            if (sides_[node].paused) {
                sides_[node].down_wanted = true;
            } else {
                end_side(node);
            }
            break;
        default: break;
    }
}

}  // namespace gemel::sim
