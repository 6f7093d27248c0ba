#include <map>
#include <set>

#include <fmt/format.h>

#include "adapters/fence_agents/agent.hpp"
#include "adapters/log/log.hpp"
#include "daemons/clusterd/guest_driver.hpp"
#include "daemons/clusterd/loop.hpp"

namespace gemel::clusterd {
namespace {

constexpr std::size_t kMaxDevices = 64;

cluster::FenceDone to_done(cluster::Tag tag, const fence::AgentResult& result) {
    cluster::FenceDone out{tag, cluster::FenceOutcome::failed, result.detail};
    switch (result.outcome) {
        case fence::Outcome::off: out.outcome = cluster::FenceOutcome::verified_off; break;
        case fence::Outcome::on: out.outcome = cluster::FenceOutcome::on; break;
        case fence::Outcome::failed: out.outcome = cluster::FenceOutcome::failed; break;
        case fence::Outcome::timed_out: out.outcome = cluster::FenceOutcome::timed_out; break;
    }
    return out;
}

fence::Action to_action(cluster::FenceAction action) {
    switch (action) {
        case cluster::FenceAction::off: return fence::Action::off;
        case cluster::FenceAction::on: return fence::Action::on;
        case cluster::FenceAction::status: return fence::Action::status;
    }
    return fence::Action::status;
}

const char* word(cluster::FenceAction action) {
    switch (action) {
        case cluster::FenceAction::off: return "off";
        case cluster::FenceAction::on: return "on";
        case cluster::FenceAction::status: return "status";
    }
    return "status";
}

}  // namespace

// One worker for each device: runs on one device follow each other, devices do not wait for each other.
struct FenceDriver::Impl {
    explicit Impl(Sink to) : sink(std::move(to)) {}
    Sink sink;
    std::map<std::string, std::unique_ptr<Worker>> devices;  // loop's thread
};

FenceDriver::FenceDriver(Sink sink) : impl_(std::make_unique<Impl>(std::move(sink))) {}
FenceDriver::~FenceDriver() = default;

void FenceDriver::handle(const cluster::Fence& order) {
    auto& worker = impl_->devices[order.device.name];
    if (!worker && impl_->devices.size() <= kMaxDevices) worker = std::make_unique<Worker>(8);
    const bool taken = worker && worker->post([sink = impl_->sink, order] {
        if (order.action != cluster::FenceAction::status)
            log::info(fmt::format("fencing: {} {} by {}", order.device.node, word(order.action),
                                  order.device.name));
        const fence::Device device{order.device.agent, order.device.options, order.device.secrets,
                                   milliseconds(order.device.timeout_ms)};
        const auto result = fence::run(device, to_action(order.action));
        if (order.action != cluster::FenceAction::status) log::info("fencing: " + result.detail);
        sink(to_done(order.tag, result));
    });
    if (!taken)
        impl_->sink(cluster::FenceDone{order.tag, cluster::FenceOutcome::failed, "the fence device is busy"});
}

}  // namespace gemel::clusterd
