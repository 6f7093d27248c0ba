#include "adapters/etcd/client.hpp"

#include <algorithm>
#include <chrono>
#include <mutex>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "adapters/etcd/codec.hpp"
#include "adapters/http/client.hpp"
#include "base/invariant.hpp"

namespace gemel::etcd {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

// gRPC's codes of refusals that are certain: the request was looked at and not proposed.
bool is_certain_refusal(int code) {
    constexpr int kInvalidArgument = 3;
    constexpr int kPermissionDenied = 7;
    constexpr int kResourceExhausted = 8;
    constexpr int kUnimplemented = 12;
    constexpr int kUnauthenticated = 16;
    return code == kInvalidArgument || code == kPermissionDenied || code == kResourceExhausted ||
           code == kUnimplemented || code == kUnauthenticated;
}

}  // namespace

struct Client::Impl {
    explicit Impl(ClientOptions given) : options(std::move(given)) {
        if (!options.members) options.members = std::make_shared<MemberList>(options.endpoints);
    }

    Result<http::Response> post(const std::string& path, const std::string& body, Duration timeout,
                                bool harmless);
    http::Client* connection_to(const http::Address& member);

    ClientOptions options;
    std::mutex mutex;  // connections are made by the one thread that calls and cancelled by any
    bool cancelled = false;
    std::vector<std::unique_ptr<http::Client>> connections;
};

http::Client* Client::Impl::connection_to(const http::Address& member) {
    const std::scoped_lock lock(mutex);
    if (cancelled) return nullptr;
    for (const auto& one : connections)
        if (one->address() == member) return one.get();
    connections.push_back(std::make_unique<http::Client>(http::ClientOptions{member, options.tls}));
    return connections.back().get();
}

// Goes on to the next member after a failure that had no effect; `harmless` requests (reads) after any.
Result<http::Response> Client::Impl::post(const std::string& path, const std::string& body, Duration timeout,
                                          bool harmless) {
    const auto start = Clock::now();
    const auto order = options.members->in_order();
    Error last{ErrorCode::unavailable, "no member of the store answers"};
    for (std::size_t attempt = 0; attempt < order.size(); ++attempt) {
        const auto begun = Clock::now();
        const Duration used{std::chrono::nanoseconds(begun - start).count()};
        if (attempt > 0 && used >= timeout) break;
        Duration left = timeout - used;
        const bool others = attempt + 1 < order.size();
        // A read is asked of the next one while there is time left for its answer: etcd 3.4 may keep one for
        // seconds that came to a member just as a leader was being elected.
        const auto rest = static_cast<std::int64_t>(order.size() - attempt);
        if (others && harmless) left = left / rest;
        auto* connection = connection_to(order[attempt]);
        if (connection == nullptr) return fail(ErrorCode::unavailable, "cancelled");
        // Nothing is sent while it connects: the next one may be asked whatever the request is.
        const Duration connect = others ? std::min(left, options.connect_timeout) : left;
        auto answer = connection->call({"POST", path, body}, left, connect);
        const bool gone = !answer && answer.error().code == ErrorCode::unavailable;
        const bool refused = answer && answer->status >= 500;
        if (answer && !refused) options.members->served(order[attempt], begun);
        if (!answer || refused) options.members->failed(order[attempt]);
        if (answer && !(refused && harmless && others)) return answer;
        if (!answer) last = answer.error();
        if (!answer && !gone && !harmless) break;
    }
    return tl::unexpected<Error>(last);
}

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Client::~Client() = default;

void Client::cancel() {
    const std::scoped_lock lock(impl_->mutex);
    impl_->cancelled = true;
    for (auto& connection : impl_->connections) connection->cancel();
}

TransactionResult Client::read(const std::vector<Step>& ranges, Duration timeout) {
    for (const auto& step : ranges) INVARIANT(step.kind == Step::Kind::range, "a read changes nothing");
    return transact({{}, ranges, {}}, timeout, true);
}

TransactionResult Client::commit(const Transaction& transaction, Duration timeout) {
    return transact(transaction, timeout, false);
}

TransactionResult Client::transact(const Transaction& transaction, Duration timeout, bool harmless) {
    TransactionResult out;
    const auto answer = impl_->post("/v3/kv/txn", codec::transaction_request(transaction), timeout, harmless);
    if (!answer) {
        out.error = answer.error();
        out.outcome = answer.error().code == ErrorCode::unavailable ? Outcome::not_done : Outcome::unknown;
        return out;
    }
    if (answer->status == 200) {
        auto result = codec::transaction_response(answer->body);
        if (result) return *result;
        out.error = result.error();
        return out;
    }
    const auto failure = codec::failure(answer->body);
    out.error = {ErrorCode::unavailable, "the store refused: " + failure.message};
    if (is_certain_refusal(failure.code)) {
        out.outcome = Outcome::not_done;
        out.error.code = ErrorCode::invalid_argument;
    }
    return out;
}

namespace {

Result<std::string> body_of(const Result<http::Response>& answer) {
    if (!answer) return tl::unexpected<Error>(answer.error());
    if (answer->status == 200) return answer->body;
    const auto failure = codec::failure(answer->body);
    constexpr int kNotFound = 5;
    constexpr int kFailedPrecondition = 9;
    ErrorCode code = ErrorCode::unavailable;
    if (failure.code == kNotFound) code = ErrorCode::not_found;
    if (failure.code == kFailedPrecondition) code = ErrorCode::failed_precondition;
    if (is_certain_refusal(failure.code)) code = ErrorCode::invalid_argument;
    return fail(code, "the store refused: " + failure.message);
}

}  // namespace

Result<RangeResult> Client::get(const std::string& key, Duration timeout) {
    const auto body =
        body_of(impl_->post("/v3/kv/range", codec::range_request(key, "", false), timeout, true));
    if (!body) return tl::unexpected<Error>(body.error());
    return codec::range_response(*body);
}

Result<RangeResult> Client::get_prefix(const std::string& prefix, Duration timeout) {
    const auto request = codec::range_request(prefix, prefix_end(prefix), false);
    const auto body = body_of(impl_->post("/v3/kv/range", request, timeout, true));
    if (!body) return tl::unexpected<Error>(body.error());
    return codec::range_response(*body);
}

Result<RangeResult> Client::get_prefix_serializable(const std::string& prefix, Duration timeout) {
    const auto request = codec::range_request(prefix, prefix_end(prefix), true);
    const auto body = body_of(impl_->post("/v3/kv/range", request, timeout, true));
    if (!body) return tl::unexpected<Error>(body.error());
    return codec::range_response(*body);
}

Result<std::int64_t> Client::lease_grant(std::int64_t ttl_s, Duration timeout) {
    const auto body =
        body_of(impl_->post("/v3/lease/grant", Json{{"TTL", std::to_string(ttl_s)}}.dump(), timeout, false));
    if (!body) return tl::unexpected<Error>(body.error());
    return codec::number_in(*body, "ID");
}

Result<std::int64_t> Client::lease_keepalive(std::int64_t lease, Duration timeout) {
    const auto body = body_of(
        impl_->post("/v3/lease/keepalive", Json{{"ID", std::to_string(lease)}}.dump(), timeout, true));
    if (!body) return tl::unexpected<Error>(body.error());
    return codec::number_in(*body, "TTL");
}

Status Client::lease_revoke(std::int64_t lease, Duration timeout) {
    const auto body =
        body_of(impl_->post("/v3/lease/revoke", Json{{"ID", std::to_string(lease)}}.dump(), timeout, false));
    if (!body) return tl::unexpected<Error>(body.error());
    return {};
}

Result<MemberStatus> Client::status(Duration timeout) {
    const auto body = body_of(impl_->post("/v3/maintenance/status", "{}", timeout, true));
    if (!body) return tl::unexpected<Error>(body.error());
    return codec::status_response(*body);
}

Status Client::compact(std::int64_t revision, Duration timeout) {
    const auto body = body_of(impl_->post(
        "/v3/kv/compaction", Json{{"revision", std::to_string(revision)}}.dump(), timeout, false));
    if (!body) return tl::unexpected<Error>(body.error());
    return {};
}

Result<std::vector<Member>> Client::members(Duration timeout) {
    const auto body = body_of(impl_->post("/v3/cluster/member/list", "{}", timeout, true));
    if (!body) return tl::unexpected<Error>(body.error());
    return codec::members_response(*body);
}

Result<std::vector<Member>> Client::add_learner(const std::string& peer_url, Duration timeout) {
    const auto body =
        body_of(impl_->post("/v3/cluster/member/add",
                            Json{{"peerURLs", {peer_url}}, {"isLearner", true}}.dump(), timeout, false));
    if (!body) return tl::unexpected<Error>(body.error());
    return codec::members_response(*body);
}

Status Client::promote(std::uint64_t member, Duration timeout) {
    const auto body = body_of(impl_->post("/v3/cluster/member/promote",
                                          Json{{"ID", std::to_string(member)}}.dump(), timeout, false));
    if (!body) return tl::unexpected<Error>(body.error());
    return {};
}

Status Client::remove_member(std::uint64_t member, Duration timeout) {
    const auto body = body_of(impl_->post("/v3/cluster/member/remove",
                                          Json{{"ID", std::to_string(member)}}.dump(), timeout, false));
    if (!body) return tl::unexpected<Error>(body.error());
    return {};
}

}  // namespace gemel::etcd
