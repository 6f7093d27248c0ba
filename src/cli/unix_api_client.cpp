// ApiClient over the unix socket of gemel-clusterd, on the HTTP adapter.
#include <cerrno>
#include <cstring>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "adapters/http/client.hpp"
#include "base/instant.hpp"
#include "cli/api_client.hpp"
#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

// An answer to a read comes within a second by contract; a change answers once it is accepted.
constexpr Duration kCallTimeout = seconds(20);
constexpr Duration kConnectTimeout = seconds(5);
constexpr Duration kStreamIdle = seconds(45);  // the server writes a line at least every 15 s

ErrorCode code_of(const std::string& word, int status) {
    static constexpr ErrorCode kAll[] = {
        ErrorCode::invalid_argument,    ErrorCode::not_found,   ErrorCode::already_exists,
        ErrorCode::failed_precondition, ErrorCode::unavailable, ErrorCode::timed_out,
        ErrorCode::permission_denied,   ErrorCode::corrupt,     ErrorCode::unsupported,
        ErrorCode::out_of_space,        ErrorCode::io_error,    ErrorCode::internal};
    for (const ErrorCode code : kAll) {
        if (to_string(code) == word) return code;
    }
    return status >= 400 && status < 500 ? ErrorCode::invalid_argument : ErrorCode::internal;
}

// What to do about a socket on which nobody answers.
Error unreachable(const std::string& path, const Error& cause) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) {
        const bool hidden = errno == EACCES;
        return {ErrorCode::unavailable,
                hidden ? fmt::format("no permission to look at {}: run gemel as root", path)
                       : fmt::format("gemel-clusterd is not running here ({} does not exist): start it with "
                                     "'systemctl start gemel-clusterd', or give another --socket",
                                     path)};
    }
    if (!S_ISSOCK(info.st_mode)) {
        return {ErrorCode::unavailable,
                fmt::format("{} is not a socket: give gemel-clusterd's socket", path)};
    }
    if (access(path.c_str(), W_OK) != 0) {
        return {ErrorCode::unavailable, fmt::format("no permission to use {}: run gemel as root", path)};
    }
    return {
        ErrorCode::unavailable,
        fmt::format("gemel-clusterd does not answer on {} ({}): look with 'systemctl status gemel-clusterd'",
                    path, printable(cause.message))};
}

class UnixApiClient : public ApiClient {
  public:
    explicit UnixApiClient(std::string path)
        : path_(std::move(path)), http_({http::Address::unix_socket(path_), {}, {}, {}}) {}

    Result<Json> call(const Request& request) override {
        http::Request message;
        message.method = request.method;
        message.target = request.target;
        if (!request.operation_id.empty()) {
            message.target += request.target.find('?') == std::string::npos ? '?' : '&';
            message.target += "operation_id=" + request.operation_id;
        }
        if (!request.body.is_null())
            message.body = request.body.dump(-1, ' ', false, Json::error_handler_t::replace);
        auto answer = http_.call(message, kCallTimeout);
        if (!answer) {
            if (answer.error().code == ErrorCode::unavailable) {
                return tl::unexpected<Error>(unreachable(path_, answer.error()));
            }
            return fail(ErrorCode::unavailable,
                        fmt::format("gemel-clusterd broke off its answer ({}): look with 'systemctl status "
                                    "gemel-clusterd'",
                                    printable(answer.error().message)));
        }
        if (answer->status < 200 || answer->status > 299) {
            return tl::unexpected<Error>(
                error_of_answer(static_cast<int>(answer->status), answer->body, request.target));
        }
        Json body = Json::parse(answer->body, nullptr, false);
        if (body.is_discarded()) {
            return fail(
                ErrorCode::internal,
                fmt::format(
                    "gemel-clusterd's answer to {} is not JSON: install the same version of gemel and "
                    "gemel-clusterd",
                    request.target));
        }
        return body;
    }

    Status stream(const std::string& target,
                  const std::function<bool(const std::string&)>& on_line) override {
        http::Request message;
        message.target = target;
        auto done = http_.stream(message, kConnectTimeout, kStreamIdle,
                                 [&](std::string_view line) { return on_line(std::string(line)); });
        if (!done && done.error().code == ErrorCode::unavailable) {
            return tl::unexpected<Error>(unreachable(path_, done.error()));
        }
        return done;
    }

  private:
    std::string path_;
    http::Client http_;
};

}  // namespace

std::unique_ptr<ApiClient> make_unix_api_client(std::string socket_path) {
    return std::make_unique<UnixApiClient>(std::move(socket_path));
}

std::string url_encode(std::string_view text) {
    return http::percent_encoded(text);
}

Error error_of_answer(int status, const std::string& body, const std::string& target) {
    const Json answer = Json::parse(body, nullptr, false);
    const std::string code = text_of(answer, "code");
    const std::string message = text_of(answer, "message");
    if (message.empty()) {
        return {code_of(code, status),
                fmt::format(
                    "gemel-clusterd refused {} with status {} and gave no reason: look with 'journalctl -u "
                    "gemel-clusterd'",
                    target, status)};
    }
    return {code_of(code, status), message};
}

}  // namespace gemel::cli
