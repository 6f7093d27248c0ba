// The JSON forms of etcd 3.4's gateway: numbers travel as strings, bytes as base64, absent means zero.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "adapters/etcd/messages.hpp"

namespace gemel::etcd::codec {

std::string range_request(const std::string& key, const std::string& range_end, bool serializable);
std::string transaction_request(const Transaction& transaction);
std::string watch_request(const std::string& prefix, std::int64_t start_revision);

Result<RangeResult> range_response(std::string_view body);
Result<TransactionResult> transaction_response(std::string_view body);
Result<std::vector<Member>> members_response(std::string_view body);
Result<MemberStatus> status_response(std::string_view body);
// {"ID":"..."} and {"TTL":"..."} of the lease calls; a keepalive's is wrapped in {"result":...}
Result<std::int64_t> number_in(std::string_view body, std::string_view field);

struct WatchMessage {
    Header header;
    bool created = false;
    bool cancelled = false;
    std::int64_t compact_revision = 0;  // non-zero: what was asked for is gone
    std::string reason;
    std::vector<WatchEvent> events;
};
Result<WatchMessage> watch_message(std::string_view line);

// {"error":"...","code":N,...}: the text and gRPC's code, -1 where there is none
struct Failure {
    std::string message;
    int code = -1;
};
Failure failure(std::string_view body);

}  // namespace gemel::etcd::codec
