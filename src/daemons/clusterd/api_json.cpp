#include "daemons/clusterd/api_json.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <set>
#include <time.h>

#include <fmt/format.h>

#include "core/guest/domain_template.hpp"

namespace gemel::clusterd::api {
namespace {

template <typename T>
Json or_null(const std::optional<T>& value) {
    return value ? Json(*value) : Json(nullptr);
}
Json text_or_null(const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
}
Json time_or_null(const std::optional<std::int64_t>& wall_ms) {
    return wall_ms ? Json(time_text(*wall_ms)) : Json(nullptr);
}

std::int64_t wall_now_ms() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

std::string strip(const std::string& object) {
    const auto slash = object.find('/');
    return slash == std::string::npos ? object : object.substr(slash + 1);
}

Json migration(const std::optional<MigrationRecord>& record) {
    if (!record) return nullptr;
    return {{"node", record->node}, {"phase", to_string(record->phase)}, {"cancel", record->cancel}};
}

// A guest that was moved live: for how long it paused, where QEMU told.
Json moved(const OperationRecord& record, Json guest) {
    const auto downtime = record.result.find("downtime_ms");
    if (record.kind != "vm.migrate") return guest;
    guest["downtime_ms"] = downtime == record.result.end()
                               ? Json(nullptr)
                               : Json(std::strtoull(downtime->second.c_str(), nullptr, 10));
    return guest;
}

Json rung(const cluster::RungView& view) {
    return {{"kind", view.kind},
            {"state", view.state},
            {"device", or_null(view.device)},
            {"tested", time_or_null(view.tested_wall_ms)},
            {"bound_ms", or_null(view.bound_ms)},
            {"detail", or_null(view.detail)}};
}

Json problem(const cluster::ProblemView& view) {
    return {{"severity", view.severity},
            {"object", view.object},
            {"what", view.what},
            {"why", view.why},
            {"next_command", or_null(view.next_command)}};
}

Json disks(const std::vector<GuestDisk>& list) {
    Json out = Json::array();
    for (const auto& disk : list) out.push_back({{"target", disk.target}, {"volume", disk.volume}});
    return out;
}

Json nics(const std::vector<GuestNic>& list) {
    Json out = Json::array();
    for (const auto& nic : list) out.push_back({{"bridge", nic.bridge}, {"mac", text_or_null(nic.mac)}});
    return out;
}

}  // namespace

std::string time_text(std::int64_t wall_ms) {
    const time_t whole = wall_ms / 1000;
    tm parts{};
    ::gmtime_r(&whole, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                       parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, wall_ms % 1000);
}

Json Renderer::node(const cluster::NodeView& view) const {
    const bool self = view.name == settings_.file.name;
    Json links = Json::array();
    for (const auto& link : view.links) {
        const auto trip = self ? std::int64_t{-1} : round_trip_us_(view.name, link.name);
        // Without a volume there is no session of blockd on a link; clusterd's own messages show it then.
        const bool heard = link.state == "unknown" && trip >= 0;
        links.push_back({{"name", link.name},
                         {"address", link.address},
                         {"state", heard ? "up" : link.state},
                         {"rtt_us", trip >= 0 ? Json(trip) : Json(nullptr)}});
    }
    Json rungs = Json::array();
    for (const auto& one : view.rungs) rungs.push_back(rung(one));
    Json pools = Json::array();
    for (const auto& pool : view.pools)
        pools.push_back({{"name", pool.name},
                         {"total_bytes", or_null(pool.total_bytes)},
                         {"free_bytes", or_null(pool.free_bytes)}});
    return {{"name", view.name},
            {"id", view.id},
            {"state", view.state},
            {"roles", view.roles},
            {"voter", view.voter},
            {"drained", view.drained},
            {"incarnation", or_null(view.incarnation)},
            {"standing", or_null(view.standing)},
            {"version", or_null(view.version)},
            {"addresses", view.addresses},
            {"links", links},
            {"fencing", {{"protected", view.is_protected}, {"rungs", rungs}}},
            {"memory_total_bytes", or_null(view.memory_total_bytes)},
            {"memory_free_bytes", or_null(view.memory_free_bytes)},
            {"pools", pools}};
}

Json Renderer::exported(const std::string& volume, const cluster::ExportView& view) const {
    std::string uri = "nbd+unix:///" + volume;
    if (!view.secret.empty())
        uri += "?socket=" + settings_.front_socket("nbd", volume, view.epoch, view.secret);
    return {{"uri", uri}, {"node", view.node}, {"epoch", view.epoch}};
}

Json Renderer::volume(const cluster::VolumeView& view) const {
    Json replicas = Json::array();
    for (const auto& replica : view.replicas) {
        Json resync = nullptr;
        if (replica.resync_total_bytes)
            resync = {{"done_bytes", replica.resync_done_bytes.value_or(0)},
                      {"total_bytes", *replica.resync_total_bytes},
                      {"rate_bytes_per_s", nullptr}};
        const bool here = replica.node == settings_.file.name;
        replicas.push_back(
            {{"node", replica.node},
             {"disk", replica.disk},
             {"role", replica.role},
             {"connection", replica.connection},
             {"resync", resync},
             {"path", here ? Json(settings_.volume_path(view.pool, view.name)) : Json(nullptr)}});
    }
    Json owner = nullptr;
    if (view.owner)
        owner = {{"node", view.owner->node},
                 {"epoch", view.owner->epoch},
                 {"lease", view.owner->lease},
                 {"front_end", or_null(view.owner->front_end)}};
    return {{"name", view.name},
            {"id", view.id},
            {"size_bytes", view.size_bytes},
            {"pool", view.pool},
            {"ack_mode", view.ack_mode},
            {"state", view.state},
            {"generation", or_null(view.generation)},
            {"revision", or_null(view.revision)},
            {"ack_set", view.ack_set},
            {"owner", owner},
            {"replicas", replicas},
            {"vm", or_null(view.vm)},
            {"export", view.exported ? exported(view.name, *view.exported) : Json(nullptr)}};
}

Json Renderer::guest(const cluster::GuestView& view) const {
    const auto fixed = guest::decode_template(view.template_text);
    return {{"name", view.name},
            {"uuid", view.uuid},
            {"state", view.state},
            {"desired", view.desired},
            {"phase", or_null(view.phase)},
            {"why", or_null(view.why)},
            {"node", or_null(view.node)},
            {"type", or_null(view.type)},
            {"memory_bytes", view.memory_bytes},
            {"memory", fixed ? Json(guest::to_string(fixed->memory)) : Json(nullptr)},
            {"vcpus", view.vcpus},
            {"disks", disks(view.disks)},
            {"nics", nics(view.nics)},
            {"priority", view.priority},
            {"preferred_node", or_null(view.preferred_node)},
            {"restarts", view.restarts},
            {"migration", migration(view.migration)}};
}

Json Renderer::fence_device(const cluster::FenceDeviceView& view) const {
    Json secrets = Json::array();
    for (const auto& [name, value] : view.device.secrets) secrets.push_back(name);
    return {{"name", view.device.name},       {"node", view.device.node},
            {"agent", view.device.agent},     {"options", view.device.options},
            {"secrets_set", secrets},         {"state", view.state},
            {"power", or_null(view.power)},   {"tested", time_or_null(view.tested_wall_ms)},
            {"detail", or_null(view.detail)}, {"timeout_ms", view.device.timeout_ms}};
}

Json Renderer::event(const cluster::EventView& view) const {
    return {{"sequence", view.sequence},       {"time", time_text(view.event.wall_ms)},
            {"severity", view.event.severity}, {"kind", view.event.kind},
            {"object", view.event.object},     {"node", text_or_null(view.event.node)},
            {"message", view.event.message}};
}

Json Renderer::explanation(const cluster::ExplainView& view) const {
    Json next = Json::array();
    for (const auto& one : view.next)
        next.push_back({{"when", one.when}, {"then", one.then}, {"next_command", or_null(one.next_command)}});
    return {{"object", view.object}, {"now", view.now}, {"because", view.because}, {"next", next}};
}

Json Renderer::plan(const cluster::PlanView& view) const {
    return {{"action", view.action},
            {"object", view.object},
            {"allowed", view.allowed},
            {"refusal", or_null(view.refusal)},
            {"will_do", view.will_do},
            {"may_lose", view.may_lose},
            {"wait_ms", or_null(view.wait_ms)},
            {"confirm_name", view.confirm_name}};
}

Json Renderer::result_of(const OperationRecord& record, const cluster::StatusView& status,
                         const std::vector<cluster::FenceDeviceView>& devices) const {
    const std::string name = strip(record.object);
    if (record.kind == "volume.export") {
        cluster::ExportView view;
        const auto value = [&](const char* key) {
            const auto found = record.result.find(key);
            return found == record.result.end() ? std::string() : found->second;
        };
        view.node = value("node");
        view.secret = value("secret");
        view.epoch = std::strtoull(value("epoch").c_str(), nullptr, 10);
        return exported(name, view);
    }
    if (record.kind.starts_with("volume."))
        for (const auto& view : status.volumes)
            if (view.name == name) return volume(view);
    if (record.kind.starts_with("vm."))
        for (const auto& view : status.guests)
            if (view.name == name) return moved(record, guest(view));
    if (record.kind.starts_with("fence."))
        for (const auto& view : devices)
            if (view.device.name == name) return fence_device(view);
    return nullptr;
}

// What the operation waits for, as far as this node sees it: bytes of a resync, the time a guest is given to
// shut down, the nodes that did their part. Null where nothing of that is known.
Json Renderer::progress_of(const OperationRecord& record, const cluster::StatusView& status) const {
    if (record.state != OperationState::running) return nullptr;
    const std::string name = strip(record.object);
    std::set<std::string> volumes;
    if (record.kind.starts_with("volume.")) volumes.insert(name);
    for (const auto& view : status.guests)
        if (record.kind == "vm.start" && view.name == name)
            for (const auto& disk : view.disks) volumes.insert(disk.volume);
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    std::size_t parts = 0;
    for (const auto& view : status.volumes) {
        if (!volumes.contains(view.name)) continue;
        parts += view.replicas.size();
        for (const auto& replica : view.replicas) {
            done += replica.resync_done_bytes.value_or(0);
            total += replica.resync_total_bytes.value_or(0);
        }
    }
    if (total != 0) return {{"done", done}, {"total", total}, {"unit", "bytes"}};
    if (const auto timeout = record.arguments.find("timeout_ms"); timeout != record.arguments.end()) {
        const std::int64_t limit = std::strtoll(timeout->second.c_str(), nullptr, 10);
        const std::int64_t passed = wall_now_ms() - started_ms_(record.id.to_string());
        return {{"done", std::clamp<std::int64_t>(passed, 0, limit)}, {"total", limit}, {"unit", "ms"}};
    }
    const bool in_parts = record.kind == "volume.create" || record.kind == "volume.delete";
    if (in_parts && parts != 0) return {{"done", record.done.size()}, {"total", parts}, {"unit", "steps"}};
    return nullptr;
}

Json Renderer::operation(const OperationRecord& record, const cluster::StatusView& status,
                         const std::vector<cluster::FenceDeviceView>& devices) const {
    Json error = nullptr;
    if (record.state == OperationState::failed)
        error = {{"code", record.error_code}, {"message", record.error}};
    const bool done = record.state == OperationState::succeeded;
    return {{"id", record.id.to_string()},
            {"kind", record.kind},
            {"object", record.object},
            {"state", std::string(to_string(record.state))},
            {"step", text_or_null(record.step)},
            {"progress", progress_of(record, status)},
            {"error", error},
            {"result", done ? result_of(record, status, devices) : Json(nullptr)},
            {"started", time_text(started_ms_(record.id.to_string()))}};
}

Json Renderer::status(const cluster::StatusView& view, std::int64_t now_ms) const {
    Json voters = Json::array();
    for (const auto& voter : view.store.voters)
        voters.push_back({{"name", voter.name}, {"kind", voter.kind}, {"state", voter.state}});
    Json out{{"cluster", {{"name", view.cluster_name}, {"id", view.cluster_id}, {"mode", view.mode}}},
             {"node", view.node},
             {"as_of", {{"time", time_text(now_ms)}, {"stale", view.stale}}},
             {"store",
              {{"state", view.store.state},
               {"lineage", or_null(view.store.lineage)},
               {"revision", or_null(view.store.revision)},
               {"voters", voters}}},
             {"coordinator", nullptr}};
    if (view.coordinator) out["coordinator"] = {{"node", *view.coordinator}, {"term", view.term}};
    for (const char* list : {"nodes", "volumes", "vms", "operations", "problems"}) out[list] = Json::array();
    for (const auto& one : view.nodes) out["nodes"].push_back(node(one));
    for (const auto& one : view.volumes) out["volumes"].push_back(volume(one));
    for (const auto& one : view.guests) out["vms"].push_back(guest(one));
    for (const auto& one : view.operations) out["operations"].push_back(operation(one, view, {}));
    for (const auto& one : view.problems) out["problems"].push_back(problem(one));
    return out;
}

}  // namespace gemel::clusterd::api
