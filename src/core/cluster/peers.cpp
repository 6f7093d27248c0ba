#include "core/cluster/peers.hpp"

#include <algorithm>

namespace gemel::cluster {

void Peers::start() {
    started_ = context_.now;
    for (const auto& peer : context_.config.peers) peers_[peer.name];
}

const Peers::Peer* Peers::find(const std::string& name) const {
    const auto at = peers_.find(name);
    return at == peers_.end() ? nullptr : &at->second;
}

bool Peers::hear(const PeerMessageIn& in) {
    const auto at = peers_.find(in.message.from);
    if (at == peers_.end() || in.message.incarnation.is_nil()) return false;
    Peer& peer = at->second;
    if (peer.former.contains(in.message.incarnation)) return false;
    if (peer.incarnation != in.message.incarnation) {
        if (!peer.incarnation.is_nil()) {
            peer.former.insert(peer.incarnation);
            context_.event("warning", "node.rebooted", "node/" + at->first, "a new life of the node answers");
        }
        peer.incarnation = in.message.incarnation;
        peer.paths.clear();
        peer.heartbeat = {};
    }
    peer.heard_ever = true;
    peer.last_heard = context_.now;
    Path& path = peer.paths[in.path];
    path.at = context_.now;
    if (const auto* heartbeat = std::get_if<Heartbeat>(&in.message.body)) {
        path.number = std::max(path.number, heartbeat->number);
        if (heartbeat->number >= peer.heartbeat.number) peer.heartbeat = *heartbeat;
    }
    return true;
}

void Peers::session(const BlockdSession& session) {
    Session& known = context_.sessions[session.node];
    if (known.up != session.up || known.incarnation != session.incarnation) known.changed = context_.now;
    known.up = session.up;
    known.incarnation = session.incarnation;
    known.links = session.links;
}

void Peers::store_health(const StoreHealth& health) {
    for (auto& [name, peer] : peers_) {
        peer.member_answers = std::any_of(
            health.members.begin(), health.members.end(),
            [&wanted = name](const auto& member) { return member.name == wanted && member.answers; });
    }
}

const HostResources& Peers::resources_of(const std::string& name) const {
    static const HostResources kUnknown;
    if (name == context_.config.name) return context_.resources;
    const auto* peer = find(name);
    return peer != nullptr && clusterd_alive(name) ? peer->heartbeat.resources : kUnknown;
}

bool Peers::clusterd_alive(const std::string& name) const {
    const Peer* peer = find(name);
    return peer != nullptr && peer->heard_ever && context_.now - peer->last_heard <= context_.suspicion();
}

bool Peers::alive(const std::string& name) const {
    if (clusterd_alive(name)) return true;
    const Peer* peer = find(name);
    const auto session = context_.sessions.find(name);
    if (peer == nullptr || session == context_.sessions.end() || !session->second.up) return false;
    return !peer->former.contains(session->second.incarnation);
}

bool Peers::answers(const std::string& name) const {
    const Peer* peer = find(name);
    return alive(name) || (peer != nullptr && peer->member_answers);
}

Instant Peers::lost_since(const std::string& name) const {
    Instant since = started_;
    if (const Peer* peer = find(name); peer != nullptr && peer->heard_ever)
        since = std::max(since, peer->last_heard);
    const auto session = context_.sessions.find(name);
    if (session != context_.sessions.end()) since = std::max(since, session->second.changed);
    return since;
}

void Peers::send(const std::string& to, decltype(PeerMessage::body) body) {
    context_.emit(PeerSend{to, "", {context_.config.name, context_.config.incarnation, std::move(body)}});
}

void Peers::tick() {
    for (auto& [name, peer] : peers_) {
        const bool is_alive = alive(name);
        if (is_alive == peer.was_alive) continue;
        peer.was_alive = is_alive;
        if (is_alive) {
            context_.event("info", "node.heard", "node/" + name, "the node answers");
        } else {
            context_.event("warning", "node.suspected", "node/" + name,
                           "silent on all paths; nothing is decided yet");
        }
    }
}

void Peers::send_heartbeats(const StoreClaim& claim, bool wants_to_join, std::uint32_t weight) {
    next_heartbeat_ = context_.now + milliseconds(context_.timing().heartbeat_ms);
    Heartbeat heartbeat;
    heartbeat.number = ++number_;
    heartbeat.store = claim;
    heartbeat.weight = weight;
    heartbeat.acting = context_.acting;
    heartbeat.wants_to_join = wants_to_join;
    heartbeat.resources = context_.resources;
    // A node that was away for a while shows the nonce of a life before: who believed it would set a good
    // store aside. So only tables that a fresh linearizable answer has shown to be the newest vouch.
    const bool newest = context_.store_quorate() && context_.tables_live && context_.gate_open &&
                        context_.latest.revision >= context_.quorate_revision;
    for (const auto& [name, row] : context_.gated.nodes) {
        if (newest && !row.record.member_nonce.is_nil())
            heartbeat.committed_nonces[name] = row.record.member_nonce;
    }
    for (auto& [name, peer] : peers_) {
        heartbeat.heard.clear();
        for (const auto& [path, seen] : peer.paths) {
            if (context_.now - seen.at <= context_.suspicion()) heartbeat.heard[path] = seen.number;
        }
        heartbeat.your_nonce = {};
        heartbeat.your_former_nonces.clear();
        const auto row = context_.latest.nodes.find(name);
        if (row != context_.latest.nodes.end() && !peer.heartbeat.acting) {
            heartbeat.your_nonce = row->second.record.member_nonce;
            heartbeat.your_former_nonces = row->second.record.former_nonces;
        }
        send(name, heartbeat);
    }
}

}  // namespace gemel::cluster
