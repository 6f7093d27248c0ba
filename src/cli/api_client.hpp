// ApiClient: the command line's only way to the cluster, the API of api/openapi.yaml. One call at a time,
// blocking. Errors: the server's own {code, message}; unavailable where nobody answers or the answer breaks
// off (the outcome of a change is then unknown and must be read with its operation id); internal where the
// answer is not JSON. Not here: what the requests mean (commands/), waiting for operations (operations.hpp).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace gemel::cli {

using Json = nlohmann::ordered_json;

struct Request {
    std::string method;        // GET, POST, PUT, DELETE
    std::string target;        // path and query, already encoded: /v1/volumes/web1?confirm_name=web1
    Json body;                 // null: no body
    std::string operation_id;  // empty: no operation_id in the query
};

class ApiClient {
  public:
    ApiClient() = default;
    ApiClient(const ApiClient&) = delete;
    ApiClient& operator=(const ApiClient&) = delete;
    virtual ~ApiClient() = default;

    virtual Result<Json> call(const Request& request) = 0;
    // Calls on_line for every line of a newline-delimited stream, empty ones too (they show that it lives),
    // until the stream ends or on_line answers false.
    virtual Status stream(const std::string& target,
                          const std::function<bool(const std::string&)>& on_line) = 0;

    Result<Json> get(std::string target) { return call({"GET", std::move(target), nullptr, {}}); }
};

// The client of a running gemel-clusterd. Connects at every call.
std::unique_ptr<ApiClient> make_unix_api_client(std::string socket_path);

// a text as one part of a path or query
std::string url_encode(std::string_view text);

// The Error of an answer: status is HTTP's, body what came with it. Never claims more than the answer says.
Error error_of_answer(int status, const std::string& body, const std::string& target);

}  // namespace gemel::cli
