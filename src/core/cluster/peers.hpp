// Peers: signs of life of the other nodes, over every path, tagged with the life (incarnation) they came
// from. Decides nothing: suspicion is a fact for others. A message of a life that was already replaced by a
// newer one is dropped.
//
//   unseen --message--> alive --silent on all paths for suspicion_ms, no session--> suspected --message-->
//   alive
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/cluster/context.hpp"

namespace gemel::cluster {

class Peers {
  public:
    struct Path {
        Instant at;
        std::uint64_t number = 0;
    };
    struct Peer {
        Incarnation incarnation;  // nil: never heard in this process
        bool heard_ever = false;
        Instant last_heard;
        std::map<std::string, Path> paths;
        Heartbeat heartbeat;
        std::set<Incarnation> former;
        bool member_answers = false;
        bool was_alive = false;
    };

    explicit Peers(Context& context) : context_(context) {}
    void start();
    // false: the message was dropped
    bool hear(const PeerMessageIn& in);
    void session(const BlockdSession& session);
    void store_health(const StoreHealth& health);
    // Reports changes of suspicion.
    void tick();
    bool heartbeat_due() const { return context_.now >= next_heartbeat_; }
    void send_heartbeats(const StoreClaim& claim, bool wants_to_join, std::uint32_t weight);

    const std::map<std::string, Peer>& all() const { return peers_; }
    const Peer* find(const std::string& name) const;
    bool alive(const std::string& name) const;  // clusterd heard, or blockd's session stands
    bool clusterd_alive(const std::string& name) const;
    // What that node, or this one, has left, by its own word; not `known` where its clusterd is silent.
    const HostResources& resources_of(const std::string& name) const;
    bool answers(const std::string& name) const;  // alive, or its store member answers
    Instant lost_since(const std::string& name) const;
    void send(const std::string& to, decltype(PeerMessage::body) body);

  private:
    Context& context_;
    std::map<std::string, Peer> peers_;
    std::uint64_t number_ = 0;
    Instant next_heartbeat_;
    Instant started_;
};

}  // namespace gemel::cluster
