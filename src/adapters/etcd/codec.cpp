#include "adapters/etcd/codec.hpp"

#include <charconv>

#include <nlohmann/json.hpp>

#include "adapters/etcd/base64.hpp"

namespace gemel::etcd {

Step Step::remove_prefix(std::string prefix) {
    std::string end = prefix_end(prefix);
    return {Kind::remove, std::move(prefix), "", std::move(end)};
}

std::string prefix_end(std::string prefix) {
    while (!prefix.empty()) {
        if (static_cast<unsigned char>(prefix.back()) < 0xFF) {
            prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
            return prefix;
        }
        prefix.pop_back();
    }
    return std::string(1, '\0');  // etcd's form of "to the end of all keys"
}

}  // namespace gemel::etcd

namespace gemel::etcd::codec {
namespace {

using Json = nlohmann::json;

// Thrown inside this file only: an answer that does not have etcd's form.
struct Malformed {
    std::string what;
};

template <typename Number>
Number number(const Json& object, const char* field) {
    const auto found = object.find(field);
    if (found == object.end()) return 0;
    if (found->is_number_integer()) return found->get<Number>();
    if (!found->is_string()) throw Malformed{field};
    const auto& text = found->get_ref<const std::string&>();
    Number value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) throw Malformed{field};
    return value;
}

std::string text(const Json& object, const char* field) {
    const auto found = object.find(field);
    if (found == object.end()) return "";
    if (!found->is_string()) throw Malformed{field};
    return found->get<std::string>();
}

std::string bytes(const Json& object, const char* field) {
    auto decoded = base64_decoded(text(object, field));
    if (!decoded) throw Malformed{field};
    return *decoded;
}

bool flag(const Json& object, const char* field) {
    const auto found = object.find(field);
    return found != object.end() && found->is_boolean() && found->get<bool>();
}

const Json& list(const Json& object, const char* field) {
    static const Json kEmpty = Json::array();
    const auto found = object.find(field);
    if (found == object.end()) return kEmpty;
    if (!found->is_array()) throw Malformed{field};
    return *found;
}

std::vector<std::string> texts(const Json& object, const char* field) {
    std::vector<std::string> out;
    for (const auto& entry : list(object, field)) {
        if (!entry.is_string()) throw Malformed{field};
        out.push_back(entry.get<std::string>());
    }
    return out;
}

Header header(const Json& object) {
    const auto found = object.find("header");
    if (found == object.end() || !found->is_object()) throw Malformed{"header"};
    return {number<std::uint64_t>(*found, "cluster_id"), number<std::uint64_t>(*found, "member_id"),
            number<std::int64_t>(*found, "revision"), number<std::uint64_t>(*found, "raft_term")};
}

KeyValue pair(const Json& object) {
    return {bytes(object, "key"),
            bytes(object, "value"),
            number<std::int64_t>(object, "create_revision"),
            number<std::int64_t>(object, "mod_revision"),
            number<std::int64_t>(object, "version"),
            number<std::int64_t>(object, "lease")};
}

std::vector<KeyValue> pairs(const Json& object) {
    std::vector<KeyValue> out;
    for (const auto& entry : list(object, "kvs")) out.push_back(pair(entry));
    return out;
}

template <typename Value, typename Read>
Result<Value> parsed(std::string_view body, Read read) {
    const Json json = Json::parse(body, nullptr, false);
    if (!json.is_object()) return fail(ErrorCode::corrupt, "the store did not answer with a JSON object");
    try {
        return read(json);
    } catch (const Malformed& problem) {
        return fail(ErrorCode::corrupt, "the store's answer has an unexpected field '" + problem.what + "'");
    } catch (const Json::exception&) {
        return fail(ErrorCode::corrupt, "the store's answer does not have etcd's form");
    }
}

Json compare_json(const Compare& compare) {
    Json out{{"key", base64_encoded(compare.key)}};
    switch (compare.relation) {
        case Compare::Relation::equal: out["result"] = "EQUAL"; break;
        case Compare::Relation::not_equal: out["result"] = "NOT_EQUAL"; break;
        case Compare::Relation::greater: out["result"] = "GREATER"; break;
        case Compare::Relation::less: out["result"] = "LESS"; break;
    }
    const std::string number = std::to_string(compare.number);
    switch (compare.target) {
        case Compare::Target::mod_revision:
            out["target"] = "MOD";
            out["mod_revision"] = number;
            break;
        case Compare::Target::create_revision:
            out["target"] = "CREATE";
            out["create_revision"] = number;
            break;
        case Compare::Target::version:
            out["target"] = "VERSION";
            out["version"] = number;
            break;
        case Compare::Target::value:
            out["target"] = "VALUE";
            out["value"] = base64_encoded(compare.value);
            break;
    }
    return out;
}

Json steps_json(const std::vector<Step>& steps) {
    Json out = Json::array();
    for (const auto& step : steps) {
        Json body{{"key", base64_encoded(step.key)}};
        if (!step.range_end.empty()) body["range_end"] = base64_encoded(step.range_end);
        switch (step.kind) {
            case Step::Kind::put:
                body["value"] = base64_encoded(step.value);
                if (step.lease != 0) body["lease"] = std::to_string(step.lease);
                out.push_back({{"requestPut", std::move(body)}});
                break;
            case Step::Kind::remove: out.push_back({{"requestDeleteRange", std::move(body)}}); break;
            case Step::Kind::range: out.push_back({{"requestRange", std::move(body)}}); break;
        }
    }
    return out;
}

}  // namespace

std::string range_request(const std::string& key, const std::string& range_end, bool serializable) {
    Json out{{"key", base64_encoded(key)}};
    if (!range_end.empty()) out["range_end"] = base64_encoded(range_end);
    if (serializable) out["serializable"] = true;
    return out.dump();
}

std::string transaction_request(const Transaction& transaction) {
    Json compares = Json::array();
    for (const auto& compare : transaction.compares) compares.push_back(compare_json(compare));
    return Json{{"compare", std::move(compares)},
                {"success", steps_json(transaction.then)},
                {"failure", steps_json(transaction.otherwise)}}
        .dump();
}

std::string watch_request(const std::string& prefix, std::int64_t start_revision) {
    return Json{{"create_request",
                 {{"key", base64_encoded(prefix)},
                  {"range_end", base64_encoded(prefix_end(prefix))},
                  {"start_revision", std::to_string(start_revision)}}}}
        .dump();
}

Result<RangeResult> range_response(std::string_view body) {
    return parsed<RangeResult>(body, [](const Json& json) { return RangeResult{header(json), pairs(json)}; });
}

Result<TransactionResult> transaction_response(std::string_view body) {
    return parsed<TransactionResult>(body, [](const Json& json) {
        TransactionResult out;
        out.outcome = flag(json, "succeeded") ? Outcome::committed : Outcome::compare_failed;
        out.header = header(json);
        for (const auto& response : list(json, "responses")) {
            if (const auto range = response.find("response_range"); range != response.end())
                out.ranges.push_back(pairs(*range));
        }
        return out;
    });
}

Result<std::vector<Member>> members_response(std::string_view body) {
    return parsed<std::vector<Member>>(body, [](const Json& json) {
        std::vector<Member> out;
        for (const auto& entry : list(json, "members")) {
            out.push_back({number<std::uint64_t>(entry, "ID"), text(entry, "name"), texts(entry, "peerURLs"),
                           texts(entry, "clientURLs"), flag(entry, "isLearner")});
        }
        return out;
    });
}

Result<MemberStatus> status_response(std::string_view body) {
    return parsed<MemberStatus>(body, [](const Json& json) {
        MemberStatus out;
        out.header = header(json);
        out.leader = number<std::uint64_t>(json, "leader");
        out.raft_index = number<std::uint64_t>(json, "raftIndex");
        out.raft_applied_index = number<std::uint64_t>(json, "raftAppliedIndex");
        out.database_bytes = number<std::int64_t>(json, "dbSize");
        out.learner = flag(json, "isLearner");
        out.version = text(json, "version");
        out.errors = texts(json, "errors");
        return out;
    });
}

Result<std::int64_t> number_in(std::string_view body, std::string_view field) {
    return parsed<std::int64_t>(body, [&](const Json& json) {
        const auto inner = json.find("result");
        return number<std::int64_t>(inner != json.end() ? *inner : json, std::string(field).c_str());
    });
}

Result<WatchMessage> watch_message(std::string_view line) {
    return parsed<WatchMessage>(line, [](const Json& json) {
        const auto found = json.find("result");
        if (found == json.end()) throw Malformed{"result"};
        const Json& result = *found;
        WatchMessage out;
        out.header = header(result);
        out.created = flag(result, "created");
        out.cancelled = flag(result, "canceled");
        out.compact_revision = number<std::int64_t>(result, "compact_revision");
        out.reason = text(result, "cancel_reason");
        for (const auto& entry : list(result, "events")) {
            const auto kv = entry.find("kv");
            if (kv == entry.end()) throw Malformed{"kv"};
            out.events.push_back({text(entry, "type") == "DELETE", pair(*kv)});
        }
        return out;
    });
}

Failure failure(std::string_view body) {
    const Json json = Json::parse(body, nullptr, false);
    if (!json.is_object()) return {std::string(body.substr(0, 200)), -1};
    Failure out;
    // A stream's failure is wrapped: {"error":{"grpc_code":..,"message":..}}
    const Json& inner = json.contains("error") && json["error"].is_object() ? json["error"] : json;
    for (const char* field : {"message", "error"})
        if (inner.contains(field) && inner[field].is_string()) out.message = inner[field].get<std::string>();
    for (const char* field : {"code", "grpc_code"})
        if (inner.contains(field) && inner[field].is_number_integer()) out.code = inner[field].get<int>();
    return out;
}

}  // namespace gemel::etcd::codec
