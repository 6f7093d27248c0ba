// gemel volume create | list | show | delete | export | force-uptodate | resolve
#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/fields.hpp"
#include "cli/process.hpp"
#include "cli/status_screen.hpp"

namespace gemel::cli {

namespace {

struct VolumeOptions {
    std::string name;
    std::string size;
    std::string pool;
    std::vector<std::string> nodes;
    std::string node;
    bool stable = false;
    bool detach = false;
    bool close = false;
    std::vector<std::string> command;
};

std::string target_of(const std::string& name, const char* action = "") {
    return "/v1/volumes/" + name + action;
}

Status create(Context& context, const VolumeOptions& options) {
    if (auto good = check_name("volume", options.name); !good) return good;
    auto size = parse_volume_size(options.size);
    if (!size) return tl::unexpected<Error>(size.error());
    Json body = {{"name", options.name}, {"size_bytes", *size}};
    if (!options.pool.empty()) body["pool"] = options.pool;
    if (options.stable) body["ack_mode"] = "stable";
    for (const auto& node : options.nodes) {
        if (auto good = check_name("node", node); !good) return good;
        body["nodes"].push_back(node);
    }
    auto made = context.change("POST", "/v1/volumes", std::move(body), "creating volume " + options.name);
    if (!made) return tl::unexpected<Error>(made.error());
    context.terminal.print(fmt::format("volume {} of {} is there\n", options.name, human_size(*size)));
    return {};
}

Status list(Context& context) {
    auto answer = context.get("/v1/volumes");
    if (!answer) return tl::unexpected<Error>(answer.error());
    if (context.json) {
        context.print_json(*answer);
        return {};
    }
    Table table({"VOLUME", "SIZE", "STATE", "REPLICAS (* serves the guest)", "USED BY"});
    for (const Json& volume : list_of(*answer, "volumes")) {
        std::string replicas;
        for (const Json& replica : list_of(volume, "replicas")) {
            replicas += (replicas.empty() ? "" : ", ") + replica_words(volume, replica);
        }
        std::string user = text_of(volume, "vm", "-");
        if (has(volume, "export")) user = "export on " + text_of(object_of(volume, "export"), "node");
        table.add({{text_of(volume, "name")},
                   {human_size(number_of(volume, "size_bytes"))},
                   {text_of(volume, "state")},
                   {replicas},
                   {user}});
    }
    context.terminal.print(table.render(context.terminal.output_colours()));
    return {};
}

std::string volume_page(const Json& volume) {
    std::string out = fmt::format("{}: {}\n", text_of(volume, "name"), text_of(volume, "state"));
    const auto line = [&](const char* title, const std::string& value) {
        out += fmt::format("  {:<13}{}\n", title, value);
    };
    line("id", text_of(volume, "id"));
    line("size", fmt::format("{} ({} bytes)", human_size(number_of(volume, "size_bytes")),
                             number_of(volume, "size_bytes")));
    line("pool", text_of(volume, "pool"));
    line("writes", text_of(volume, "ack_mode") == "stable"
                       ? "stable: every completion is on stable storage on both"
                       : "writeback: a flush is stable on the whole ack set");
    std::string ack_set;
    for (const Json& node : list_of(volume, "ack_set")) {
        if (node.is_string()) ack_set += (ack_set.empty() ? "" : ", ") + printable(node.get<std::string>());
    }
    line("ack set", ack_set.empty() ? "empty" : ack_set);
    if (has(volume, "generation")) line("generation", std::to_string(number_of(volume, "generation")));
    const Json& owner = object_of(volume, "owner");
    line("owner", owner.empty()
                      ? "none"
                      : fmt::format("{}, epoch {}, lease {}{}", text_of(owner, "node"),
                                    number_of(owner, "epoch"), text_of(owner, "lease"),
                                    has(owner, "front_end") ? ", for " + text_of(owner, "front_end") : ""));
    for (const Json& replica : list_of(volume, "replicas")) {
        line("replica", fmt::format("{}, {}, {}{}", replica_words(volume, replica), text_of(replica, "role"),
                                    text_of(replica, "connection"),
                                    has(replica, "path") ? ", " + text_of(replica, "path") : ""));
    }
    line("used by", has(volume, "vm") ? "guest " + text_of(volume, "vm") : "no guest");
    if (has(volume, "export")) line("export", text_of(object_of(volume, "export"), "uri"));
    return out;
}

Status show(Context& context, const std::string& name) {
    if (auto good = check_name("volume", name); !good) return good;
    auto volume = context.get(target_of(name));
    if (!volume) return tl::unexpected<Error>(volume.error());
    if (context.json) {
        context.print_json(*volume);
    } else {
        context.terminal.print(volume_page(*volume));
    }
    return {};
}

Status remove(Context& context, const std::string& name) {
    if (auto good = check_name("volume", name); !good) return good;
    auto typed = context.confirm_plan("volume.delete", name, "");
    if (!typed) return tl::unexpected<Error>(typed.error());
    auto done = context.change("DELETE", target_of(name) + "?confirm_name=" + *typed, nullptr,
                               "deleting volume " + name);
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(fmt::format("volume {} is deleted\n", name));
    return {};
}

Status close_export(Context& context, const std::string& name) {
    auto closed =
        context.finish("DELETE", target_of(name, "/export"), nullptr, "closing the export of " + name);
    if (!closed) return tl::unexpected<Error>(closed.error());
    return {};
}

Status export_volume(CommandTree& tree, const VolumeOptions& options) {
    Context& context = tree.context;
    if (auto good = check_name("volume", options.name); !good) return good;
    if (options.close && (options.detach || !options.command.empty())) {
        return fail(ErrorCode::invalid_argument,
                    "--close stands alone: it ends an export made with --detach");
    }
    if (options.close) return close_export(context, options.name);
    auto made = context.change("POST", target_of(options.name, "/export"), Json::object(),
                               "exporting volume " + options.name);
    if (!made) return tl::unexpected<Error>(made.error());
    const std::string uri = text_of(*made, "uri");
    if (!options.command.empty()) {
        auto code = run_attached(options.command, {{"uri", uri}});
        auto closed = close_export(context, options.name);
        if (!code) return tl::unexpected<Error>(code.error());
        tree.exit_code = *code;
        return closed;
    }
    context.terminal.print(uri + "\n");
    if (options.detach) return {};
    context.terminal.note(fmt::format("volume {} is exported until Ctrl-C", options.name));
    while (!interrupted()) wait_ms(200);
    return close_export(context, options.name);
}

Status force_uptodate(Context& context, const VolumeOptions& options) {
    if (auto good = check_name("volume", options.name); !good) return good;
    if (auto good = check_name("node", options.node); !good) return good;
    auto typed = context.confirm_plan("volume.force-uptodate", options.name, "&node=" + options.node);
    if (!typed) return tl::unexpected<Error>(typed.error());
    auto done =
        context.change("POST", target_of(options.name, "/force-uptodate"),
                       Json{{"node", options.node}, {"confirm_name", *typed}}, "forcing " + options.name);
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(
        fmt::format("the replica of {} on {} is UpToDate by your word\n", options.name, options.node));
    return {};
}

Status resolve(Context& context, const VolumeOptions& options) {
    if (auto good = check_name("volume", options.name); !good) return good;
    if (auto good = check_name("node", options.node); !good) return good;
    auto typed = context.confirm_plan("volume.resolve", options.name, "&node=" + options.node);
    if (!typed) return tl::unexpected<Error>(typed.error());
    auto done =
        context.change("POST", target_of(options.name, "/resolve"),
                       Json{{"keep", options.node}, {"confirm_name", *typed}}, "resolving " + options.name);
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(
        fmt::format("{} goes on with the replica of {}; the other one is renamed and kept\n", options.name,
                    options.node));
    return {};
}

void add_name(CLI::App* command, const std::shared_ptr<VolumeOptions>& options) {
    command->add_option("NAME", options->name, "the volume's name")->required();
}

void add_create(CommandTree& tree, CLI::App* volume, const std::shared_ptr<VolumeOptions>& options) {
    CLI::App* made = tree.add(
        volume, "create", "a new mirrored volume, all zeroes",
        {"Makes a replica on every node of the pair. SIZE is a whole number with K, M, G or T (powers "
         "of 1024) and a multiple of 4096 bytes. If a step fails, nothing is left.",
         {{"gemel volume create web1 20G", "20 GiB on both nodes"},
          {"gemel volume create log1 5G --stable", "every completed write is stable on both"}}});
    add_name(made, options);
    made->add_option("SIZE", options->size, "how large, like 20G")->required();
    made->add_flag("--stable", options->stable,
                   "complete a write only when it is on stable storage everywhere");
    made->add_option("--pool", options->pool, "where on the nodes (default: default)");
    made->add_option("--node", options->nodes,
                     "a node to hold a replica; give it once or twice (default: the pair)")
        ->expected(1)
        ->take_all();
    tree.on(made, [&tree, options] { return create(tree.context, *options); });
}

void add_export(CommandTree& tree, CLI::App* volume, const std::shared_ptr<VolumeOptions>& options) {
    CLI::App* exported = tree.add(
        volume, "export", "serve a volume over NBD on this node",
        {"Takes the volume's lease for this node, so it is refused while a guest runs on it. Prints "
         "the NBD URI and "
         "serves until Ctrl-C; or runs COMMAND with the URI in the variable uri and ends with it, "
         "with COMMAND's exit "
         "code; or, with --detach, returns at once, until --close. An export without a client is "
         "closed by the cluster "
         "after a while.",
         {{"gemel volume export web1 -- sh -c 'nbdcopy \"$uri\" web1.img'", "a backup of a stopped guest"},
          {"gemel volume export web1 --detach", "prints the URI and returns"},
          {"gemel volume export web1 --close", "ends it"}}});
    add_name(exported, options);
    exported->add_flag("--detach", options->detach, "print the URI and return; --close ends the export");
    exported->add_flag("--close", options->close, "end an export made with --detach");
    exported->add_option("COMMAND", options->command, "after --: what to run while the volume is exported")
        ->take_all();
    tree.on(exported, [&tree, options] { return export_volume(tree, *options); });
}

void add_rescue(CommandTree& tree, CLI::App* volume, const std::shared_ptr<VolumeOptions>& options) {
    CLI::App* force =
        tree.add(volume, "force-uptodate", "call a replica current although nothing proves it",
                 {"For the day when the node with the current replica will not come back. What that replica "
                  "holds and this one "
                  "lacks is lost; 'gemel volume show' says since when they may differ. Should the other one "
                  "return, it is kept "
                  "and the split is reported.",
                  {{"gemel volume force-uptodate web1 --node node2", "asks for the volume's name first"}}});
    add_name(force, options);
    force->add_option("--node", options->node, "the node whose replica is to be current")->required();
    tree.add_confirm_option(force);
    tree.on(force, [&tree, options] { return force_uptodate(tree.context, *options); });

    CLI::App* end_split =
        tree.add(volume, "resolve", "end a split brain by choosing whose history goes on",
                 {"Both replicas have acknowledged writes that the other lacks. The replica of the named "
                  "node goes on; the other "
                  "one is renamed and kept, and a new one is built from the first. Refused where the pool "
                  "has no room for both.",
                  {{"gemel volume resolve web1 --keep node1", "asks for the volume's name first"}}});
    add_name(end_split, options);
    end_split->add_option("--keep", options->node, "the node whose replica goes on")->required();
    tree.add_confirm_option(end_split);
    tree.on(end_split, [&tree, options] { return resolve(tree.context, *options); });
}

}  // namespace

void add_volume_commands(CommandTree& tree) {
    auto options = std::make_shared<VolumeOptions>();
    CLI::App* volume = tree.add(&tree.app, "volume", "mirrored disks", {"", {}});
    volume->require_subcommand(1);
    add_create(tree, volume, options);
    CLI::App* all =
        tree.add(volume, "list", "all volumes, one a line", {"", {{"gemel volume list", "all volumes"}}});
    tree.add_json_option(all);
    tree.on(all, [&tree] { return list(tree.context); });
    CLI::App* one = tree.add(volume, "show", "one volume: replicas, ack set, owner",
                             {"", {{"gemel volume show web1", "everything about web1"}}});
    add_name(one, options);
    tree.add_json_option(one);
    tree.on(one, [&tree, options] { return show(tree.context, options->name); });
    CLI::App* gone =
        tree.add(volume, "delete", "delete a volume and all its replicas",
                 {"All data of the volume is lost. Refused while a guest has it as a disk or it is exported.",
                  {{"gemel volume delete scratch", "asks for the name first"},
                   {"gemel volume delete scratch --confirm scratch", "the same from a script"}}});
    add_name(gone, options);
    tree.add_confirm_option(gone);
    tree.on(gone, [&tree, options] { return remove(tree.context, options->name); });
    add_export(tree, volume, options);
    add_rescue(tree, volume, options);
}

}  // namespace gemel::cli
