#include "adapters/http/router.hpp"

#include <fmt/format.h>

namespace gemel::http {
namespace {

std::vector<std::string> split(std::string_view path) {
    std::vector<std::string> parts;
    while (!path.empty()) {
        if (path.front() == '/') {
            path.remove_prefix(1);
            continue;
        }
        const auto end = path.find('/');
        parts.emplace_back(path.substr(0, end));
        path.remove_prefix(end == std::string_view::npos ? path.size() : end);
    }
    return parts;
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

std::string json_string(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        } else {
            out += c;
        }
    }
    return out + "\"";
}

bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path,
             std::map<std::string, std::string>& parameters) {
    if (pattern.size() != path.size()) return false;
    parameters.clear();
    for (std::size_t i = 0; i < path.size(); ++i) {
        const std::string& part = pattern[i];
        if (part.size() > 2 && part.front() == '{' && part.back() == '}') {
            parameters[part.substr(1, part.size() - 2)] = percent_decoded(path[i]);
        } else if (part != path[i]) {
            return false;
        }
    }
    return true;
}

}  // namespace

unsigned status_of(ErrorCode code) noexcept {
    switch (code) {
        case ErrorCode::invalid_argument: return 400;
        case ErrorCode::permission_denied: return 403;
        case ErrorCode::not_found: return 404;
        case ErrorCode::already_exists:
        case ErrorCode::failed_precondition: return 409;
        case ErrorCode::unsupported: return 422;
        case ErrorCode::corrupt:
        case ErrorCode::io_error:
        case ErrorCode::internal: return 500;
        case ErrorCode::unavailable: return 503;
        case ErrorCode::timed_out: return 504;
        case ErrorCode::out_of_space: return 507;
    }
    return 500;
}

Response error_response(const Error& error) {
    return {status_of(error.code),
            fmt::format("{{\"code\":{},\"message\":{}}}\n", json_string(to_string(error.code)),
                        json_string(error.message)),
            "application/json"};
}

std::string percent_decoded(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '%' && i + 2 < text.size()) {
            const int high = hex_digit(text[i + 1]);
            const int low = hex_digit(text[i + 2]);
            if (high >= 0 && low >= 0) {
                out += static_cast<char>(high * 16 + low);
                i += 2;
                continue;
            }
        }
        out += text[i];
    }
    return out;
}

std::string percent_encoded(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                           c == '-' || c == '_' || c == '.' || c == '~';
        if (plain) {
            out += c;
        } else {
            out += fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        }
    }
    return out;
}

void Router::add(std::string method, std::string_view pattern, Handler handler) {
    routes_.push_back({std::move(method), split(pattern), std::move(handler)});
}

Router::Match Router::find(std::string_view method, std::string_view path) const {
    const auto parts = split(path);
    Match match;
    std::string allowed;
    for (const auto& route : routes_) {
        if (!matches(route.parts, parts, match.parameters)) continue;
        if (route.method == method) {
            match.handler = &route.handler;
            return match;
        }
        allowed += (allowed.empty() ? "" : ", ") + route.method;
    }
    match.parameters.clear();
    if (allowed.empty()) {
        match.error = {ErrorCode::not_found, fmt::format("there is nothing at '{}'", path)};
    } else {
        match.error = {
            ErrorCode::invalid_argument,
            fmt::format("'{}' does not know the method {}: {} is expected", path, method, allowed)};
    }
    return match;
}

}  // namespace gemel::http
