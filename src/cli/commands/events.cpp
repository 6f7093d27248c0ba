// gemel events [-f]; gemel explain vm | node | volume NAME
#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

constexpr int kReconnectMs = 1000;

struct EventOptions {
    bool follow = false;
    int count = 50;
};

std::string event_line(const Json& event, bool colours) {
    const std::string severity = text_of(event, "severity");
    const Colour colour =
        severity == "info" ? Colour::plain : (severity == "warning" ? Colour::warn : Colour::bad);
    std::string time = text_of(event, "time");
    if (time.size() > 19) time = time.substr(0, 10) + " " + time.substr(11, 8);
    return fmt::format("{}  {}  {}: {}\n", time, paint(colour, fmt::format("{:<8}", severity), colours),
                       text_of(event, "object"), text_of(event, "message"));
}

void show_event(Context& context, const Json& event) {
    context.terminal.print(context.json ? event.dump() + "\n"
                                        : event_line(event, context.terminal.output_colours()));
}

// Until interrupted; where the stream breaks, it is taken up again after the last event that was shown.
Status follow(Context& context, std::int64_t after) {
    bool said = false;
    while (!interrupted()) {
        auto api = context.open();
        if (!api) return tl::unexpected<Error>(api.error());
        auto done =
            (*api)->stream(fmt::format("/v1/events/stream?after={}", after), [&](const std::string& line) {
                const Json event = Json::parse(line, nullptr, false);
                if (event.is_object()) {
                    show_event(context, event);
                    after = std::max(after, number_of(event, "sequence", after));
                }
                said = false;
                return !interrupted();
            });
        if (interrupted()) break;
        if (!done && done.error().code != ErrorCode::unavailable &&
            done.error().code != ErrorCode::timed_out && done.error().code != ErrorCode::io_error) {
            return done;
        }
        if (!said) context.terminal.note("the stream of events ended; waiting for gemel-clusterd");
        said = true;
        wait_ms(kReconnectMs);
    }
    return {};
}

Status show_events(Context& context, const EventOptions& options) {
    auto answer = context.get(fmt::format("/v1/events?limit={}", options.count));
    if (!answer) return tl::unexpected<Error>(answer.error());
    std::int64_t last = 0;
    for (const Json& event : list_of(*answer, "events")) {
        show_event(context, event);
        last = std::max(last, number_of(event, "sequence"));
    }
    return options.follow ? follow(context, last) : Status{};
}

Status explain(Context& context, const std::string& kind, const std::string& name) {
    if (auto good = check_name(kind == "vm" ? "guest" : kind, name); !good) return good;
    auto answer = context.get(fmt::format("/v1/explain/{}/{}", kind, name));
    if (!answer) return tl::unexpected<Error>(answer.error());
    if (context.json) {
        context.print_json(*answer);
        return {};
    }
    const bool colours = context.terminal.output_colours();
    std::string out = fmt::format("{}: {}\n", paint(Colour::bold, text_of(*answer, "object"), colours),
                                  text_of(*answer, "now"));
    const auto lines = [&](const std::string& text) {
        bool first = true;
        for (const auto& line : wrap(text, 74)) {
            out += (first ? "  - " : "    ") + line + "\n";
            first = false;
        }
    };
    out += paint(Colour::bold, "because", colours) + "\n";
    for (const Json& fact : list_of(*answer, "because")) {
        if (fact.is_string()) lines(printable(fact.get<std::string>()));
    }
    if (!list_of(*answer, "next").empty())
        out += paint(Colour::bold, "what would happen next", colours) + "\n";
    for (const Json& step : list_of(*answer, "next")) {
        lines(fmt::format("{}: {}", text_of(step, "when"), text_of(step, "then")));
        if (has(step, "next_command")) out += "    do   " + text_of(step, "next_command") + "\n";
    }
    context.terminal.print(out);
    return {};
}

}  // namespace

void add_event_commands(CommandTree& tree) {
    auto options = std::make_shared<EventOptions>();
    CLI::App* events =
        tree.add(&tree.app, "events", "what happened, oldest first",
                 {"The cluster keeps a bounded number of events. Times are wall-clock and for humans; the "
                  "order of the lines is the order of the decisions.",
                  {{"gemel events", "the last 50"},
                   {"gemel events -f", "and everything that follows, until Ctrl-C"},
                   {"gemel events --json | jq .message", "one JSON object a line"}}});
    events->add_flag("-f,--follow", options->follow, "go on with what happens from now on");
    events->add_option("-n,--count", options->count, "how many past events")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    tree.add_json_option(events);
    tree.on(events, [&tree, options] { return show_events(tree.context, *options); });

    CLI::App* why = tree.add(&tree.app, "explain",
                             "why an object is where and as it is, and what would happen next", {"", {}});
    why->require_subcommand(1);
    auto name = std::make_shared<std::string>();
    const std::pair<const char*, const char*> kinds[] = {
        {"vm", "guest"}, {"node", "node"}, {"volume", "volume"}};
    for (const auto& [kind, word] : kinds) {
        CLI::App* one = tree.add(
            why, kind, fmt::format("explain a {}", word),
            {fmt::format("Lists the committed and observed facts that put the {} where it is, and what the "
                         "cluster would "
                         "do if something changed.",
                         word),
             {{fmt::format("gemel explain {} {}", kind, std::string(kind) == "node" ? "node1" : "web1"),
               "why"}}});
        one->add_option(std::string(kind) == "node" ? "NODE" : "NAME", *name,
                        fmt::format("the {}'s name", word))
            ->required();
        tree.add_json_option(one);
        const std::string kind_text = kind;
        tree.on(one, [&tree, name, kind_text] { return explain(tree.context, kind_text, *name); });
    }
}

}  // namespace gemel::cli
