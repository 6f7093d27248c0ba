// gemel: the command line. Understands the whole line, then runs one command, then says in one line what went
// wrong.
#include <algorithm>
#include <csignal>
#include <exception>
#include <string>

#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

constexpr const char* kDefaultSocket = "/run/gemel/clusterd.sock";

void build(CommandTree& tree) {
    tree.app.name("gemel");
    tree.app.description("two ordinary servers that behave like one machine that does not go down");
    tree.app.set_help_flag("-h,--help", "this text");
    tree.app.require_subcommand(1);
    tree.app.fallthrough();
    tree.context.socket_path = kDefaultSocket;
    tree.app.add_option("--socket", tree.context.socket_path, "gemel-clusterd's socket")
        ->envname("GEMEL_API_SOCKET")
        ->capture_default_str();
    add_status_command(tree);
    add_node_commands(tree);
    add_cluster_commands(tree);
    add_volume_commands(tree);
    add_vm_commands(tree);
    add_fence_commands(tree);
    add_event_commands(tree);
    add_sandbox_commands(tree);
    add_help_commands(tree);
    tree.docs[&tree.app] = {
        "Speaks to gemel-clusterd of this node; any node of the cluster will do. What may lose data says "
        "what, and needs "
        "the object's name typed or given with --confirm. Results go to standard output, progress and "
        "questions to "
        "standard error.",
        {{"gemel status", "begin here, also at night"},
         {"gemel vm import web1 debian-12.qcow2 --memory 2G --start", "a guest that survives its server"},
         {"gemel explain vm web1", "why it is where it is"}}};
}

// The deepest command of the line as far as it was understood.
const CLI::App* understood(const CLI::App* app) {
    const auto chosen = app->get_subcommands();
    return chosen.empty() ? app : understood(chosen.front());
}

std::string one_line(std::string text) {
    while (!text.empty() && text.back() == '\n') text.pop_back();
    std::size_t at = 0;
    while ((at = text.find('\n', at)) != std::string::npos) text.replace(at, 1, "; ");
    return printable(text);
}

std::string usage_error(const CommandTree& tree, const CLI::ParseError& error) {
    const CLI::App* at = understood(&tree.app);
    const std::string name = full_name(at);
    const bool group = !at->get_subcommands([](const CLI::App*) { return true; }).empty();
    // options may stand anywhere, so what nobody understood is left with the root
    auto rest = at->remaining();
    if (rest.empty()) rest = tree.app.remaining();
    if (group && !rest.empty() && rest.front().rfind('-', 0) != 0) {
        return fmt::format("there is no command '{} {}'; '{} --help' lists what there is", name, rest.front(),
                           name);
    }
    if (group && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && rest.empty()) {
        return fmt::format("'{}' needs a command after it; '{} --help' lists them", name, name);
    }
    if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !rest.empty()) {
        return fmt::format("'{}' is not expected by '{}'; '{} --help' says what is", rest.front(), name,
                           name);
    }
    return fmt::format("{}; '{} --help' says what is expected", one_line(error.what()), name);
}

int report(CommandTree& tree, const std::string& message, int code) {
    tree.context.terminal.note("gemel: " + one_line(message));
    return code;
}

int run(int argc, char** argv) {
    CommandTree tree;
    build(tree);
    try {
        tree.app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        tree.context.terminal.print(tree.app.help());
        return kExitDone;
    } catch (const CLI::ParseError& error) {
        return report(tree, usage_error(tree, error), kExitUsage);
    }
    const Status done = tree.action();
    if (!done) {
        const int code = interrupted() ? static_cast<int>(kExitInterrupted) : exit_code_of(done.error().code);
        return report(tree, done.error().message, code);
    }
    return tree.exit_code;
}

}  // namespace

}  // namespace gemel::cli

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    gemel::cli::catch_interrupts();
    try {
        return gemel::cli::run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "gemel: a mistake in gemel itself ({}): please report it\n", error.what());
        return gemel::cli::kExitFailed;
    }
}
