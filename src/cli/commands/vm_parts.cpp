#include "cli/commands/vm_parts.hpp"

#include <fmt/format.h>

#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

constexpr std::int64_t kDefaultMemoryBytes = 1LL << 30;
constexpr std::int64_t kSmallestMemoryBytes = 32LL << 20;
constexpr std::int64_t kMemoryGrainBytes = 1LL << 20;
constexpr std::size_t kLongestName = 40;

Result<std::int64_t> parse_memory(const std::string& text) {
    auto size = parse_size(text);
    if (!size) return size;
    if (*size < kSmallestMemoryBytes || *size % kMemoryGrainBytes != 0) {
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("a memory of '{}' is not possible: whole MiB from 32M are expected, like 2G", text));
    }
    return size;
}

}  // namespace

void add_shape_options(CLI::App* command, VmShape& shape) {
    command->add_option("--memory", shape.memory, "like 2G (default: 1G, or as the domain XML says)");
    command->add_option("--cpus", shape.cpus, "virtual processors (default: 1, or as the domain XML says)")
        ->check(CLI::Range(1, 255));
    command->add_option("--bridge", shape.bridges, "a network card on this bridge; may be repeated")
        ->expected(1)
        ->take_all();
    command->add_option("--priority", shape.priority, "0 to 1000; higher starts first (default: 100)")
        ->check(CLI::Range(0, 1000));
    command->add_option("--prefer", shape.preferred_node, "the node where it had best run");
    command->add_flag("--private-memory", shape.private_memory,
                      "do not share its memory with gemel-blockd: its disks are slower (NBD instead of "
                      "vhost-user), and the kernel may merge equal memory of guests (KSM)");
}

Result<Json> guest_body(const std::string& name, const VmShape& shape) {
    Json body = {{"name", name}};
    std::int64_t memory = kDefaultMemoryBytes;
    if (!shape.memory.empty()) {
        auto parsed = parse_memory(shape.memory);
        if (!parsed) return tl::unexpected<Error>(parsed.error());
        memory = *parsed;
    }
    body["memory_bytes"] = memory;
    body["vcpus"] = shape.cpus == 0 ? 1 : shape.cpus;
    body["disks"] = Json::array();
    for (const auto& bridge : shape.bridges) body["nics"].push_back(Json{{"bridge", bridge}});
    if (shape.private_memory) body["memory"] = "private";
    if (shape.priority >= 0) body["priority"] = shape.priority;
    if (!shape.preferred_node.empty()) {
        if (auto good = check_name("node", shape.preferred_node); !good)
            return tl::unexpected<Error>(good.error());
        body["preferred_node"] = shape.preferred_node;
    }
    return body;
}

std::string disk_name(const std::string& guest, std::size_t index) {
    if (index == 0) return guest;
    const std::string suffix = fmt::format("-{}", index + 1);
    return guest.substr(0, kLongestName - suffix.size()) + suffix;
}

Status check_guest_is_new(Context& context, const std::string& name) {
    auto there = context.get("/v1/vms/" + name);
    if (there) {
        return fail(
            ErrorCode::already_exists,
            fmt::format("there is a guest {} already: choose another name, or look with 'gemel vm show {}'",
                        name, name));
    }
    if (there.error().code != ErrorCode::not_found) return tl::unexpected<Error>(there.error());
    return {};
}

Status start_guest(Context& context, const std::string& name, const std::string& node) {
    if (auto good = check_name("guest", name); !good) return good;
    Json body = Json::object();
    if (!node.empty()) {
        if (auto good = check_name("node", node); !good) return good;
        body["node"] = node;
    }
    auto vm = context.change("POST", fmt::format("/v1/vms/{}/start", name), std::move(body),
                             "starting guest " + name);
    if (!vm) return tl::unexpected<Error>(vm.error());
    context.terminal.print(fmt::format("guest {} runs on {}\n", name, text_of(*vm, "node", "its node")));
    return {};
}

Status NewVolumes::check_name_is_free(const std::string& name) {
    auto there = context_.get("/v1/volumes/" + name);
    if (!there) {
        if (there.error().code == ErrorCode::not_found) return {};
        return tl::unexpected<Error>(there.error());
    }
    // Deleting is left to the user: only a human knows whether it is what a killed import left behind.
    std::string hint;
    if (!has(*there, "vm") && has(*there, "export")) {
        hint = fmt::format(
            ", exported and used by no guest (if a killed import left it: 'gemel volume export {} "
            "--close', then delete it)",
            name);
    } else if (!has(*there, "vm")) {
        hint = ", used by no guest (if an interrupted import left it, delete it)";
    }
    return fail(ErrorCode::already_exists,
                fmt::format("there is a volume {} already{}: choose another name, or look with 'gemel volume "
                            "show {}'",
                            name, hint, name));
}

Status NewVolumes::create(const std::string& name, std::int64_t size_bytes) {
    if (auto free = check_name_is_free(name); !free) return free;
    // Not stopped half way by an interrupt: what is being made could not be deleted.
    auto made = context_.finish("POST", "/v1/volumes", Json{{"name", name}, {"size_bytes", size_bytes}},
                                fmt::format("creating volume {} of {}", name, human_size(size_bytes)));
    if (!made) {
        // where gemel-clusterd fell silent, the volume may be there although nobody told us
        if (made.error().code == ErrorCode::timed_out) names_.push_back(name);
        return tl::unexpected<Error>(made.error());
    }
    names_.push_back(name);
    if (interrupted()) return fail(ErrorCode::failed_precondition, "interrupted; nothing is left of it");
    return {};
}

Status NewVolumes::undone(const Error& cause) {
    std::string left;
    for (const auto& name : names_) {
        auto gone = context_.finish("DELETE", fmt::format("/v1/volumes/{}?confirm_name={}", name, name),
                                    nullptr, "undoing: deleting volume " + name);
        if (!gone && gone.error().code != ErrorCode::not_found) left += (left.empty() ? "" : ", ") + name;
    }
    names_.clear();
    if (left.empty()) return tl::unexpected<Error>(cause);
    return fail(cause.code, fmt::format("{}; volume {} was left behind: delete it with 'gemel volume delete'",
                                        cause.message, left));
}

}  // namespace gemel::cli
