// Two sessions joined by connections that lose, delay, die and come back.
#include <deque>
#include <map>

#include <gtest/gtest.h>

#include "base/prng.hpp"
#include "core/link/session.hpp"

namespace gemel::link {
namespace {

using replication::PeerMessage;
using replication::RecordHintMessage;

struct Flight {
    std::vector<std::byte> head;
    std::uint32_t payload_bytes = 0;
    PayloadHandle payload = kNoPayload;
};

// Both ends, and the pipes between them. A pipe is in order and reliable until it is cut, as TCP is.
class Pair {
  public:
    explicit Pair(std::uint64_t process_a = 1, std::uint64_t process_b = 2)
        : ends_{End(config("node1", "node2", process_a)), End(config("node2", "node1", process_b))} {}

    static SessionConfig config(const std::string& node, const std::string& peer, std::uint64_t process) {
        SessionConfig config;
        config.cluster = ClusterId::from_random(9, 9);
        config.volume = VolumeId::from_random(8, 8);
        config.node = node;
        config.peer_node = peer;
        config.process = SessionId::from_random(process, process);
        return config;
    }

    struct End {
        explicit End(SessionConfig c) : session(std::move(c)) {}
        Session session;
        std::vector<std::uint64_t> received;
        std::vector<SessionId> ups;
        int downs = 0;
        SessionId current;
    };

    void connect(ConnectionId id) {
        pipes_[id];
        for (std::size_t side = 0; side < 2; ++side)
            call(side, [&](auto& out) { end(side).session.connected(now, id, out); });
    }
    // The pipe dies: what is under way in it is lost. Each side may learn of it or not.
    void cut(ConnectionId id, bool tell_a, bool tell_b) {
        pipes_.erase(id);
        if (tell_a) call(0, [&](auto& out) { end(0).session.disconnected(now, id, out); });
        if (tell_b) call(1, [&](auto& out) { end(1).session.disconnected(now, id, out); });
    }
    void send(std::size_t side, std::uint64_t number) {
        call(side, [&](auto& out) {
            end(side).session.send(now, end(side).current, RecordHintMessage{number}, kNoPayload, 0, out);
        });
    }
    // Delivers the oldest frame of one pipe in one direction; false when there is none.
    bool deliver(ConnectionId id, std::size_t to) {
        const auto pipe = pipes_.find(id);
        if (pipe == pipes_.end() || pipe->second.at(to).empty()) return false;
        const Flight flight = pipe->second.at(to).front();
        pipe->second.at(to).pop_front();
        const auto header =
            decode_header(std::span<const std::byte, kHeaderBytes>(flight.head.data(), kHeaderBytes));
        EXPECT_TRUE(header);
        call(to, [&](auto& out) {
            end(to).session.received(now, id, *header, std::span(flight.head).subspan(kHeaderBytes),
                                     flight.payload, out);
        });
        return true;
    }
    void settle() {
        for (bool moved = true; moved;) {
            moved = false;
            for (ConnectionId id = 0; id < 2000; ++id) {
                for (std::size_t to = 0; to < 2; ++to) {
                    while (deliver(id, to)) moved = true;
                }
            }
        }
    }
    void advance(Duration by) {
        now = now + by;
        for (std::size_t side = 0; side < 2; ++side)
            call(side, [&](auto& out) { end(side).session.tick(now, out); });
    }
    End& end(std::size_t side) { return ends_.at(side); }
    bool has(ConnectionId id) const { return pipes_.contains(id); }

    template <typename Function>
    void call(std::size_t side, Function&& function) {
        SessionOutputs out;
        function(out);
        for (const SessionOutput& output : out) apply(side, output);
    }

    Instant now{1};

  private:
    void apply(std::size_t side, const SessionOutput& output) {
        if (const auto* frame = std::get_if<SendFrame>(&output)) {
            if (const auto pipe = pipes_.find(frame->connection); pipe != pipes_.end()) {
                pipe->second.at(1 - side).push_back({frame->head, frame->payload_bytes, frame->payload});
            }
        } else if (const auto* close = std::get_if<CloseConnection>(&output)) {
            if (pipes_.erase(close->connection) > 0) {
                const ConnectionId id = close->connection;
                call(1 - side, [&](auto& out) { end(1 - side).session.disconnected(now, id, out); });
            }
        } else if (const auto* up = std::get_if<replication::PeerUp>(&output)) {
            end(side).ups.push_back(up->session);
            end(side).current = up->session;
            end(side).received.clear();
        } else if (std::holds_alternative<replication::PeerDown>(output)) {
            ++end(side).downs;
        } else if (const auto* in = std::get_if<replication::PeerMessageIn>(&output)) {
            EXPECT_EQ(in->session, end(side).current);
            end(side).received.push_back(std::get<RecordHintMessage>(in->message).revision);
        }
    }

    std::array<End, 2> ends_;
    std::map<ConnectionId, std::array<std::deque<Flight>, 2>> pipes_;  // by receiving side
};

TEST(Session, BothSidesEnterTheSameSession) {
    Pair pair;
    pair.connect(1);
    pair.settle();
    ASSERT_EQ(pair.end(0).ups.size(), 1U);
    ASSERT_EQ(pair.end(1).ups.size(), 1U);
    EXPECT_EQ(pair.end(0).current, pair.end(1).current);
    pair.send(0, 7);
    pair.settle();
    EXPECT_EQ(pair.end(1).received, std::vector<std::uint64_t>{7});
}

TEST(Session, WhatADeadConnectionSwallowedIsSentAgainAndRepeatsAreDropped) {
    Pair pair;
    pair.connect(1);
    pair.settle();
    for (std::uint64_t i = 1; i <= 10; ++i) pair.send(0, i);
    for (int i = 0; i < 4; ++i) pair.deliver(1, 1);
    pair.cut(1, true, true);
    pair.connect(2);
    pair.settle();
    EXPECT_EQ(pair.end(1).received, (std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
    EXPECT_EQ(pair.end(1).ups.size(), 1U) << "the same session went on";
    EXPECT_EQ(pair.end(1).downs, 0);
}

TEST(Session, OrderDoesNotDependOnTheConnection) {
    Pair pair;
    pair.connect(1);
    pair.connect(2);
    pair.settle();
    for (std::uint64_t i = 1; i <= 8; ++i) pair.send(0, i);
    while (pair.deliver(2, 1)) {
    }
    while (pair.deliver(1, 1)) {
    }
    EXPECT_EQ(pair.end(1).received, (std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(Session, SilenceEndsItOnBothSidesAndAnotherOneBegins) {
    Pair pair;
    pair.connect(1);
    pair.settle();
    const SessionId first = pair.end(0).current;
    pair.send(0, 1);
    pair.cut(1, false, false);  // half open: nobody is told
    pair.advance(milliseconds(2100));
    EXPECT_EQ(pair.end(0).downs, 1);
    EXPECT_EQ(pair.end(1).downs, 1);
    pair.connect(3);
    pair.settle();
    EXPECT_NE(pair.end(0).current, first);
    EXPECT_EQ(pair.end(0).current, pair.end(1).current);
    EXPECT_TRUE(pair.end(1).received.empty()) << "nothing of the old session may arrive in the new one";
}

TEST(Session, ASideThatLeftAloneTakesTheOtherAlong) {
    Pair pair;
    pair.connect(1);
    pair.settle();
    const SessionId first = pair.end(0).current;
    pair.call(0, [&](auto& out) { pair.end(0).session.drop(pair.now, first, "test", false, out); });
    pair.connect(2);
    pair.settle();
    EXPECT_EQ(pair.end(0).downs, 1);
    EXPECT_EQ(pair.end(1).downs, 1);
    EXPECT_NE(pair.end(1).current, first);
    EXPECT_EQ(pair.end(0).current, pair.end(1).current);
}

TEST(Session, PayloadsAreGivenBackWhenAcknowledgedOrLost) {
    Pair pair;
    pair.connect(1);
    pair.settle();
    int returned = 0;
    SessionOutputs out;
    replication::WriteMessage write;
    write.length = 4096;
    pair.end(0).session.send(pair.now, pair.end(0).current, write, 5, 0, out);
    pair.end(0).session.drop(pair.now, pair.end(0).current, "test", false, out);
    for (const auto& output : out) {
        if (const auto* sent = std::get_if<PayloadSent>(&output)) {
            EXPECT_EQ(sent->payload, 5U);
            ++returned;
        }
    }
    EXPECT_EQ(returned, 1);
}

TEST(Session, AnotherClusterIsRefusedWithTheReason) {
    Session session(Pair::config("node1", "node2", 1));
    SessionOutputs out;
    session.connected(Instant{1}, 1, out);
    Hello hello;
    hello.node = "node2";
    hello.peer_node = "node1";
    hello.volume = VolumeId::from_random(8, 8);
    hello.process = SessionId::from_random(2, 2);
    const auto body = encode_hello(hello);
    FrameHeader header;
    header.type = FrameType::hello;
    out.clear();
    session.received(Instant{2}, 1, header, body, kNoPayload, out);
    EXPECT_FALSE(session.in_session());
    EXPECT_NE(session.problem().find("another cluster"), std::string::npos);
    ASSERT_EQ(out.size(), 2U);
    EXPECT_TRUE(std::holds_alternative<SendFrame>(out[0]));
    EXPECT_TRUE(std::holds_alternative<CloseConnection>(out[1]));
}

TEST(Session, VersionsThatDoNotMeetAreRefused) {
    Session session(Pair::config("node1", "node2", 1));
    SessionOutputs out;
    session.connected(Instant{1}, 1, out);
    Hello hello;
    hello.cluster = ClusterId::from_random(9, 9);
    hello.volume = VolumeId::from_random(8, 8);
    hello.node = "node2";
    hello.peer_node = "node1";
    hello.process = SessionId::from_random(2, 2);
    hello.protocol_min = kProtocolMax + 1;
    hello.protocol_max = kProtocolMax + 2;
    FrameHeader header;
    header.type = FrameType::hello;
    session.received(Instant{2}, 1, header, encode_hello(hello), kNoPayload, out);
    EXPECT_NE(session.problem().find("protocol"), std::string::npos);
}

// Whatever the connections do, what arrives in a session is a prefix of what was sent in it, in order, once.
TEST(Session, RandomCutsNeverLoseOrRepeatInsideASession) {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        Prng random(seed);
        Pair pair;
        ConnectionId next = 1;
        std::map<SessionId, std::uint64_t> sent[2];
        for (int step = 0; step < 400; ++step) {
            const auto action = random.below(100);
            const std::size_t side = random.below(2);
            if (action < 8 && next < 1900) {
                pair.connect(next++);
            } else if (action < 12 && next > 1) {
                pair.cut(1 + random.below(next - 1), random.chance(1, 2), random.chance(1, 2));
            } else if (action < 14) {
                pair.advance(milliseconds(random.between(1, 2500)));
            } else if (action < 15) {
                pair.call(side, [&](auto& out) {
                    pair.end(side).session.drop(pair.now, pair.end(side).current, "test", false, out);
                });
            } else if (action < 50) {
                if (pair.end(side).session.in_session())
                    pair.send(side, ++sent[side][pair.end(side).current]);
            } else if (next > 1) {
                pair.deliver(1 + random.below(next - 1), side);
            }
            for (std::size_t end = 0; end < 2; ++end) {
                const auto& received = pair.end(end).received;
                for (std::size_t i = 0; i < received.size(); ++i)
                    ASSERT_EQ(received[i], i + 1) << "seed " << seed;
                ASSERT_LE(received.size(), sent[1 - end][pair.end(end).current]) << "seed " << seed;
            }
        }
    }
}

}  // namespace
}  // namespace gemel::link
