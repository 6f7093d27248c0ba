#include "daemons/clusterd/api_commands.hpp"

#include <limits>
#include <map>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/guest/domain_import.hpp"
#include "core/guest/domain_template.hpp"

namespace gemel::clusterd::api {
namespace {

using Json = nlohmann::json;
using cluster::ApiCommand;

// Takes fields out of a JSON object and remembers which; the first problem is kept.
class Fields {
  public:
    Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
        if (!object_.is_object()) problem("a JSON object is expected");
    }
    std::string text(const char* name, bool required) {
        const Json* value = find(name, required);
        if (value == nullptr) return "";
        if (!value->is_string()) problem(fmt::format("'{}' must be a text", name));
        return value->is_string() ? value->get<std::string>() : "";
    }
    std::uint64_t number(const char* name, bool required, std::uint64_t otherwise, std::uint64_t largest) {
        const Json* value = find(name, required);
        if (value == nullptr) return otherwise;
        if (!value->is_number_unsigned() || value->get<std::uint64_t>() > largest) {
            problem(fmt::format("'{}' must be a whole number up to {}", name, largest));
            return otherwise;
        }
        return value->get<std::uint64_t>();
    }
    bool flag(const char* name, bool otherwise) {
        const Json* value = find(name, false);
        if (value == nullptr) return otherwise;
        if (!value->is_boolean()) problem(fmt::format("'{}' must be true or false", name));
        return value->is_boolean() ? value->get<bool>() : otherwise;
    }
    const Json& list(const char* name, bool required) {
        static const Json kEmpty = Json::array();
        const Json* value = find(name, required);
        if (value == nullptr) return kEmpty;
        if (!value->is_array()) problem(fmt::format("'{}' must be a list", name));
        return value->is_array() ? *value : kEmpty;
    }
    std::map<std::string, std::string> texts(const char* name, bool required) {
        std::map<std::string, std::string> out;
        const Json* value = find(name, required);
        if (value == nullptr) return out;
        if (!value->is_object()) problem(fmt::format("'{}' must be an object of texts", name));
        if (!value->is_object()) return out;
        for (const auto& [key, entry] : value->items()) {
            if (!entry.is_string()) problem(fmt::format("'{}.{}' must be a text", name, key));
            if (entry.is_string()) out[key] = entry.get<std::string>();
        }
        return out;
    }
    bool has(const char* name) const { return object_.is_object() && object_.contains(name); }
    void problem(const std::string& what) {
        if (problem_.empty()) problem_ = where_.empty() ? what : where_ + ": " + what;
    }
    Status finish() {
        if (object_.is_object())
            for (const auto& [key, value] : object_.items())
                if (!taken_.contains(key)) problem(fmt::format("the field '{}' is not known", key));
        if (problem_.empty()) return {};
        return fail(ErrorCode::invalid_argument, problem_);
    }

  private:
    const Json* find(const char* name, bool required) {
        taken_.insert(name);
        if (!object_.is_object()) return nullptr;
        const auto found = object_.find(name);
        if (found != object_.end() && !found->is_null()) return &*found;
        if (required) problem(fmt::format("the field '{}' is missing", name));
        return nullptr;
    }
    const Json& object_;
    std::string where_;
    std::string problem_;
    std::set<std::string> taken_;
};

constexpr std::uint64_t kAnySize = std::numeric_limits<std::int64_t>::max();

template <typename Command>
Result<ApiCommand> finished(Fields& fields, Command command) {
    if (auto ok = fields.finish(); !ok) return tl::unexpected<Error>(ok.error());
    return ApiCommand(std::move(command));
}

Result<ApiCommand> volume_create(Fields& fields) {
    cluster::VolumeCreate out;
    out.name = fields.text("name", true);
    out.size_bytes = fields.number("size_bytes", true, 0, kAnySize);
    if (fields.has("pool")) out.pool = fields.text("pool", false);
    const std::string mode = fields.has("ack_mode") ? fields.text("ack_mode", false) : "writeback";
    if (mode != "writeback" && mode != "stable") fields.problem("'ack_mode' must be writeback or stable");
    out.ack_mode = mode == "stable" ? AckMode::stable : AckMode::writeback;
    for (const auto& node : fields.list("nodes", false)) {
        if (!node.is_string()) fields.problem("'nodes' must be a list of names");
        if (node.is_string()) out.nodes.push_back(node.get<std::string>());
    }
    if (fields.has("nodes") && out.nodes.empty())
        fields.problem("'nodes' must name one or two nodes, or be left out");
    return finished(fields, std::move(out));
}

GuestDisk disk_of(const Json& entry, std::size_t index, Fields& parent) {
    Fields fields(entry, fmt::format("disks[{}]", index));
    GuestDisk out;
    out.volume = fields.text("volume", true);
    out.target = fields.text("target", false);
    if (auto ok = fields.finish(); !ok) parent.problem(ok.error().message);
    return out;
}

GuestNic nic_of(const Json& entry, std::size_t index, Fields& parent) {
    Fields fields(entry, fmt::format("nics[{}]", index));
    GuestNic out;
    out.bridge = fields.text("bridge", true);
    out.mac = fields.text("mac", false);
    if (auto ok = fields.finish(); !ok) parent.problem(ok.error().message);
    return out;
}

// Disks without a target get the next free one.
void give_targets(std::vector<GuestDisk>& disks) {
    std::set<std::string> taken;
    for (const auto& disk : disks) taken.insert(disk.target);
    for (auto& disk : disks) {
        for (char letter = 'a'; disk.target.empty() && letter <= 'z'; ++letter) {
            const std::string target = std::string("vd") + letter;
            if (taken.insert(target).second) disk.target = target;
        }
    }
}

// What the domain brings is taken unless the request says otherwise; what cannot be honoured is refused.
Status take_domain(const std::string& xml, cluster::GuestCreate& out, guest::Template& fixed) {
    const auto domain = guest::read_domain(xml);
    if (!domain) return tl::unexpected<Error>(domain.error());
    if (!domain->accepted())
        return fail(ErrorCode::unsupported, "this domain cannot be a guest here: " +
                                                guest::refusal_text(*domain) + "; see 'check-xml'");
    out.uuid = domain->uuid;
    if (out.memory_bytes == 0) out.memory_bytes = domain->memory_bytes;
    if (out.vcpus == 0) out.vcpus = domain->vcpus;
    if (out.nics.empty()) out.nics = domain->nics;
    fixed = domain->fixed;
    return {};
}

Result<ApiCommand> vm_create(Fields& fields) {
    cluster::GuestCreate out;
    out.name = fields.text("name", true);
    out.memory_bytes = fields.number("memory_bytes", false, 0, kAnySize);
    out.vcpus = static_cast<std::uint32_t>(fields.number("vcpus", false, 0, 255));
    out.priority = static_cast<std::uint32_t>(fields.number("priority", false, 100, 1000));
    out.preferred_node = fields.text("preferred_node", false);
    std::size_t index = 0;
    for (const auto& entry : fields.list("disks", true)) out.disks.push_back(disk_of(entry, index++, fields));
    index = 0;
    for (const auto& entry : fields.list("nics", false)) out.nics.push_back(nic_of(entry, index++, fields));
    give_targets(out.disks);
    guest::Template fixed;
    const std::string xml = fields.text("domain_xml", false);
    if (!xml.empty()) {
        if (auto ok = take_domain(xml, out, fixed); !ok) return tl::unexpected<Error>(ok.error());
    } else if (out.memory_bytes == 0 || out.vcpus == 0) {
        fields.problem("either 'memory_bytes' and 'vcpus', or 'domain_xml' must be given");
    }
    if (fields.has("memory")) {
        const auto memory = guest::memory_of(fields.text("memory", false));
        if (!memory) fields.problem("'memory' must be shared or private");
        fixed.memory = memory.value_or(fixed.memory);
    }
    out.template_text = guest::encode_template(fixed);
    return finished(fields, std::move(out));
}

Result<ApiCommand> vm_stop(const std::string& name, Fields& fields) {
    cluster::GuestStop out{name, false, 120000};
    const std::string mode = fields.has("mode") ? fields.text("mode", false) : "shutdown";
    if (mode != "shutdown" && mode != "power-off") fields.problem("'mode' must be shutdown or power-off");
    out.power_off = mode == "power-off";
    out.timeout_ms = static_cast<std::uint32_t>(fields.number("timeout_ms", false, 120000, 3600000));
    return finished(fields, std::move(out));
}

Result<ApiCommand> vm_migrate(const std::string& name, Fields& fields) {
    cluster::GuestMigrate out;
    out.name = name;
    out.node = fields.text("node", false);
    out.bandwidth_bytes = fields.number("bandwidth_bytes", false, 0, std::uint64_t{1} << 40);
    out.downtime_ms = static_cast<std::uint32_t>(fields.number("downtime_ms", false, 300, 60000));
    out.auto_converge = fields.flag("auto_converge", true);
    return finished(fields, std::move(out));
}

Result<ApiCommand> fence_set(const std::string& name, Fields& fields) {
    cluster::FenceSet out;
    out.device.name = name;
    out.device.node = fields.text("node", true);
    out.device.agent = fields.text("agent", true);
    out.device.options = fields.texts("options", true);
    out.device.secrets = fields.texts("secrets", false);
    out.device.timeout_ms = static_cast<std::uint32_t>(fields.number("timeout_ms", false, 20000, 120000));
    return finished(fields, std::move(out));
}

std::string query(const http::Request& request, const char* name) {
    const auto found = request.query.find(name);
    return found == request.query.end() ? "" : found->second;
}

Result<ApiCommand> by_route(const std::string& route, const std::string& name, const http::Request& request,
                            Fields& fields) {
    if (route == "cluster.start-alone") {
        const bool accept = fields.flag("accept_loss", false);
        return finished(fields, cluster::StartAlone{fields.text("confirm_name", true), accept});
    }
    if (route == "node.confirm-down")
        return finished(fields, cluster::ConfirmDown{name, fields.text("confirm_name", true)});
    if (route == "node.leave")
        return finished(fields, cluster::NodeLeave{name, fields.text("confirm_name", true)});
    if (route == "volume.create") return volume_create(fields);
    if (route == "volume.delete")
        return finished(fields, cluster::VolumeDelete{name, query(request, "confirm_name")});
    if (route == "volume.export") return finished(fields, cluster::VolumeExport{name, false});
    if (route == "volume.unexport") return finished(fields, cluster::VolumeUnexport{name});
    if (route == "volume.force-uptodate") {
        const std::string node = fields.text("node", true);
        return finished(fields, cluster::VolumeForceUpToDate{name, node, fields.text("confirm_name", true)});
    }
    if (route == "volume.resolve") {
        const std::string keep = fields.text("keep", true);
        return finished(fields, cluster::VolumeResolve{name, keep, fields.text("confirm_name", true)});
    }
    if (route == "vm.create") return vm_create(fields);
    if (route == "vm.delete")
        return finished(fields, cluster::GuestDelete{name, query(request, "confirm_name"),
                                                     query(request, "with_volumes") == "true"});
    if (route == "vm.start") return finished(fields, cluster::GuestStart{name, fields.text("node", false)});
    if (route == "vm.stop") return vm_stop(name, fields);
    if (route == "vm.migrate") return vm_migrate(name, fields);
    if (route == "vm.migrate-cancel") return finished(fields, cluster::GuestMigrateCancel{name});
    if (route == "node.drain") return finished(fields, cluster::NodeDrain{name});
    if (route == "node.undrain") return finished(fields, cluster::NodeUndrain{name});
    if (route == "fence.set") return fence_set(name, fields);
    if (route == "fence.test") return finished(fields, cluster::FenceTest{name});
    return fail(ErrorCode::internal, "no command is known for " + route);
}

}  // namespace

Result<ApiCommand> parse_command(const std::string& route, const http::Request& request) {
    const Json body = request.body.empty() ? Json::object() : Json::parse(request.body, nullptr, false);
    if (body.is_discarded()) return fail(ErrorCode::invalid_argument, "the request's body is not JSON");
    const auto name = request.parameters.find("name");
    Fields fields(body, "");
    auto command = by_route(route, name == request.parameters.end() ? "" : name->second, request, fields);
    if (!command) return command;
    if (auto ok = cluster::validate(*command); !ok) return tl::unexpected<Error>(ok.error());
    return command;
}

Result<OperationId> parse_operation_id(const http::Request& request) {
    const std::string text = query(request, "operation_id");
    if (text.empty()) return OperationId{};
    auto id = OperationId::parse(text);
    if (!id)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' is no operation id: a UUID is expected", text));
    return id;
}

}  // namespace gemel::clusterd::api
