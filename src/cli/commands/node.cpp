// gemel node list | show | confirm-down | leave (drain is in migrate.cpp); gemel cluster start --alone
// --accept-loss
#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/fields.hpp"
#include "cli/status_screen.hpp"

namespace gemel::cli {

namespace {

Status list_nodes(Context& context) {
    auto answer = context.get("/v1/nodes");
    if (!answer) return tl::unexpected<Error>(answer.error());
    if (context.json) {
        context.print_json(*answer);
        return {};
    }
    Table table({"NODE", "STATE", "ROLES", "VOTER", "LINKS", "FENCING"});
    for (const Json& node : list_of(*answer, "nodes")) {
        std::string roles;
        for (const Json& role : list_of(node, "roles")) {
            if (role.is_string()) roles += (roles.empty() ? "" : ",") + printable(role.get<std::string>());
        }
        table.add({{text_of(node, "name")},
                   {node_words(node)},
                   {roles},
                   {flag_of(node, "voter") ? "yes" : "no"},
                   {link_words(node)},
                   {fencing_words(node)}});
    }
    context.terminal.print(table.render(context.terminal.output_colours()));
    return {};
}

std::string node_page(const Json& node) {
    std::string out = fmt::format("{}: {}\n", text_of(node, "name"), text_of(node, "state"));
    const auto line = [&](const char* title, const std::string& value) {
        out += fmt::format("  {:<13}{}\n", title, value);
    };
    if (flag_of(node, "drained"))
        line("drained", fmt::format("guests move away and none is started here until 'gemel node undrain {}'",
                                    text_of(node, "name")));
    line("id", text_of(node, "id"));
    line("incarnation", text_of(node, "incarnation", "unknown"));
    line("version", text_of(node, "version", "unknown"));
    line("voter", flag_of(node, "voter") ? "yes" : "no");
    line("standing", !has(node, "standing") ? "unknown" : (flag_of(node, "standing") ? "yes" : "no"));
    for (const Json& link : list_of(node, "links")) {
        std::string words = text_of(link, "name") + " " + text_of(link, "state");
        if (has(link, "address")) words += " at " + text_of(link, "address");
        if (has(link, "rtt_us")) words += fmt::format(", {} us", number_of(link, "rtt_us"));
        line("link", words);
    }
    for (const Json& rung : list_of(object_of(node, "fencing"), "rungs")) {
        std::string words = text_of(rung, "kind") + " " + text_of(rung, "state");
        if (has(rung, "device")) words += ", " + text_of(rung, "device");
        if (has(rung, "bound_ms"))
            words += ", gives its proof within " + human_duration(number_of(rung, "bound_ms"));
        if (has(rung, "detail")) words += ": " + text_of(rung, "detail");
        line("fencing", words);
    }
    line("protected", flag_of(object_of(node, "fencing"), "protected")
                          ? "yes, its loss can be proven without a human"
                          : "NO, its loss can only be confirmed by an operator");
    for (const Json& pool : list_of(node, "pools")) {
        line("pool", fmt::format("{}: {} free of {}", text_of(pool, "name"),
                                 human_size(number_of(pool, "free_bytes")),
                                 human_size(number_of(pool, "total_bytes"))));
    }
    return out;
}

Status show_node(Context& context, const std::string& name) {
    if (auto good = check_name("node", name); !good) return good;
    auto node = context.get("/v1/nodes/" + name);
    if (!node) return tl::unexpected<Error>(node.error());
    if (context.json) {
        context.print_json(*node);
    } else {
        context.terminal.print(node_page(*node));
    }
    return {};
}

Status confirm_down(Context& context, const std::string& name) {
    if (auto good = check_name("node", name); !good) return good;
    auto typed = context.confirm_plan("node.confirm-down", name, "");
    if (!typed) return tl::unexpected<Error>(typed.error());
    auto done =
        context.change("POST", fmt::format("/v1/nodes/{}/confirm-down", name), Json{{"confirm_name", *typed}},
                       fmt::format("confirming that {} is down", name));
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(fmt::format("{} is confirmed down; 'gemel status' shows what follows\n", name));
    return {};
}

// `here`: the node that answers, unasked: what gemel-leave.service does when the host shuts down.
Status leave(Context& context, std::string name, bool here) {
    if (here == !name.empty())
        return fail(ErrorCode::invalid_argument,
                    "either the node's name or --here is expected: gemel node leave NAME");
    std::string typed;
    if (here) {
        auto version = context.get("/v1/version");
        if (!version) return tl::unexpected<Error>(version.error());
        name = typed = text_of(*version, "node");
    } else {
        if (auto good = check_name("node", name); !good) return good;
        auto answer = context.confirm_plan("node.leave", name, "");
        if (!answer) return tl::unexpected<Error>(answer.error());
        typed = *answer;
    }
    auto done = context.change("POST", fmt::format("/v1/nodes/{}/leave", name), Json{{"confirm_name", typed}},
                               fmt::format("{} is leaving", name));
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(fmt::format(
        "{} has left; 'systemctl restart gemel-clusterd' on it, or its next boot, lets it join again\n",
        name));
    return {};
}

Status start_alone(Context& context, bool alone, bool accept_loss) {
    if (!alone || !accept_loss) {
        return fail(ErrorCode::invalid_argument,
                    "both --alone and --accept-loss are expected: a pair that meets starts by itself; alone, "
                    "what the "
                    "other node acknowledged is lost");
    }
    auto version = context.get("/v1/version");
    if (!version) return tl::unexpected<Error>(version.error());
    const std::string cluster = text_of(*version, "cluster");
    auto typed = context.confirm_plan("cluster.start-alone", cluster, "");
    if (!typed) return tl::unexpected<Error>(typed.error());
    auto done = context.change("POST", "/v1/cluster/start-alone",
                               Json{{"accept_loss", true}, {"confirm_name", *typed}}, "starting alone");
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print("this node goes on alone; 'gemel status' shows what follows\n");
    return {};
}

}  // namespace

void add_node_commands(CommandTree& tree) {
    CLI::App* node = tree.add(&tree.app, "node", "the servers of the cluster", {"", {}});
    node->require_subcommand(1);
    CLI::App* list =
        tree.add(node, "list", "all nodes, one a line", {"", {{"gemel node list", "all nodes"}}});
    tree.add_json_option(list);
    tree.on(list, [&tree] { return list_nodes(tree.context); });

    auto name = std::make_shared<std::string>();
    CLI::App* show =
        tree.add(node, "show", "one node: links, fencing ladder, pools",
                 {"The fencing ladder is the list of ways in which the node's loss can be proven, cheapest "
                  "first, with the time each one takes.",
                  {{"gemel node show node2", "everything about node2"}}});
    show->add_option("NODE", *name, "the node's name")->required();
    tree.add_json_option(show);
    tree.on(show, [&tree, name] { return show_node(tree.context, *name); });

    CLI::App* down =
        tree.add(node, "confirm-down", "vouch that a node is powered off",
                 {"The last rung of the fencing ladder, for a node whose loss nothing else can prove (power "
                  "and BMC gone "
                  "together). Go and look first: if the node is in truth alive, guests may run twice and "
                  "acknowledged writes may "
                  "be lost. It is refused while the node answers on any path and for the first two minutes "
                  "after its loss, and "
                  "waits out the time after which the node has stopped serving by itself.",
                  {{"gemel node confirm-down node2", "asks for the name, after saying what may be lost"},
                   {"gemel node confirm-down node2 --confirm node2", "the same from a script"}}});
    down->add_option("NODE", *name, "the node's name")->required();
    tree.add_confirm_option(down);
    tree.on(down, [&tree, name] { return confirm_down(tree.context, *name); });

    add_drain_commands(tree, node);
    auto here = std::make_shared<bool>(false);
    CLI::App* leaving = tree.add(
        node, "leave", "take this node out cleanly, before it is powered off",
        {"Run on the node itself. Its guests are shut down, its volumes closed and their leases given "
         "back; then it is committed that it has left, so that the other node goes on without fencing "
         "it and starts those guests whose disks it has. A host that is shut down or rebooted does "
         "this by itself (gemel-leave.service). It joins again at its next boot, or when "
         "gemel-clusterd is restarted.",
         {{"gemel node leave node1", "asks for the name, after saying what will be done"},
          {"gemel node leave --here", "the node it is run on, without a question"}}});
    leaving->add_option("NODE", *name, "the node's name");
    leaving->add_flag("--here", *here, "the node this is run on; asks nothing");
    tree.add_confirm_option(leaving);
    tree.on(leaving, [&tree, name, here] { return leave(tree.context, *name, *here); });
}

void add_cluster_commands(CommandTree& tree) {
    CLI::App* cluster = tree.add(&tree.app, "cluster", "the cluster as a whole", {"", {}});
    cluster->require_subcommand(1);
    struct Flags {
        bool alone = false;
        bool accept_loss = false;
    };
    auto flags = std::make_shared<Flags>();
    CLI::App* start =
        tree.add(cluster, "start", "let a node that booted alone go on without its peer",
                 {"A node that boots alone as one of two voters waits for its peer, because the peer may "
                  "have gone on alone and "
                  "hold newer data. This command overrides that. It also needs proof that the peer is off: a "
                  "verified fence or "
                  "'gemel node confirm-down'. What the peer acknowledged alone and never sent here is lost; "
                  "its replicas are "
                  "kept and the split is reported when it returns.",
                  {{"gemel cluster start --alone --accept-loss", "asks for the cluster's name first"}}});
    start->add_flag("--alone", flags->alone, "go on without the peer");
    start->add_flag("--accept-loss", flags->accept_loss, "what only the peer holds may be lost");
    tree.add_confirm_option(start);
    tree.on(start, [&tree, flags] { return start_alone(tree.context, flags->alone, flags->accept_loss); });
}

}  // namespace gemel::cli
