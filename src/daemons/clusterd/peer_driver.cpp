#include "daemons/clusterd/peer_driver.hpp"

#include "adapters/log/log.hpp"

namespace gemel::clusterd {
namespace {

// On a link, clusterd listens at the link's address with the control port; blockd has a port of its own
// there.
heartbeat::ChannelOptions channel_options(const Settings& settings) {
    heartbeat::ChannelOptions out;
    out.tls = settings.tls;
    out.message_limit = cluster::kMaxPeerMessageBytes;
    const auto control = split_address(settings.file.control_address);
    if (!control) return out;
    out.listen.emplace_back(control->host, control->port);
    std::map<std::string, std::string> own_links;
    for (const auto& link : settings.file.links) {
        const auto address = split_address(link.address);
        if (!address) continue;
        out.listen.emplace_back(address->host, control->port);
        own_links[link.name] = address->host;
    }
    for (const auto& peer : settings.file.peers) {
        const auto remote = split_address(peer.control);
        if (!remote) continue;
        out.paths.push_back(
            {peer.name, "control", http::Address::tls_at(remote->host, remote->port), control->host});
        for (const auto& [name, text] : peer.links) {
            const auto address = split_address(text);
            const auto mine = own_links.find(name);
            if (!address || mine == own_links.end()) continue;
            out.paths.push_back(
                {peer.name, name, http::Address::tls_at(address->host, remote->port), mine->second});
        }
    }
    return out;
}

heartbeat::OnMessage on_message(Sink sink) {
    return
        [sink = std::move(sink)](const std::string& from, const std::string& path, const std::string& text) {
            auto message = cluster::decode_peer_message(text);
            if (!message) {
                log::warning("a message of " + from + " cannot be read: " + message.error().message);
                return;
            }
            if (message->from != from) {
                log::warning(from + " speaks in the name of " + message->from + ": not heard");
                return;
            }
            sink(cluster::PeerMessageIn{path, std::move(*message)});
        };
}

}  // namespace

PeerDriver::PeerDriver(const Settings& settings, Sink sink)
    : channel_(channel_options(settings), on_message(std::move(sink))) {}

void PeerDriver::handle(const cluster::PeerSend& order) {
    channel_.send(order.to, order.path, cluster::encode_peer_message(order.message));
}

}  // namespace gemel::clusterd
