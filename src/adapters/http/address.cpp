#include "adapters/http/address.hpp"

#include <charconv>

#include <fmt/format.h>

namespace gemel::http {

std::string Address::authority() const {
    if (!unix_path.empty()) return "localhost";
    const bool six = host.find(':') != std::string::npos;
    return six ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

std::string Address::to_string() const {
    if (!unix_path.empty()) return "unix:" + unix_path;
    return (tls ? "https://" : "http://") + authority();
}

Result<Address> Address::parse(std::string_view text) {
    const auto bad = [&] {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("'{}' is not an address: https://IP:PORT, IP:PORT or unix:PATH is expected", text));
    };
    std::string_view rest = text;
    if (rest.starts_with("unix:")) return unix_socket(std::string(rest.substr(5)));
    if (rest.starts_with("/")) return unix_socket(std::string(rest));
    Address address;
    if (rest.starts_with("https://")) {
        address.tls = true;
        rest.remove_prefix(8);
    } else if (rest.starts_with("http://")) {
        rest.remove_prefix(7);
    }
    while (rest.ends_with('/')) rest.remove_suffix(1);
    const auto colon = rest.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return bad();
    std::string_view host = rest.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    const std::string_view port = rest.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
    if (error != std::errc{} || end != port.data() + port.size() || address.port == 0) return bad();
    address.host = std::string(host);
    return address;
}

}  // namespace gemel::http
