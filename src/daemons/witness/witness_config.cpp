#include "daemons/witness/witness_config.hpp"

#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

#include <fmt/format.h>

namespace gemel::witness {
namespace {

struct Line {
    std::string section;  // of an indented one
    std::string key;
    std::string value;
};

std::string trimmed(const std::string& text) {
    const auto begin = text.find_first_not_of(" \t\r");
    if (begin == std::string::npos) return "";
    return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::vector<Line> lines_of(const std::string& text) {
    std::vector<Line> out;
    std::istringstream stream(text);
    std::string raw;
    std::string section;
    while (std::getline(stream, raw)) {
        const auto colon = raw.find(':');
        if (trimmed(raw).empty() || trimmed(raw)[0] == '#' || colon == std::string::npos) continue;
        const bool inside = raw[0] == ' ' || raw[0] == '\t';
        const Line line{inside ? section : "", trimmed(raw.substr(0, colon)), trimmed(raw.substr(colon + 1))};
        if (!inside) section = line.key;
        out.push_back(line);
    }
    return out;
}

}  // namespace

Result<WitnessConfig> parse_witness_config(const std::string& text) {
    std::map<std::string, std::string> values;
    for (const auto& line : lines_of(text))
        values[line.section.empty() ? line.key : line.section + "/" + line.key] = line.value;
    for (const char* needed :
         {"name", "data-dir", "initial-advertise-peer-urls", "advertise-client-urls", "initial-cluster",
          "initial-cluster-state", "client-transport-security/cert-file",
          "client-transport-security/key-file", "client-transport-security/trusted-ca-file"}) {
        if (values[needed].empty())
            return fail(ErrorCode::invalid_argument, fmt::format("'{}: ...' is expected in it", needed));
    }
    WitnessConfig out;
    out.text = text;
    out.name = values["name"];
    out.data_directory = values["data-dir"];
    out.peer_url = values["initial-advertise-peer-urls"];
    out.client_url = values["advertise-client-urls"];
    out.tls = {values["client-transport-security/trusted-ca-file"],
               values["client-transport-security/cert-file"], values["client-transport-security/key-file"]};
    std::istringstream members(values["initial-cluster"]);
    std::string one;
    while (std::getline(members, one, ',')) {
        const auto equals = one.find('=');
        if (equals == std::string::npos)
            return fail(ErrorCode::invalid_argument, "initial-cluster: NAME=URL,... is expected");
        if (one.substr(0, equals) != out.name) out.peer_urls.push_back(one.substr(equals + 1));
    }
    if (out.others().empty())
        return fail(ErrorCode::invalid_argument,
                    "initial-cluster: another member, by its address, is expected");
    return out;
}

Result<WitnessConfig> read_witness_config(const std::filesystem::path& path) {
    std::ifstream file(path);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (!file) return fail(ErrorCode::not_found, path.string() + " cannot be read");
    auto config = parse_witness_config(text);
    if (!config) return fail(config.error().code, path.string() + ": " + config.error().message);
    return config;
}

std::vector<http::Address> WitnessConfig::others() const {
    std::vector<http::Address> out;
    const auto own = http::Address::parse(client_url);
    for (const auto& url : peer_urls) {
        auto address = http::Address::parse(url);
        if (!address || !own) continue;
        address->port = own->port;
        out.push_back(*address);
    }
    return out;
}

std::string WitnessConfig::joining(const std::vector<etcd::Member>& members) const {
    std::string cluster;
    for (const auto& member : members) {
        if (member.peer_urls.empty()) continue;
        const bool us = member.peer_urls.front() == peer_url;
        cluster += fmt::format("{}{}={}", cluster.empty() ? "" : ",", us ? name : member.name,
                               member.peer_urls.front());
    }
    std::string out;
    std::istringstream stream(text);
    std::string line;
    while (std::getline(stream, line)) {
        if (line.starts_with("initial-cluster:")) line = "initial-cluster: " + cluster;
        if (line.starts_with("initial-cluster-state:")) line = "initial-cluster-state: existing";
        out += line + "\n";
    }
    return out;
}

}  // namespace gemel::witness
