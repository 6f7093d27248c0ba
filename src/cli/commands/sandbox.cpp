// gemel sandbox ...: hands over to the sandbox, a Python program of its own; gemel version.
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <unistd.h>

#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

constexpr const char* kPython = "/usr/bin/python3";

// The folder that holds the package gemel_sandbox: beside an installed gemel, or in the source tree above a
// built one.
std::string sandbox_folder() {
    std::error_code ignored;
    const auto exe = std::filesystem::read_symlink("/proc/self/exe", ignored);
    for (auto folder = exe.parent_path(); folder.has_relative_path(); folder = folder.parent_path()) {
        for (const char* candidate : {"lib/gemel/sandbox", "src/sandbox"}) {
            const auto path = folder / candidate;
            if (std::filesystem::exists(path / "gemel_sandbox" / "__main__.py", ignored))
                return path.string();
        }
    }
    return {};
}

Status run_sandbox(const std::vector<std::string>& arguments) {
    const std::string folder = sandbox_folder();
    if (folder.empty()) {
        return fail(ErrorCode::unavailable,
                    "the sandbox is not installed: install the package gemel-sandbox, or use "
                    "./dev sandbox in the source tree");
    }
    setenv("PYTHONPATH", folder.c_str(), 1);
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1);
    std::vector<std::string> words = {kPython, "-m", "gemel_sandbox"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    if (arguments.empty()) words.emplace_back("--help");
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    execv(kPython, argv.data());
    return fail(ErrorCode::unavailable,
                fmt::format("{} could not be started ({}): install python3", kPython, std::strerror(errno)));
}

Status show_version(Context& context) {
    context.terminal.print(fmt::format("gemel {} (API 1)\n", GEMEL_VERSION));
    auto server = context.get("/v1/version");
    if (!server && server.error().code == ErrorCode::unavailable) {
        context.terminal.print("gemel-clusterd: not running here\n");
        return {};
    }
    if (!server) return tl::unexpected<Error>(server.error());
    context.terminal.print(fmt::format("gemel-clusterd {} (API {}), node {}, cluster {}\n",
                                       text_of(*server, "version"), text_of(*server, "api_version"),
                                       text_of(*server, "node"), text_of(*server, "cluster")));
    return {};
}

}  // namespace

void add_sandbox_commands(CommandTree& tree) {
    CLI::App* sandbox = tree.add(&tree.app, "sandbox", "real clusters on this one machine, to try everything",
                                 {"Starts several hosts in namespaces of this machine, each with the "
                                  "product's own daemons, replication links and a "
                                  "BMC, and lets you cut their power. Needs root. What it can do, it says "
                                  "itself: gemel sandbox --help.",
                                  {{"gemel sandbox up --nodes 2 --witness", "two nodes and a witness"},
                                   {"gemel sandbox exec node1 gemel status", "a command on one of them"},
                                   {"gemel sandbox cut-power node1", "pull the plug"},
                                   {"gemel sandbox down", "leave nothing behind"}}});
    sandbox->set_help_flag();
    sandbox->fallthrough(false);  // every word after it is the sandbox's
    sandbox->prefix_command();
    tree.on(sandbox, [sandbox] { return run_sandbox(sandbox->remaining()); });

    CLI::App* version = tree.add(&tree.app, "version", "versions of this program and of gemel-clusterd",
                                 {"", {{"gemel version", "both"}}});
    tree.on(version, [&tree] { return show_version(tree.context); });
}

}  // namespace gemel::cli
