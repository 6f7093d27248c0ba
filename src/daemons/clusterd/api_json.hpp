// Views of the machine as the JSON of api/openapi.yaml. Pure; every absent value is null, never a guess.
#pragma once

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "core/cluster/view.hpp"
#include "daemons/clusterd/settings.hpp"

namespace gemel::clusterd::api {

using Json = nlohmann::json;

// Wall-clock milliseconds as RFC 3339, UTC: for human eyes only.
std::string time_text(std::int64_t wall_ms);

class Renderer {
  public:
    // round_trip_us: of a peer's path, -1 unknown; started_ms: when an operation was first seen here
    Renderer(const Settings& settings,
             std::function<std::int64_t(const std::string&, const std::string&)> round_trip_us,
             std::function<std::int64_t(const std::string&)> started_ms)
        : settings_(settings), round_trip_us_(std::move(round_trip_us)), started_ms_(std::move(started_ms)) {}

    Json status(const cluster::StatusView& view, std::int64_t now_ms) const;
    Json node(const cluster::NodeView& view) const;
    Json volume(const cluster::VolumeView& view) const;
    Json guest(const cluster::GuestView& view) const;
    Json fence_device(const cluster::FenceDeviceView& view) const;
    Json event(const cluster::EventView& view) const;
    Json explanation(const cluster::ExplainView& view) const;
    Json plan(const cluster::PlanView& view) const;
    // `status` and `devices` give the object an operation's result names
    Json operation(const OperationRecord& record, const cluster::StatusView& status,
                   const std::vector<cluster::FenceDeviceView>& devices) const;

  private:
    Json result_of(const OperationRecord& record, const cluster::StatusView& status,
                   const std::vector<cluster::FenceDeviceView>& devices) const;
    Json progress_of(const OperationRecord& record, const cluster::StatusView& status) const;
    Json exported(const std::string& volume, const cluster::ExportView& view) const;
    const Settings& settings_;
    std::function<std::int64_t(const std::string&, const std::string&)> round_trip_us_;
    std::function<std::int64_t(const std::string&)> started_ms_;
};

}  // namespace gemel::clusterd::api
