// gemel vm create | list | show | start | stop | console | delete (import and migrate have files of their
// own)
#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/commands/vm_parts.hpp"
#include "cli/console.hpp"
#include "cli/fields.hpp"
#include "cli/status_screen.hpp"

namespace gemel::cli {

namespace {

struct VmOptions {
    std::string name;
    VmShape shape;
    std::vector<std::string> disks;
    std::vector<std::string> new_disks;
    bool start = false;
    std::string node;
    bool power_off = false;
    int timeout_s = 120;
    bool with_volumes = false;
};

Status create(Context& context, const VmOptions& options) {
    if (auto good = check_name("guest", options.name); !good) return good;
    if (options.disks.empty() && options.new_disks.empty()) {
        return fail(ErrorCode::invalid_argument,
                    "a guest needs a disk: add --disk VOLUME (it exists) or --new-disk SIZE (it is made)");
    }
    auto body = guest_body(options.name, options.shape);
    if (!body) return tl::unexpected<Error>(body.error());
    for (const auto& volume : options.disks) {
        if (auto good = check_name("volume", volume); !good) return good;
        (*body)["disks"].push_back(Json{{"volume", volume}});
    }
    std::vector<std::int64_t> sizes;
    for (const auto& text : options.new_disks) {
        auto size = parse_volume_size(text);
        if (!size) return tl::unexpected<Error>(size.error());
        sizes.push_back(*size);
    }
    if (auto free = check_guest_is_new(context, options.name); !free) return free;
    NewVolumes made(context);
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        const std::string volume = disk_name(options.name, options.disks.size() + i);
        if (auto done = made.create(volume, sizes[i]); !done) return made.undone(done.error());
        (*body)["disks"].push_back(Json{{"volume", volume}});
    }
    auto guest = context.change("POST", "/v1/vms", std::move(*body), "defining guest " + options.name);
    if (!guest) return made.undone(guest.error());
    made.keep();
    context.terminal.print(fmt::format("guest {} is defined\n", options.name));
    return options.start ? start_guest(context, options.name, options.node) : Status{};
}

Status list(Context& context) {
    auto answer = context.get("/v1/vms");
    if (!answer) return tl::unexpected<Error>(answer.error());
    if (context.json) {
        context.print_json(*answer);
        return {};
    }
    Table table({"GUEST", "STATE", "WANTED", "NODE", "CPUS", "MEMORY", "VOLUMES"});
    for (const Json& vm : list_of(*answer, "vms")) {
        std::string disks;
        for (const Json& disk : list_of(vm, "disks"))
            disks += (disks.empty() ? "" : ",") + text_of(disk, "volume");
        table.add({{text_of(vm, "name")},
                   {vm_words(vm)},
                   {text_of(vm, "desired")},
                   {text_of(vm, "node", "-")},
                   {std::to_string(number_of(vm, "vcpus"))},
                   {human_size(number_of(vm, "memory_bytes"))},
                   {disks}});
    }
    context.terminal.print(table.render(context.terminal.output_colours()));
    return {};
}

// An emulated guest's disks are reached over NBD, whatever its memory is.
std::string memory_of(const Json& vm) {
    const std::string memory = text_of(vm, "memory", "not known");
    const bool in_vain = memory == "shared" && text_of(vm, "type") == "qemu";
    return in_vain ? "shared (not used under emulation: its disks go over NBD)" : memory;
}

std::string migration_words(const Json& migration) {
    if (flag_of(migration, "cancel")) return "given up; it stays unless it has arrived already";
    return text_of(migration, "phase") == "prepared" ? "its memory is being copied"
                                                     : text_of(migration, "node") + " gets ready";
}

std::string vm_page(const Json& vm) {
    std::string out = fmt::format("{}: {}", text_of(vm, "name"), text_of(vm, "state"));
    if (has(vm, "node")) out += " on " + text_of(vm, "node");
    if (has(vm, "phase")) out += fmt::format(" ({})", text_of(vm, "phase"));
    if (has(vm, "migration")) out += ", migrating to " + text_of(object_of(vm, "migration"), "node");
    out += "\n";
    const auto line = [&](const char* title, const std::string& value) {
        out += fmt::format("  {:<13}{}\n", title, value);
    };
    if (has(vm, "why")) line("why", text_of(vm, "why"));
    line("uuid", text_of(vm, "uuid"));
    line("wanted", text_of(vm, "desired"));
    line("type", text_of(vm, "type", "decided at its start"));
    line("cpus", std::to_string(number_of(vm, "vcpus")));
    line("memory", fmt::format("{}, {}", human_size(number_of(vm, "memory_bytes")), memory_of(vm)));
    for (const Json& disk : list_of(vm, "disks")) {
        line("disk", fmt::format("{}: volume {}", text_of(disk, "target"), text_of(disk, "volume")));
    }
    for (const Json& nic : list_of(vm, "nics")) {
        line("network", fmt::format("bridge {}, {}", text_of(nic, "bridge"),
                                    text_of(nic, "mac", "address at its start")));
    }
    line("priority", std::to_string(number_of(vm, "priority")));
    if (has(vm, "preferred_node")) line("prefers", text_of(vm, "preferred_node"));
    if (has(vm, "migration")) line("migration", migration_words(object_of(vm, "migration")));
    line("restarts", fmt::format("{} since it was last started by hand", number_of(vm, "restarts")));
    return out;
}

Status show(Context& context, const std::string& name) {
    if (auto good = check_name("guest", name); !good) return good;
    auto vm = context.get("/v1/vms/" + name);
    if (!vm) return tl::unexpected<Error>(vm.error());
    if (context.json) {
        context.print_json(*vm);
    } else {
        context.terminal.print(vm_page(*vm));
    }
    return {};
}

Status stop(Context& context, const VmOptions& options) {
    if (auto good = check_name("guest", options.name); !good) return good;
    Json body = {{"mode", "shutdown"}, {"timeout_ms", options.timeout_s * 1000}};
    if (options.power_off) {
        auto vm = context.get("/v1/vms/" + options.name);  // a guest that is not there needs no question
        if (!vm) return tl::unexpected<Error>(vm.error());
        auto typed =
            context.confirm_name(options.name, {"stop the guest at once, as if its plug were pulled"},
                                 {"what the guest has in memory and has not flushed to its disks"});
        if (!typed) return tl::unexpected<Error>(typed.error());
        body = {{"mode", "power-off"}};
    }
    auto done = context.change("POST", fmt::format("/v1/vms/{}/stop", options.name), std::move(body),
                               "stopping guest " + options.name);
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(fmt::format("guest {} is shut off\n", options.name));
    return {};
}

Status console(Context& context, const std::string& name) {
    if (auto good = check_name("guest", name); !good) return good;
    auto where = context.get(fmt::format("/v1/vms/{}/console", name));
    if (!where) return tl::unexpected<Error>(where.error());
    // a raw terminal goes back to the line's beginning only when told
    const auto attached = [&] {
        context.terminal.note(fmt::format("attached to {}; Ctrl-] detaches\r", name));
    };
    auto end = attach_console(text_of(*where, "kind"), text_of(*where, "path"), attached);
    if (!end) return tl::unexpected<Error>(end.error());
    context.terminal.note(end->closed_by_guest
                              ? fmt::format("\nthe serial line of {} was closed: the guest stopped or "
                                            "moved ('gemel vm show {}')",
                                            name, name)
                              : fmt::format("\ndetached from {}", name));
    return {};
}

Status remove(Context& context, const VmOptions& options) {
    if (auto good = check_name("guest", options.name); !good) return good;
    const char* with = options.with_volumes ? "true" : "false";
    auto typed = context.confirm_plan("vm.delete", options.name, fmt::format("&with_volumes={}", with));
    if (!typed) return tl::unexpected<Error>(typed.error());
    auto done = context.change(
        "DELETE", fmt::format("/v1/vms/{}?confirm_name={}&with_volumes={}", options.name, *typed, with),
        nullptr, "deleting guest " + options.name);
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(
        fmt::format("guest {} is deleted{}\n", options.name,
                    options.with_volumes ? " with its volumes" : "; its volumes are kept"));
    return {};
}

void add_create(CommandTree& tree, CLI::App* vm, const std::shared_ptr<VmOptions>& options) {
    CLI::App* made = tree.add(
        vm, "create", "define a guest on existing or new volumes",
        {"The guest gets virtio disks and networks and a serial console; the first disk boots. It is not "
         "started unless "
         "--start is given. If a step fails, volumes made for it are deleted again.",
         {{"gemel vm create web1 --memory 2G --cpus 2 --disk web1 --bridge br0", "on an existing volume"},
          {"gemel vm create blank1 --memory 1G --new-disk 10G --start", "with a new, empty disk"}}});
    made->add_option("NAME", options->name, "the guest's name")->required();
    add_shape_options(made, options->shape);
    made->add_option("--disk", options->disks, "an existing volume as a disk; may be repeated")
        ->expected(1)
        ->take_all();
    made->add_option("--new-disk", options->new_disks, "a new volume of this size as a disk; may be repeated")
        ->expected(1)
        ->take_all();
    made->add_flag("--start", options->start, "start it when it is defined");
    tree.on(made, [&tree, options] { return create(tree.context, *options); });
}

void add_power(CommandTree& tree, CLI::App* vm, const std::shared_ptr<VmOptions>& options) {
    CLI::App* start =
        tree.add(vm, "start", "start a guest and keep it running",
                 {"From now on the cluster keeps the guest running: it is restarted on the other node if its "
                  "server dies. Returns when it runs.",
                  {{"gemel vm start web1", "where the cluster likes"},
                   {"gemel vm start web1 --node node2", "on node2, if its replicas may be promoted"}}});
    start->add_option("NAME", options->name, "the guest's name")->required();
    start->add_option("--node", options->node, "where (default: the cluster chooses)");
    tree.on(start, [&tree, options] { return start_guest(tree.context, options->name, options->node); });

    CLI::App* stopped =
        tree.add(vm, "stop", "shut a guest down",
                 {"Asks the guest to shut down and waits. If it has not by then, it goes on running and the "
                  "command fails. "
                  "--power-off pulls the plug instead and asks for the guest's name.",
                  {{"gemel vm stop web1", "within two minutes"},
                   {"gemel vm stop web1 --timeout 600", "a guest that takes its time"},
                   {"gemel vm stop web1 --power-off --confirm web1", "at once, from a script"}}});
    stopped->add_option("NAME", options->name, "the guest's name")->required();
    stopped->add_flag("--power-off", options->power_off, "do not ask the guest");
    stopped->add_option("--timeout", options->timeout_s, "seconds to wait for the guest")
        ->check(CLI::Range(1, 3600))
        ->capture_default_str();
    tree.add_confirm_option(stopped);
    tree.on(stopped, [&tree, options] { return stop(tree.context, *options); });
}

}  // namespace

void add_vm_commands(CommandTree& tree) {
    auto options = std::make_shared<VmOptions>();
    CLI::App* vm = tree.add(&tree.app, "vm", "guests", {"", {}});
    vm->require_subcommand(1);
    add_create(tree, vm, options);
    add_vm_import_command(tree, vm);
    CLI::App* all = tree.add(vm, "list", "all guests, one a line", {"", {{"gemel vm list", "all guests"}}});
    tree.add_json_option(all);
    tree.on(all, [&tree] { return list(tree.context); });
    CLI::App* one = tree.add(vm, "show", "one guest: where, why, disks, networks",
                             {"", {{"gemel vm show web1", "everything about web1"}}});
    one->add_option("NAME", options->name, "the guest's name")->required();
    tree.add_json_option(one);
    tree.on(one, [&tree, options] { return show(tree.context, options->name); });
    add_power(tree, vm, options);
    add_migrate_command(tree, vm);
    CLI::App* serial =
        tree.add(vm, "console", "attach to a guest's serial line",
                 {"Works on the node where the guest runs. Ctrl-] detaches; the guest goes on.",
                  {{"gemel vm console web1", "Ctrl-] detaches"}}});
    serial->add_option("NAME", options->name, "the guest's name")->required();
    tree.on(serial, [&tree, options] { return console(tree.context, options->name); });
    CLI::App* gone =
        tree.add(vm, "delete", "forget a guest; its volumes are kept",
                 {"Refused while it runs. With --with-volumes its disks are deleted too and their data is "
                  "lost.",
                  {{"gemel vm delete web1", "asks for the name; the volumes stay"},
                   {"gemel vm delete web1 --with-volumes --confirm web1", "everything, from a script"}}});
    gone->add_option("NAME", options->name, "the guest's name")->required();
    gone->add_flag("--with-volumes", options->with_volumes, "delete its volumes too; their data is lost");
    tree.add_confirm_option(gone);
    tree.on(gone, [&tree, options] { return remove(tree.context, *options); });
}

}  // namespace gemel::cli
