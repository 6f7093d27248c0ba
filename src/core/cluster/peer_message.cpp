#include "core/cluster/peer_message.hpp"

#include "core/formats/json_fields.hpp"

namespace gemel::cluster {
namespace {
template <typename T, typename Plain>
concept Is = std::is_same_v<std::remove_const_t<T>, Plain>;
}  // namespace

template <typename V, Is<StoreClaim> T>
void fields(V& v, T& r) {
    v("present", r.present);
    v("quorate", r.quorate);
    v("lineage", r.lineage);
    v("ancestors", r.ancestors);
    v("revision", r.revision);
    v("member_nonce", r.member_nonce);
    v("voters", r.voters);
}
template <typename V, Is<HostResources> T>
void fields(V& v, T& r) {
    v("known", r.known);
    v("memory_free_bytes", r.memory_free_bytes);
    v("pool_free_bytes", r.pool_free_bytes);
    v("bridges", r.bridges);
}
template <typename V, Is<Heartbeat> T>
void fields(V& v, T& r) {
    v("number", r.number);
    v("heard", r.heard);
    v("store", r.store);
    v("committed_nonces", r.committed_nonces);
    v("your_nonce", r.your_nonce);
    v("your_former_nonces", r.your_former_nonces);
    v("weight", r.weight);
    v("acting", r.acting);
    v("wants_to_join", r.wants_to_join);
    v("resources", r.resources);
}
template <typename V, Is<AskRelease> T>
void fields(V& v, T& r) {
    v("operation", r.operation);
    v("victim", r.victim);
    v("lineage", r.lineage);
    v("revision", r.revision);
}
template <typename V, Is<ReleaseAnswer> T>
void fields(V& v, T& r) {
    v("operation", r.operation);
    v("victim", r.victim);
    v("granted", r.granted);
    v("lineage", r.lineage);
    v("revision", r.revision);
    v("reason", r.reason);
}
template <typename V, Is<JoinOffer> T>
void fields(V& v, T& r) {
    v("lineage", r.lineage);
    v("initial_cluster", r.initial_cluster);
}
template <typename V, Is<GuestArrived> T>
void fields(V& v, T& r) {
    v("guest", r.guest);
    v("secret", r.secret);
}

namespace {

constexpr std::uint32_t kVersion = 1;
constexpr const char* kKinds[] = {"heartbeat", "ask-release", "release-answer", "join-offer",
                                  "guest-arrived"};

// The envelope around one body; a template so that each message is one flat, strict object.
template <typename Body>
struct Envelope {
    std::uint32_t version = kVersion;
    std::string kind;
    std::string from;
    Incarnation incarnation;
    Body body;
};
template <typename V, typename T>
requires requires(T& e) {
    e.version;
    e.body;
}
void fields(V& v, T& e) {
    v("version", e.version);
    v("kind", e.kind);
    v("from", e.from);
    v("incarnation", e.incarnation);
    v("body", e.body);
}

template <typename Body>
Result<PeerMessage> decode_body(const json_fields::Json& json) {
    Envelope<Body> envelope;
    std::string error;
    json_fields::Reader reader(json, error, "peer message");
    fields(reader, envelope);
    reader.finish();
    if (!error.empty()) return fail(ErrorCode::corrupt, error);
    return PeerMessage{envelope.from, envelope.incarnation, std::move(envelope.body)};
}

}  // namespace

std::string encode_peer_message(const PeerMessage& message) {
    return std::visit(
        [&](const auto& body) {
            Envelope<std::decay_t<decltype(body)>> envelope;
            envelope.kind = kKinds[message.body.index()];
            envelope.from = message.from;
            envelope.incarnation = message.incarnation;
            envelope.body = body;
            json_fields::Json json = json_fields::Json::object();
            json_fields::Writer writer(json);
            fields(writer, envelope);
            return json.dump(-1, ' ', false, json_fields::Json::error_handler_t::replace);
        },
        message.body);
}

Result<PeerMessage> decode_peer_message(std::string_view text) {
    if (text.size() > kMaxPeerMessageBytes)
        return fail(ErrorCode::corrupt, "peer message: longer than 16 KiB");
    const auto json = json_fields::Json::parse(text.begin(), text.end(), nullptr, false);
    if (!json.is_object()) return fail(ErrorCode::corrupt, "peer message: expected one JSON object");
    const auto version = json.find("version");
    if (version == json.end() || *version != kVersion) {
        return fail(ErrorCode::unsupported, "peer message: another version; upgrade gemel on the older node");
    }
    const auto kind = json.find("kind");
    if (kind != json.end() && kind->is_string()) {
        const auto& word = kind->get_ref<const std::string&>();
        if (word == kKinds[0]) return decode_body<Heartbeat>(json);
        if (word == kKinds[1]) return decode_body<AskRelease>(json);
        if (word == kKinds[2]) return decode_body<ReleaseAnswer>(json);
        if (word == kKinds[3]) return decode_body<JoinOffer>(json);
        if (word == kKinds[4]) return decode_body<GuestArrived>(json);
    }
    return fail(ErrorCode::unsupported, "peer message: of a kind this program does not know");
}

}  // namespace gemel::cluster
