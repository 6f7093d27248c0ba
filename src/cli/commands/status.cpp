// gemel status: one screen, or the API's answer as JSON, once or again and again.
#include <charconv>
#include <ctime>
#include <optional>

#include <fmt/format.h>

#include "adapters/system/boot_clock.hpp"
#include "cli/commands/commands.hpp"
#include "cli/resync_rate.hpp"
#include "cli/status_screen.hpp"

namespace gemel::cli {

namespace {

struct StatusOptions {
    std::string seconds;  // of --watch, empty: the default
    bool all = false;
    int count = 0;  // how many looks; 0: without end
};

constexpr int kWatchMs = 2000;
constexpr double kLeastSeconds = 0.2;
constexpr double kMostSeconds = 3600;

Result<int> watch_interval_ms(const std::string& text) {
    if (text.empty()) return kWatchMs;
    double value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    const bool good = error == std::errc{} && stop == end && value >= kLeastSeconds && value <= kMostSeconds;
    if (good) return static_cast<int>(value * 1000);
    return fail(ErrorCode::invalid_argument,
                fmt::format("'{}' is no number of seconds between two looks: {} to {} is expected", text,
                            kLeastSeconds, kMostSeconds));
}

// For human eyes: when a block was printed.
std::string time_stamp() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    return fmt::format("== {:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC ==\n", parts.tm_year + 1900,
                       parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::string screen_of(Context& context, const StatusOptions& options, const Json& status) {
    ScreenOptions screen;
    screen.colours = context.terminal.output_colours();
    if (options.all) screen.rows_per_table = 0;
    return render_status(status, screen);
}

Status show_once(Context& context, const StatusOptions& options) {
    auto status = context.get("/v1/status");
    if (!status) return tl::unexpected<Error>(status.error());
    if (context.json) {
        context.print_json(*status);
    } else {
        context.terminal.print(screen_of(context, options, *status));
    }
    return {};
}

// One look as text. While watching, an API that does not answer is something to be shown, not the end.
std::string look(Context& context, const StatusOptions& options, ResyncRates& rates) {
    auto status = context.get("/v1/status");
    if (!status && context.json) {
        const Error& error = status.error();
        const Json said = {{"error", {{"code", to_string(error.code)}, {"message", error.message}}}};
        return said.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    }
    if (!status) return fmt::format("NO ANSWER: {}\n", status.error().message);
    rates.complete(*status, boot_now());
    return context.json ? status->dump() + "\n" : screen_of(context, options, *status);
}

Status watch(Context& context, const StatusOptions& options) {
    const auto interval_ms = watch_interval_ms(options.seconds);
    if (!interval_ms) return tl::unexpected<Error>(interval_ms.error());
    ResyncRates rates;
    std::optional<FullScreen> full;
    if (context.terminal.output_is_terminal() && !context.json) full.emplace(context.terminal);
    for (int looks = 1; !interrupted() && !context.terminal.output_gone(); ++looks) {
        const std::string text = look(context, options, rates);
        if (full) {
            full->draw(text);
        } else {
            const std::string stamp = context.json ? "" : (looks == 1 ? "" : "\n") + time_stamp();
            context.terminal.print(stamp + text);
        }
        if (options.count != 0 && looks >= options.count) break;
        wait_for_redraw(*interval_ms);
    }
    return {};
}

}  // namespace

void add_status_command(CommandTree& tree) {
    auto options = std::make_shared<StatusOptions>();
    CLI::App* status = tree.add(
        &tree.app, "status", "the whole cluster on one screen, what is wrong first",
        {"Shows what is wrong and the exact command that helps, then the store, nodes, volumes, guests and "
         "what is under way. Objects that need attention come first; long lists are shortened unless --all "
         "is given. A line that begins with NOT CURRENT means that the store cannot be read now and what "
         "follows is the last known state. With --watch the screen is drawn again and again; where standard "
         "output is not a terminal, a block with a time is printed each time, with --json an object a line.",
         {{"gemel status", "look"},
          {"gemel status --watch", "keep looking, every two seconds; Ctrl-C ends it"},
          {"gemel status --watch 10 --count 360 >night.log", "an hour, for reading later"},
          {"gemel status --json | jq '.problems[]'", "what is wrong, for a program"}}});
    CLI::Option* again =
        status
            ->add_option("--watch", options->seconds,
                         "draw again every so many seconds (2 if none are given) until interrupted")
            ->expected(0, 1);
    status->add_option("--count", options->count, "with --watch: how many times; then it ends")
        ->check(CLI::Range(1, 1000000))
        ->needs(again);
    status->add_flag("--all", options->all, "all objects, however many");
    tree.add_json_option(status);
    tree.on(status, [&tree, options, again]() -> Status {
        return again->count() > 0 ? watch(tree.context, *options) : show_once(tree.context, *options);
    });
}

}  // namespace gemel::cli
