// gemel status: one screen, or the API's answer as JSON, once or again and again.
#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/status_screen.hpp"

namespace gemel::cli {

namespace {

struct StatusOptions {
    bool watch = false;
    bool all = false;
    int interval_s = 2;
};

Result<std::string> one_screen(Context& context, const StatusOptions& options) {
    auto status = context.get("/v1/status");
    if (!status) return tl::unexpected<Error>(status.error());
    if (context.json) return status->dump(options.watch ? -1 : 2) + "\n";
    ScreenOptions screen;
    screen.colours = context.terminal.output_colours();
    if (options.all) screen.rows_per_table = 0;
    return render_status(*status, screen);
}

Status watch(Context& context, const StatusOptions& options) {
    const bool redraw = context.terminal.output_is_terminal() && !context.json;
    while (!interrupted()) {
        auto text = one_screen(context, options);
        // While watching, an API that does not answer is something to be shown, not the end.
        std::string screen = text ? *text : fmt::format("NO ANSWER: {}\n", text.error().message);
        if (!text && context.json) return tl::unexpected<Error>(text.error());
        if (redraw) {
            std::string lines = "\x1b[H";
            for (const char c : screen) lines += c == '\n' ? std::string("\x1b[K\n") : std::string(1, c);
            screen = lines + "\x1b[J";
        }
        context.terminal.print(screen);
        wait_ms(options.interval_s * 1000);
    }
    return {};
}

}  // namespace

void add_status_command(CommandTree& tree) {
    auto options = std::make_shared<StatusOptions>();
    CLI::App* status = tree.add(
        &tree.app, "status", "the whole cluster on one screen, what is wrong first",
        {"Shows what is wrong and the exact command that helps, then the store, nodes, volumes, guests and "
         "what is "
         "under way. Objects that need attention come first; long lists are shortened unless --all is given. "
         "A line that begins with NOT CURRENT means that the store cannot be read now and what follows is "
         "the last "
         "known state.",
         {{"gemel status", "look"},
          {"gemel status --watch", "keep looking; Ctrl-C ends it"},
          {"gemel status --json | jq '.problems[]'", "what is wrong, for a program"}}});
    status->add_flag("--watch", options->watch, "draw again until interrupted");
    status->add_option("--interval", options->interval_s, "seconds between two looks with --watch")
        ->check(CLI::Range(1, 3600))
        ->capture_default_str();
    status->add_flag("--all", options->all, "all objects, however many");
    tree.add_json_option(status);
    tree.on(status, [&tree, options]() -> Status {
        if (options->watch) return watch(tree.context, *options);
        auto text = one_screen(tree.context, *options);
        if (!text) return tl::unexpected<Error>(text.error());
        tree.context.terminal.print(*text);
        return {};
    });
}

}  // namespace gemel::cli
