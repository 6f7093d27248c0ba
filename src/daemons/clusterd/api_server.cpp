#include "daemons/clusterd/api_server.hpp"

#include <charconv>
#include <chrono>

#include <fmt/format.h>

#include "adapters/config/host_incarnation.hpp"
#include "core/guest/domain_import.hpp"
#include "daemons/clusterd/api_commands.hpp"

namespace gemel::clusterd {
namespace {

using api::Json;

constexpr Duration kStreamPulse = seconds(10);
constexpr std::size_t kMaxStreams = 64;
constexpr std::size_t kMaxStarted = 1000;

std::int64_t wall_ms() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

http::Response ok(const Json& body) {
    return {200, body.dump() + "\n", "application/json"};
}
http::Response accepted(const Json& body) {
    return {202, body.dump() + "\n", "application/json"};
}

Result<std::uint64_t> query_number(const http::Request& request, const char* name, std::uint64_t otherwise) {
    const auto found = request.query.find(name);
    if (found == request.query.end()) return otherwise;
    const std::string& text = found->second;
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' must be a whole number, not '{}'", name, text));
    return value;
}

std::string query_text(const http::Request& request, const char* name) {
    const auto found = request.query.find(name);
    return found == request.query.end() ? "" : found->second;
}

Error missing(const char* kind, const std::string& name) {
    return {ErrorCode::not_found,
            fmt::format("there is no {} '{}'; 'gemel {} list' names them", kind, name, kind)};
}

}  // namespace

ApiServer::ApiServer(ApiParts parts)
    : parts_(std::move(parts)),
      renderer_(*parts_.settings, parts_.round_trip_us,
                [this](const std::string& id) { return started_ms(id); }) {}

ApiServer::~ApiServer() {
    if (server_) server_->stop();
}

Status ApiServer::start() {
    server_ = std::make_unique<http::Server>(routes(), http::ServerOptions{});
    if (auto done = server_->listen_unix(parts_.settings->run("clusterd.sock"), 0600); !done) return done;
    server_->start();
    return {};
}

std::int64_t ApiServer::started_ms(const std::string& id) {
    const auto found = started_.find(id);
    if (found != started_.end()) return found->second;
    if (started_.size() >= kMaxStarted) started_.erase(started_.begin());
    return started_[id] = wall_ms();
}

Json ApiServer::render(const OperationRecord& record) {
    auto& node = parts_.node();
    return renderer_.operation(record, node.status(), node.fence_devices());
}

void ApiServer::on_loop(http::Router& router, const char* method, const char* path, Read read) {
    router.add(method, path, [this, read](const http::Request& request, const Responder& out) {
        const bool taken = parts_.loop->post([read, request, out] { read(request, out); });
        if (!taken)
            out->respond(
                http::error_response({ErrorCode::unavailable, "clusterd is busy or stopping; try again"}));
    });
}

http::Router ApiServer::routes() {
    http::Router router;
    add_reads(router);
    add_lists(router);
    add_commands(router);
    return router;
}

void ApiServer::add_reads(http::Router& router) {
    on_loop(router, "GET", "/v1/version", [this](const http::Request&, const Responder& out) {
        out->respond(ok({{"product", "gemel"},
                         {"version", parts_.settings->node.version},
                         {"api_version", "1.0"},
                         {"node", parts_.settings->file.name},
                         {"cluster", parts_.settings->file.cluster_name}}));
    });
    on_loop(router, "GET", "/v1/status", [this](const http::Request&, const Responder& out) {
        out->respond(ok(renderer_.status(parts_.node().status(), wall_ms())));
    });
    on_loop(router, "GET", "/v1/plan", [this](const http::Request& request, const Responder& out) {
        const auto plan =
            parts_.node().plan_of(query_text(request, "action"), query_text(request, "object"),
                                  query_text(request, "node"), query_text(request, "with_volumes") == "true");
        out->respond(plan ? ok(renderer_.plan(*plan)) : http::error_response(plan.error()));
    });
    on_loop(router, "GET", "/v1/explain/{kind}/{name}",
            [this](const http::Request& request, const Responder& out) {
                const auto view =
                    parts_.node().explain(request.parameters.at("kind"), request.parameters.at("name"));
                out->respond(view ? ok(renderer_.explanation(*view)) : http::error_response(view.error()));
            });
    on_loop(router, "GET", "/v1/vms/{name}/console",
            [this](const http::Request& request, const Responder& out) {
                console(request.parameters.at("name"), out);
            });
    router.add("POST", "/v1/vms/check-xml",
               [this](const http::Request& request, const Responder& out) { check_xml(request, out); });
    on_loop(router, "GET", "/v1/events", [this](const http::Request& request, const Responder& out) {
        const auto limit = query_number(request, "limit", 50);
        const auto after = query_number(request, "after", 0);
        if (!limit || !after)
            return out->respond(http::error_response(limit ? after.error() : limit.error()));
        Json events = Json::array();
        for (const auto& event : parts_.node().events(*after, std::min<std::size_t>(*limit, 1000)))
            events.push_back(renderer_.event(event));
        out->respond(ok({{"events", events}}));
    });
    on_loop(router, "GET", "/v1/events/stream",
            [this](const http::Request& request, const Responder& out) { begin_event_stream(request, out); });
    on_loop(router, "GET", "/v1/operations/{id}", [this](const http::Request& request, const Responder& out) {
        const auto id = OperationId::parse(request.parameters.at("id"));
        const auto found =
            id ? parts_.node().operation(*id) : Result<OperationRecord>(tl::unexpected<Error>(id.error()));
        out->respond(found ? ok(render(*found)) : http::error_response(found.error()));
    });
    on_loop(router, "GET", "/v1/operations/{id}/stream",
            [this](const http::Request& request, const Responder& out) {
                const auto id = OperationId::parse(request.parameters.at("id"));
                const auto found = id ? parts_.node().operation(*id)
                                      : Result<OperationRecord>(tl::unexpected<Error>(id.error()));
                if (!found || operation_streams_.size() >= kMaxStreams)
                    return out->respond(http::error_response(
                        found ? Error{ErrorCode::unavailable, "too many streams are open; close some"}
                              : found.error()));
                out->begin_stream("application/x-ndjson");
                operation_streams_.push_back({out, *id, "", boot_now()});
                feed_operations(boot_now());
            });
}

void ApiServer::add_lists(http::Router& router) {
    const auto list = [this, &router](const char* path, const char* field, auto collect) {
        on_loop(router, "GET", path, [field, collect](const http::Request&, const Responder& out) {
            out->respond(ok({{field, collect()}}));
        });
    };
    const auto rendered = [](const auto& views, auto render) {
        Json out = Json::array();
        for (const auto& view : views) out.push_back(render(view));
        return out;
    };
    list("/v1/nodes", "nodes", [this, rendered] {
        return rendered(parts_.node().status().nodes,
                        [this](const auto& view) { return renderer_.node(view); });
    });
    list("/v1/volumes", "volumes", [this, rendered] {
        return rendered(parts_.node().status().volumes,
                        [this](const auto& view) { return renderer_.volume(view); });
    });
    list("/v1/vms", "vms", [this, rendered] {
        return rendered(parts_.node().status().guests,
                        [this](const auto& view) { return renderer_.guest(view); });
    });
    list("/v1/fence-devices", "fence_devices", [this, rendered] {
        return rendered(parts_.node().fence_devices(),
                        [this](const auto& view) { return renderer_.fence_device(view); });
    });
    list("/v1/operations", "operations", [this, rendered] {
        return rendered(parts_.node().operations(), [this](const auto& record) { return render(record); });
    });
    const auto one = [this, &router](const char* path, const char* kind, auto find) {
        on_loop(router, "GET", path, [kind, find](const http::Request& request, const Responder& out) {
            const std::string& name = request.parameters.at("name");
            const Json found = find(name);
            out->respond(found.is_null() ? http::error_response(missing(kind, name)) : ok(found));
        });
    };
    one("/v1/nodes/{name}", "node", [this](const std::string& name) -> Json {
        for (const auto& view : parts_.node().status().nodes)
            if (view.name == name) return renderer_.node(view);
        return nullptr;
    });
    one("/v1/volumes/{name}", "volume", [this](const std::string& name) -> Json {
        for (const auto& view : parts_.node().status().volumes)
            if (view.name == name) return renderer_.volume(view);
        return nullptr;
    });
    one("/v1/vms/{name}", "vm", [this](const std::string& name) -> Json {
        for (const auto& view : parts_.node().status().guests)
            if (view.name == name) return renderer_.guest(view);
        return nullptr;
    });
    one("/v1/fence-devices/{name}", "fence", [this](const std::string& name) -> Json {
        for (const auto& view : parts_.node().fence_devices())
            if (view.device.name == name) return renderer_.fence_device(view);
        return nullptr;
    });
}

void ApiServer::add_commands(http::Router& router) {
    struct Entry {
        const char* method;
        const char* path;
        const char* route;
    };
    static constexpr Entry kEntries[] = {
        {"POST", "/v1/cluster/start-alone", "cluster.start-alone"},
        {"POST", "/v1/nodes/{name}/confirm-down", "node.confirm-down"},
        {"POST", "/v1/nodes/{name}/leave", "node.leave"},
        {"POST", "/v1/volumes", "volume.create"},
        {"DELETE", "/v1/volumes/{name}", "volume.delete"},
        {"POST", "/v1/volumes/{name}/export", "volume.export"},
        {"DELETE", "/v1/volumes/{name}/export", "volume.unexport"},
        {"POST", "/v1/volumes/{name}/force-uptodate", "volume.force-uptodate"},
        {"POST", "/v1/volumes/{name}/resolve", "volume.resolve"},
        {"POST", "/v1/vms", "vm.create"},
        {"DELETE", "/v1/vms/{name}", "vm.delete"},
        {"POST", "/v1/vms/{name}/start", "vm.start"},
        {"POST", "/v1/vms/{name}/stop", "vm.stop"},
        {"POST", "/v1/vms/{name}/migrate", "vm.migrate"},
        {"POST", "/v1/vms/{name}/migrate-cancel", "vm.migrate-cancel"},
        {"POST", "/v1/nodes/{name}/drain", "node.drain"},
        {"POST", "/v1/nodes/{name}/undrain", "node.undrain"},
        {"PUT", "/v1/fence-devices/{name}", "fence.set"},
        {"POST", "/v1/fence-devices/{name}/test", "fence.test"},
    };
    for (const auto& entry : kEntries)
        on_loop(router, entry.method, entry.path,
                [this, route = std::string(entry.route)](const http::Request& request, const Responder& out) {
                    command(route, request, out);
                });
}

void ApiServer::command(const std::string& route, const http::Request& request, const Responder& out) {
    auto parsed = api::parse_command(route, request);
    auto operation = api::parse_operation_id(request);
    if (!parsed || !operation)
        return out->respond(http::error_response(parsed ? operation.error() : parsed.error()));
    if (operation->is_nil()) *operation = OperationId{random_uuid()};
    if (auto* create = std::get_if<cluster::GuestCreate>(&*parsed);
        create != nullptr && create->uuid.is_nil())
        create->uuid = GuestId{random_uuid()};
    const cluster::Tag tag = next_tag_++;
    waiting_[tag] = out;
    parts_.step(cluster::ApiRequest{tag, *operation, std::move(*parsed)});
}

void ApiServer::handle(const cluster::ApiAnswer& answer) {
    const auto found = waiting_.find(answer.tag);
    if (found == waiting_.end()) return;
    const Responder out = found->second;
    waiting_.erase(found);
    out->respond(answer.operation ? accepted(render(*answer.operation))
                                  : http::error_response(answer.operation.error()));
}

void ApiServer::check_xml(const http::Request& request, const Responder& out) {
    const Json body = Json::parse(request.body, nullptr, false);
    if (!body.is_object() || body.size() != 1 || !body.contains("domain_xml") ||
        !body["domain_xml"].is_string())
        return out->respond(http::error_response(
            {ErrorCode::invalid_argument, "an object with the one field 'domain_xml' is expected"}));
    const auto domain = guest::read_domain(body["domain_xml"].get<std::string>());
    if (!domain) return out->respond(http::error_response(domain.error()));
    Json refusals = Json::array();
    for (const auto& finding : domain->refusals)
        refusals.push_back({{"element", finding.element}, {"why", finding.why}});
    Json disks = Json::array();
    for (const auto& disk : domain->disks)
        disks.push_back({{"target", disk.target},
                         {"source", disk.source},
                         {"format", disk.format.empty() ? Json(nullptr) : Json(disk.format)}});
    out->respond(ok({{"accepted", domain->accepted()},
                     {"refusals", refusals},
                     {"name", domain->name},
                     {"memory_bytes", domain->memory_bytes},
                     {"vcpus", domain->vcpus},
                     {"disks", disks}}));
}

void ApiServer::console(const std::string& name, const Responder& out) {
    for (const auto& view : parts_.node().status().guests) {
        if (view.name != name) continue;
        const auto id = GuestId::parse(view.uuid);
        if (!view.node || *view.node != parts_.settings->file.name || !id)
            return out->respond(http::error_response(
                {ErrorCode::failed_precondition,
                 view.node ? fmt::format("{} runs on {}: open its console there", name, *view.node)
                           : fmt::format("{} does not run; start it with 'gemel vm start {}'", name, name)}));
        parts_.guests->console(
            *id, [out, self = parts_.settings->file.name](const Result<ConsoleAnswer>& console) {
                if (!console) return out->respond(http::error_response(console.error()));
                out->respond(ok({{"kind", console->kind}, {"path", console->path}, {"node", self}}));
            });
        return;
    }
    out->respond(http::error_response(missing("vm", name)));
}

// ---- streams ----

void ApiServer::begin_event_stream(const http::Request& request, const Responder& out) {
    const auto newest = parts_.node().events(0, 1);
    const std::uint64_t last = newest.empty() ? 0 : newest.back().sequence;
    const auto after = query_number(request, "after", last);
    if (!after || event_streams_.size() >= kMaxStreams)
        return out->respond(http::error_response(
            after ? Error{ErrorCode::unavailable, "too many streams are open; close some"} : after.error()));
    out->begin_stream("application/x-ndjson");
    const auto kept = parts_.node().events(0, 100000);
    if (*after != 0 && !kept.empty() && kept.front().sequence > *after + 1 &&
        request.query.contains("after")) {
        const bool seen =
            std::any_of(kept.begin(), kept.end(), [&](const auto& one) { return one.sequence == *after; });
        if (!seen)
            out->write(Json{{"sequence", *after},
                            {"time", api::time_text(wall_ms())},
                            {"severity", "warning"},
                            {"kind", "gap"},
                            {"object", "cluster"},
                            {"node", nullptr},
                            {"message", "events between the one asked for and the oldest kept one are gone"}}
                           .dump() +
                       "\n");
    }
    event_streams_.push_back({out, *after, boot_now()});
    feed_events(boot_now());
}

void ApiServer::feed_events(Instant now) {
    std::erase_if(event_streams_, [&](EventStream& stream) {
        std::string lines;
        for (const auto& event : parts_.node().events(stream.after, 1000)) {
            lines += renderer_.event(event).dump() + "\n";
            stream.after = event.sequence;
        }
        if (lines.empty() && now - stream.last_line < kStreamPulse) return false;
        stream.last_line = now;
        return !stream.out->write(lines.empty() ? "\n" : lines);
    });
}

void ApiServer::feed_operations(Instant now) {
    std::erase_if(operation_streams_, [&](OperationStream& stream) {
        const auto record = parts_.node().operation(stream.id);
        if (!record) {
            stream.out->finish();
            return true;
        }
        const std::string line = render(*record).dump() + "\n";
        bool alive = true;
        if (line != stream.last || now - stream.last_line >= kStreamPulse) {
            alive = stream.out->write(line != stream.last ? line : "\n");
            stream.last = line;
            stream.last_line = now;
        }
        const bool final =
            record->state == OperationState::succeeded || record->state == OperationState::failed;
        if (final) stream.out->finish();
        return final || !alive;
    });
}

void ApiServer::changed(Instant now) {
    if (!event_streams_.empty()) feed_events(now);
    if (!operation_streams_.empty()) feed_operations(now);
}

}  // namespace gemel::clusterd
