// Request and Response as plain values: what a handler sees and a client sends. Bodies are whole (bounded by
// the server's limit); only responses may be streamed.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace gemel::http {

struct Request {
    std::string method = "GET";
    std::string target = "/";  // client: path and query as sent; server: the decoded path
    std::string body;
    std::string content_type = "application/json";
    // Filled in by the server only:
    std::map<std::string, std::string> query{};       // decoded; the last of equal names wins
    std::map<std::string, std::string> parameters{};  // {name} parts of the matching route
    std::string peer_name{};  // common name of the verified certificate; empty on a unix socket
};

struct Response {
    unsigned status = 200;
    std::string body;
    std::string content_type = "application/json";
};

// The one form of an error body: {"code":"not_found","message":"..."}; the status follows the code.
Response error_response(const Error& error);
unsigned status_of(ErrorCode code) noexcept;
std::string percent_decoded(std::string_view text);
std::string percent_encoded(std::string_view text);  // everything but letters, digits and -_.~

}  // namespace gemel::http
