// Bodies of the engines' messages. Encoder and decoder of one message stand side by side; fields in struct
// order.
#include <array>

#include "base/bytes.hpp"
#include "base/invariant.hpp"
#include "core/link/wire.hpp"

namespace gemel::link {
namespace {

using namespace replication;

// Writes into a vector without knowing the size beforehand.
class Sink {
  public:
    explicit Sink(std::vector<std::byte>& out) : out_(out) {}
    void u8(std::uint8_t v) { put(v, 1); }
    void u16(std::uint16_t v) { put(v, 2); }
    void u32(std::uint32_t v) { put(v, 4); }
    void u64(std::uint64_t v) { put(v, 8); }
    void flag(bool v) { put(v ? 1 : 0, 1); }
    template <typename Tag>
    void id(const TypedId<Tag>& v) {
        const auto bytes = std::as_bytes(std::span(v.value.bytes));
        out_.insert(out_.end(), bytes.begin(), bytes.end());
    }
    void uuid(const Uuid& v) { id(NodeId{v}); }

  private:
    void put(std::uint64_t v, int width) {
        for (int i = 0; i < width; ++i) out_.push_back(static_cast<std::byte>(v >> (8 * i) & 0xff));
    }
    std::vector<std::byte>& out_;
};

// Reads, and remembers a flag or an enumerator outside its range.
class Source {
  public:
    explicit Source(std::span<const std::byte> body) : reader_(body) {}
    std::uint8_t u8() { return reader_.u8(); }
    std::uint16_t u16() { return reader_.u16(); }
    std::uint32_t u32() { return reader_.u32(); }
    std::uint64_t u64() { return reader_.u64(); }
    bool flag() { return below(2) == 1; }
    std::uint8_t below(std::uint8_t limit) {
        const std::uint8_t value = reader_.u8();
        if (value >= limit) valid_ = false;
        return value < limit ? value : std::uint8_t{0};
    }
    template <typename Id>
    Id id() {
        return reader_.id<Id>();
    }
    Uuid uuid() { return reader_.uuid(); }
    std::size_t remaining() const { return reader_.remaining(); }
    void invalidate() { valid_ = false; }
    bool good() const { return valid_ && reader_.at_end(); }

  private:
    ByteReader reader_;
    bool valid_ = true;
};

void put_generation(Sink& out, const Generation& g) {
    out.id(g.id);
    out.id(g.parent);
    out.u64(g.counter);
}

Generation get_generation(Source& in) {
    Generation g;
    g.id = in.id<GenerationId>();
    g.parent = in.id<GenerationId>();
    g.counter = in.u64();
    return g;
}

void put_ancestors(Sink& out, const std::vector<GenerationId>& ancestors) {
    INVARIANT(ancestors.size() <= kMaxAncestorsOnWire, "the record keeps the newest only");
    out.u16(static_cast<std::uint16_t>(ancestors.size()));
    for (const auto& id : ancestors) out.id(id);
}

std::vector<GenerationId> get_ancestors(Source& in) {
    const std::uint16_t count = in.u16();
    if (count > kMaxAncestorsOnWire) {
        in.invalidate();
        return {};
    }
    std::vector<GenerationId> ancestors(count);
    for (auto& id : ancestors) id = in.id<GenerationId>();
    return ancestors;
}

void put(Sink& out, const StateMessage& m) {
    const HandshakeState& s = m.state;
    out.id(s.replica);
    out.uuid(s.incarnation.boot);
    out.uuid(s.incarnation.nonce);
    out.id(s.process);
    out.u64(s.size_bytes);
    out.flag(s.metadata_readable);
    out.u8(static_cast<std::uint8_t>(s.state));
    put_generation(out, s.generation);
    put_ancestors(out, s.ancestors);
    out.flag(s.in_own_ack_set);
    out.flag(s.peer_in_own_ack_set);
    out.flag(s.join_pending);
    out.id(s.tracked_peer);
    out.id(s.tracked_since);
    out.u64(s.dirty_bytes);
    out.u64(s.unsettled_bytes);
    out.flag(s.writer_crashed);
    out.flag(s.outlived_process);
    out.u64(s.epoch_floor);
    out.u64(s.granted_epoch);
    out.uuid(s.known_peer_incarnation.boot);
    out.uuid(s.known_peer_incarnation.nonce);
    out.id(s.known_peer_process);
    out.u64(s.record_revision);
    out.id(s.record_lineage);
}

void get(Source& in, StateMessage& m) {
    HandshakeState& s = m.state;
    s.replica = in.id<ReplicaId>();
    s.incarnation.boot = in.uuid();
    s.incarnation.nonce = in.uuid();
    s.process = in.id<SessionId>();
    s.size_bytes = in.u64();
    s.metadata_readable = in.flag();
    s.state = static_cast<ReplicaState>(in.below(6));
    s.generation = get_generation(in);
    s.ancestors = get_ancestors(in);
    s.in_own_ack_set = in.flag();
    s.peer_in_own_ack_set = in.flag();
    s.join_pending = in.flag();
    s.tracked_peer = in.id<ReplicaId>();
    s.tracked_since = in.id<GenerationId>();
    s.dirty_bytes = in.u64();
    s.unsettled_bytes = in.u64();
    s.writer_crashed = in.flag();
    s.outlived_process = in.flag();
    s.epoch_floor = in.u64();
    s.granted_epoch = in.u64();
    s.known_peer_incarnation.boot = in.uuid();
    s.known_peer_incarnation.nonce = in.uuid();
    s.known_peer_process = in.id<SessionId>();
    s.record_revision = in.u64();
    s.record_lineage = in.id<LineageId>();
}

void put(Sink& out, const VerdictMessage& m) {
    out.u8(m.verdict);
    out.u64(m.record_revision);
}
void get(Source& in, VerdictMessage& m) {
    m.verdict = in.u8();
    m.record_revision = in.u64();
}

void put(Sink& out, const BitmapMessage& m) {
    INVARIANT(m.words.size() <= kMaxBitmapWords, "a bitmap message is one page");
    out.u64(m.first_block);
    out.flag(m.last);
    out.u16(static_cast<std::uint16_t>(m.words.size()));
    for (const auto word : m.words) out.u64(word);
}
void get(Source& in, BitmapMessage& m) {
    m.first_block = in.u64();
    m.last = in.flag();
    const std::uint16_t count = in.u16();
    if (count > kMaxBitmapWords || in.remaining() != std::size_t{count} * 8) {
        in.invalidate();
        return;
    }
    m.words.resize(count);
    for (auto& word : m.words) word = in.u64();
}

void put(Sink& out, const WriteMessage& m) {
    out.u64(m.request);
    out.u64(m.epoch);
    out.u64(m.generation_counter);
    out.u64(m.offset);
    out.u32(m.length);
    out.flag(m.stable);
}
void get(Source& in, WriteMessage& m) {
    m.request = in.u64();
    m.epoch = in.u64();
    m.generation_counter = in.u64();
    m.offset = in.u64();
    m.length = in.u32();
    m.stable = in.flag();
}

void put(Sink& out, const ZeroMessage& m) {
    out.u64(m.request);
    out.u64(m.epoch);
    out.u64(m.generation_counter);
    out.u64(m.offset);
    out.u64(m.length);
    out.flag(m.unmap);
    out.flag(m.stable);
}
void get(Source& in, ZeroMessage& m) {
    m.request = in.u64();
    m.epoch = in.u64();
    m.generation_counter = in.u64();
    m.offset = in.u64();
    m.length = in.u64();
    m.unmap = in.flag();
    m.stable = in.flag();
}

void put(Sink& out, const FlushMessage& m) {
    out.u64(m.request);
    out.u64(m.epoch);
    out.u64(m.generation_counter);
}
void get(Source& in, FlushMessage& m) {
    m.request = in.u64();
    m.epoch = in.u64();
    m.generation_counter = in.u64();
}

void put(Sink& out, const AckMessage& m) {
    out.u64(m.request);
    out.u64(m.epoch);
    out.u8(static_cast<std::uint8_t>(m.status));
}
void get(Source& in, AckMessage& m) {
    m.request = in.u64();
    m.epoch = in.u64();
    m.status = static_cast<AckStatus>(in.below(4));
}

void put(Sink& out, const HeartbeatMessage& m) {
    out.u64(m.number);
    out.u64(m.epoch);
}
void get(Source& in, HeartbeatMessage& m) {
    m.number = in.u64();
    m.epoch = in.u64();
}

void put(Sink& out, const HeartbeatAckMessage& m) {
    out.u64(m.number);
    out.u64(m.epoch);
    out.flag(m.refused);
}
void get(Source& in, HeartbeatAckMessage& m) {
    m.number = in.u64();
    m.epoch = in.u64();
    m.refused = in.flag();
}

void put(Sink&, const ResyncReadyMessage&) {}
void get(Source&, ResyncReadyMessage&) {}

void put(Sink& out, const ResyncWriteMessage& m) {
    out.u64(m.chunk);
    out.u64(m.offset);
    out.u32(m.length);
}
void get(Source& in, ResyncWriteMessage& m) {
    m.chunk = in.u64();
    m.offset = in.u64();
    m.length = in.u32();
}

void put(Sink& out, const ResyncCompareMessage& m) {
    out.u64(m.chunk);
    out.u64(m.offset);
    out.u32(m.length);
    out.u64(m.hash_high);
    out.u64(m.hash_low);
}
void get(Source& in, ResyncCompareMessage& m) {
    m.chunk = in.u64();
    m.offset = in.u64();
    m.length = in.u32();
    m.hash_high = in.u64();
    m.hash_low = in.u64();
}

void put(Sink& out, const ResyncAckMessage& m) {
    out.u64(m.chunk);
    out.flag(m.same);
    out.u8(static_cast<std::uint8_t>(m.status));
}
void get(Source& in, ResyncAckMessage& m) {
    m.chunk = in.u64();
    m.same = in.flag();
    m.status = static_cast<AckStatus>(in.below(4));
}

void put(Sink& out, const JoinMessage& m) {
    put_generation(out, m.generation);
    put_ancestors(out, m.ancestors);
}
void get(Source& in, JoinMessage& m) {
    m.generation = get_generation(in);
    m.ancestors = get_ancestors(in);
}

void put(Sink& out, const JoinReadyMessage& m) {
    out.id(m.generation);
}
void get(Source& in, JoinReadyMessage& m) {
    m.generation = in.id<GenerationId>();
}

void put(Sink& out, const RecordHintMessage& m) {
    out.u64(m.revision);
}
void get(Source& in, RecordHintMessage& m) {
    m.revision = in.u64();
}

void put(Sink& out, const ReadMessage& m) {
    out.u64(m.request);
    out.u64(m.epoch);
    out.u64(m.generation_counter);
    out.u64(m.offset);
    out.u32(m.length);
}
void get(Source& in, ReadMessage& m) {
    m.request = in.u64();
    m.epoch = in.u64();
    m.generation_counter = in.u64();
    m.offset = in.u64();
    m.length = in.u32();
}

void put(Sink& out, const ReadReplyMessage& m) {
    out.u64(m.request);
    out.u32(m.length);
    out.u8(static_cast<std::uint8_t>(m.status));
}
void get(Source& in, ReadReplyMessage& m) {
    m.request = in.u64();
    m.length = in.u32();
    m.status = static_cast<AckStatus>(in.below(4));
    // data comes with ok only
    if ((m.status == AckStatus::ok) != (m.length > 0)) in.invalidate();
}

template <typename Message>
Result<PeerMessage> decode_as(std::span<const std::byte> body) {
    Source in(body);
    Message message;
    get(in, message);
    if (!in.good()) {
        return fail(ErrorCode::corrupt,
                    "peer sent a message that does not fit its type: the connection is closed; both nodes "
                    "must run the same version");
    }
    return PeerMessage{std::move(message)};
}

using Decoder = Result<PeerMessage> (*)(std::span<const std::byte>);

template <std::size_t... Index>
constexpr auto make_decoders(std::index_sequence<Index...>) {
    return std::array<Decoder, sizeof...(Index)>{
        &decode_as<std::variant_alternative_t<Index, PeerMessage>>...};
}

}  // namespace

// The order of the variant's alternatives is the order of the type numbers, beginning with 1.
static_assert(std::variant_size_v<PeerMessage> == 18);
static_assert(std::is_same_v<std::variant_alternative_t<3, PeerMessage>, WriteMessage>);
static_assert(std::is_same_v<std::variant_alternative_t<15, PeerMessage>, RecordHintMessage>);
static_assert(std::is_same_v<std::variant_alternative_t<17, PeerMessage>, ReadReplyMessage>);

FrameType frame_type(const PeerMessage& message) {
    return static_cast<FrameType>(message.index() + 1);
}

std::uint32_t payload_bytes(const PeerMessage& message) {
    if (const auto* write = std::get_if<WriteMessage>(&message)) return write->length;
    if (const auto* resync = std::get_if<ResyncWriteMessage>(&message)) return resync->length;
    if (const auto* reply = std::get_if<ReadReplyMessage>(&message)) return reply->length;
    return 0;
}

void encode_message(const PeerMessage& message, std::vector<std::byte>& out) {
    Sink sink(out);
    std::visit([&sink](const auto& m) { put(sink, m); }, message);
}

Result<PeerMessage> decode_message(FrameType type, std::span<const std::byte> body) {
    static constexpr auto kDecoders =
        make_decoders(std::make_index_sequence<std::variant_size_v<PeerMessage>>{});
    const auto index = static_cast<std::size_t>(type) - 1;
    if (index >= kDecoders.size())
        return fail(ErrorCode::corrupt, "peer sent a frame that carries no message where one was expected");
    return kDecoders.at(index)(body);
}

}  // namespace gemel::link
