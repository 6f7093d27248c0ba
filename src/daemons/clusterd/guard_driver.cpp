#include <map>
#include <mutex>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "adapters/ipc/control_socket.hpp"
#include "adapters/log/log.hpp"
#include "daemons/clusterd/guest_driver.hpp"

namespace gemel::clusterd {

using nlohmann::json;

// Everything registered is kept and told again whenever the guard comes back.
struct GuardDriver::Impl {
    explicit Impl(const Settings& given) : settings(given) {}

    void send(const json& body) {
        client->request(body, seconds(5), [name = body.value("do", "")](const Result<json>& answer) {
            if (!answer) log::warning(fmt::format("guard: {}: {}", name, answer.error().message));
        });
    }
    void told_again() {
        const std::scoped_lock lock(mutex);
        for (const auto& [guest, body] : registered) send(body);
        for (const auto& [key, body] : lost) send(body);
    }

    const Settings& settings;
    std::mutex mutex;
    std::map<GuestId, json> registered;
    std::map<std::pair<VolumeId, std::uint64_t>, json> lost;
    std::unique_ptr<ipc::ControlClient> client;
};

GuardDriver::GuardDriver(const Settings& settings) : impl_(std::make_unique<Impl>(settings)) {}
GuardDriver::~GuardDriver() {
    impl_->client.reset();
}

void GuardDriver::start() {
    ipc::ClientHandlers handlers;
    handlers.connected = [this] { impl_->told_again(); };
    handlers.disconnected = [] {
        log::warning("the guard is gone: guests are not guarded until it is back");
    };
    handlers.event = [](const json&) {};
    impl_->client = std::make_unique<ipc::ControlClient>(impl_->settings.run("guard.sock"), "clusterd",
                                                         std::move(handlers));
}

void GuardDriver::handle(const cluster::GuardRegister& order) {
    json volumes = json::array();
    for (const auto& volume : order.volumes)
        volumes.push_back(
            {{"volume", volume.id.to_string()}, {"name", volume.name}, {"epoch", volume.epoch}});
    const json body{{"do", "register"},
                    {"guest", order.uuid.to_string()},
                    {"name", order.name},
                    {"pid", 0},
                    {"start_time", 0},
                    {"volumes", volumes},
                    {"regrant_possible", order.regrant_possible},
                    {"incoming", order.incoming}};
    const std::scoped_lock lock(impl_->mutex);
    impl_->registered[order.uuid] = body;
    impl_->send(body);
}

void GuardDriver::handle(const cluster::GuardRevoked& order) {
    constexpr std::size_t kMaxKept = 1024;
    const json body{{"do", "ownership_lost"}, {"volume", order.volume.to_string()}, {"epoch", order.epoch}};
    const std::scoped_lock lock(impl_->mutex);
    if (impl_->lost.size() >= kMaxKept) impl_->lost.erase(impl_->lost.begin());
    impl_->lost[{order.volume, order.epoch}] = body;
    impl_->send(body);
}

// Not kept: what a guard that comes back needs is the next one. Without an answer nothing is lost but time.
void GuardDriver::renewed(const cluster::BlockdRenew& order) {
    const auto& owner = order.renewal.committed.record.owner;
    if (!order.guard_until || !owner) return;
    impl_->client->request({{"do", "lease"},
                            {"volume", order.volume.to_string()},
                            {"epoch", owner->epoch},
                            {"until_ns", order.guard_until->nanoseconds_since_boot}},
                           seconds(5), [](const Result<json>&) {});
}

void GuardDriver::handle(const cluster::GuardForget& order) {
    const std::scoped_lock lock(impl_->mutex);
    impl_->registered.erase(order.uuid);
    impl_->send({{"do", "unregister"}, {"guest", order.uuid.to_string()}});
}

bool GuardDriver::connected() const {
    return impl_->client && impl_->client->connected();
}

}  // namespace gemel::clusterd
