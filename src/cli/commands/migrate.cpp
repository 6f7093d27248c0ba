// gemel vm migrate; gemel node drain | undrain
#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

struct MigrateOptions {
    std::string name;
    std::string node;
    std::string bandwidth;
    int downtime_ms = 300;
    bool no_auto_converge = false;
    bool cancel = false;
};

Status cancel(Context& context, const std::string& name) {
    auto done = context.change("POST", fmt::format("/v1/vms/{}/migrate-cancel", name), Json::object(),
                               "cancelling the migration of " + name);
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(fmt::format("guest {} stays where it is\n", name));
    return {};
}

Status migrate(Context& context, const MigrateOptions& options) {
    if (auto good = check_name("guest", options.name); !good) return good;
    if (options.cancel) return cancel(context, options.name);
    Json body = {{"downtime_ms", options.downtime_ms}, {"auto_converge", !options.no_auto_converge}};
    if (!options.node.empty()) {
        if (auto good = check_name("node", options.node); !good) return good;
        body["node"] = options.node;
    }
    if (!options.bandwidth.empty()) {
        const auto rate = parse_size(options.bandwidth);
        if (!rate) return tl::unexpected<Error>(rate.error());
        body["bandwidth_bytes"] = *rate;
    }
    auto done = context.change("POST", fmt::format("/v1/vms/{}/migrate", options.name), std::move(body),
                               "moving guest " + options.name);
    if (!done) return tl::unexpected<Error>(done.error());
    if (context.json) {
        context.print_json(*done);
        return {};
    }
    std::string line = fmt::format("guest {} runs on {}", options.name, text_of(*done, "node"));
    if (has(*done, "downtime_ms"))
        line += fmt::format("; it paused for {} ms", number_of(*done, "downtime_ms"));
    context.terminal.print(line + "\n");
    return {};
}

Status drain(Context& context, const std::string& node, bool drained) {
    if (auto good = check_name("node", node); !good) return good;
    auto done = context.change("POST", fmt::format("/v1/nodes/{}/{}", node, drained ? "drain" : "undrain"),
                               Json::object(), (drained ? "draining " : "undraining ") + node);
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(
        drained
            ? fmt::format("no guest runs on {}, and none is started there until 'gemel node undrain {}'\n",
                          node, node)
            : fmt::format("{} takes guests again\n", node));
    return {};
}

}  // namespace

void add_migrate_command(CommandTree& tree, CLI::App* vm) {
    auto options = std::make_shared<MigrateOptions>();
    CLI::App* command = tree.add(
        vm, "migrate", "move a running guest to the other node",
        {"The guest goes on while its memory is copied, pauses for a moment and runs on the other node, on "
         "the "
         "copies of its disks there, which must be UpToDate. Until it runs there nothing is given up: if "
         "anything fails, it stays where it is. Interrupting the command does not stop the move; --cancel "
         "does.",
         {{"gemel vm migrate web1", "to the node that has the other copy of its disks"},
          {"gemel vm migrate web1 node2 --bandwidth 100M", "at most 100 MiB a second"},
          {"gemel vm migrate web1 --cancel", "it stays where it is"}}});
    command->add_option("NAME", options->name, "the guest's name")->required();
    command->add_option("NODE", options->node, "where to (default: the one node that can take it)");
    command->add_option("--bandwidth", options->bandwidth,
                        "at most so many bytes a second, like 100M (default: as fast as the link)");
    command
        ->add_option("--downtime", options->downtime_ms,
                     "milliseconds of pause to aim at: a shorter one takes longer to reach")
        ->check(CLI::Range(1, 60000))
        ->capture_default_str();
    command->add_flag("--no-auto-converge", options->no_auto_converge,
                      "never slow the guest down, also where it writes faster than memory can be copied");
    command->add_flag("--cancel", options->cancel, "give up a move that is under way");
    tree.add_json_option(command);
    tree.on(command, [&tree, options] { return migrate(tree.context, *options); });
}

void add_drain_commands(CommandTree& tree, CLI::App* node) {
    auto name = std::make_shared<std::string>();
    CLI::App* drained = tree.add(
        node, "drain", "move all guests away and start none there",
        {"For work on a server: its guests move live to other nodes, one after the other. Returns when "
         "the node is empty; a guest that cannot be moved is tried again every half minute, and the "
         "command says why. Volumes are still mirrored to it until it is powered off.",
         {{"gemel node drain node1", "before its memory is replaced"}}});
    drained->add_option("NODE", *name, "the node's name")->required();
    tree.on(drained, [&tree, name] { return drain(tree.context, *name, true); });
    CLI::App* back = tree.add(node, "undrain", "let guests be started on a node again",
                              {"Guests that moved away stay where they are.",
                               {{"gemel node undrain node1", "when the work is done"}}});
    back->add_option("NODE", *name, "the node's name")->required();
    tree.on(back, [&tree, name] { return drain(tree.context, *name, false); });
}

}  // namespace gemel::cli
