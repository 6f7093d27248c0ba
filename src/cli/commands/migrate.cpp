// gemel vm migrate; gemel node drain | undrain
#include <algorithm>
#include <chrono>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

constexpr std::int64_t kLeastRate = 1LL << 20;
constexpr std::int64_t kMostRate = 1LL << 40;
constexpr int kDefaultDowntimeMs = 300;
constexpr int kLookMs = 200;
constexpr auto kLookAtGuests = std::chrono::seconds(1);

struct MigrateOptions {
    std::string name;
    std::string node;
    std::string bandwidth;
    int downtime_ms = kDefaultDowntimeMs;
    bool no_auto_converge = false;
    bool cancel = false;
};

Result<std::int64_t> parse_rate(const std::string& text) {
    const auto rate = parse_size(text);
    if (rate && *rate >= kLeastRate && *rate <= kMostRate) return rate;
    return fail(
        ErrorCode::invalid_argument,
        fmt::format("a bandwidth of '{}' is not possible: 1M to 1T bytes a second is expected, like 100M",
                    text));
}

// "web1 runs on node2 now; it paused for 84 ms"
std::string moved_words(const std::string& name, const Json& result) {
    std::string line = fmt::format("{} runs on {} now", name, text_of(result, "node", "the other node"));
    if (has(result, "downtime_ms"))
        line += fmt::format("; it paused for {}", human_duration(number_of(result, "downtime_ms")));
    return line + "\n";
}

// The wish is committed at once; whether the guest stays is known when its migration has ended.
Status cancel(Context& context, const std::string& name) {
    const auto asked = context.change("POST", fmt::format("/v1/vms/{}/migrate-cancel", name), Json::object(),
                                      "cancelling the migration of " + name);
    if (!asked) return tl::unexpected<Error>(asked.error());
    Progress progress(context.terminal);
    for (;;) {
        const auto vm = context.get("/v1/vms/" + name);
        if (!vm) return tl::unexpected<Error>(vm.error());
        const Json& migration = object_of(*vm, "migration");
        // one that is not cancelled was begun by somebody else after ours had ended
        if (migration.empty() || !flag_of(migration, "cancel")) {
            context.terminal.print(
                fmt::format("{} runs on {}; its migration is over\n", name, text_of(*vm, "node", "no node")));
            return {};
        }
        if (interrupted()) {
            return fail(ErrorCode::timed_out, fmt::format("stopped waiting; the migration of {} is being "
                                                          "given up: 'gemel vm show {}' says where it runs",
                                                          name, name));
        }
        progress.show("giving up the migration of " + name, "");
        wait_ms(kLookMs);
    }
}

Status migrate(Context& context, const MigrateOptions& options) {
    const std::string& name = options.name;
    if (auto good = check_name("guest", name); !good) return good;
    Json body = Json::object();
    if (!options.node.empty()) {
        if (auto good = check_name("node", options.node); !good) return good;
        body["node"] = options.node;
    }
    if (!options.bandwidth.empty()) {
        const auto rate = parse_rate(options.bandwidth);
        if (!rate) return tl::unexpected<Error>(rate.error());
        body["bandwidth_bytes"] = *rate;
    }
    if (options.downtime_ms != kDefaultDowntimeMs) body["downtime_ms"] = options.downtime_ms;
    if (options.no_auto_converge) body["auto_converge"] = false;
    if (options.cancel) {
        if (!body.empty() || context.json)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("--cancel stands alone: gemel vm migrate {} --cancel", name));
        return cancel(context, name);
    }
    auto operation = context.begin("POST", fmt::format("/v1/vms/{}/migrate", name), std::move(body));
    if (!operation) return tl::unexpected<Error>(operation.error());
    const auto goes_on = [&] {
        return fmt::format(
            "stopped waiting; {} goes on moving: 'gemel status --watch' shows how far it is, "
            "'gemel vm migrate {} --cancel' keeps it where it is",
            name, name);
    };
    operation = context.follow(std::move(*operation), {"moving " + name, true, goes_on, {}});
    if (!operation) return tl::unexpected<Error>(operation.error());
    const auto result = outcome_of(*operation);
    if (!result) return tl::unexpected<Error>(result.error());
    if (context.json) {
        context.print_json(*operation);
    } else {
        context.terminal.print(moved_words(name, *result));
    }
    return {};
}

// What a drain has done so far, told as it happens: the guests move by operations of their own.
class DrainWatch {
  public:
    DrainWatch(Context& context, std::string node) : context_(context), node_(std::move(node)) {}

    // What was over before the drain is not its doing.
    Status begin() {
        auto operations = context_.get("/v1/operations");
        if (!operations) return tl::unexpected<Error>(operations.error());
        for (const Json& operation : list_of(*operations, "operations"))
            if (text_of(operation, "state") != "running") told_.insert(text_of(operation, "id"));
        look_at_guests();
        return {};
    }

    // Says what is new; answers what is going on, for progress.
    std::string look(const Json& drain, Progress& progress) {
        const auto now = std::chrono::steady_clock::now();
        if (!looked_ || now - *looked_ >= kLookAtGuests) {
            look_at_operations(&progress);
            look_at_guests();
            looked_ = std::chrono::steady_clock::now();
        }
        const std::string step = text_of(drain, "step");
        if (step.rfind("waiting", 0) == 0 && step != waits_) {
            waits_ = step;
            progress.clear();
            context_.terminal.note(fmt::format("still on {}: {}; {}", node_, join(left_), step));
        }
        return moving_.empty() ? step : moving_;
    }

    void end() {
        look_at_operations(nullptr);
        look_at_guests();
    }

    // "; still on node1: web1, app2", or nothing
    std::string what_is_left() const {
        return left_.empty() ? "" : fmt::format("; still on {}: {}", node_, join(left_));
    }

  private:
    static std::string join(const std::set<std::string>& names) {
        std::string out;
        for (const auto& name : names) out += (out.empty() ? "" : ", ") + name;
        return out.empty() ? "no guest" : out;
    }

    void look_at_operations(Progress* progress) {
        moving_.clear();
        const auto operations = context_.get("/v1/operations");
        if (!operations) return;  // shown is what was known before; the wait itself notices a long silence
        for (const Json& operation : list_of(*operations, "operations")) {
            const std::string object = text_of(operation, "object");
            const std::string guest = object.substr(std::min(object.size(), std::size_t{3}));  // "vm/"
            if (text_of(operation, "kind") != "vm.migrate" || !here_.contains(guest)) continue;
            const std::string state = text_of(operation, "state");
            if (state == "running") moving_ = fmt::format("{}, {}", guest, text_of(operation, "step"));
            const bool ended = state == "succeeded" || state == "failed";
            if (!ended || !told_.insert(text_of(operation, "id")).second) continue;
            if (progress != nullptr) progress->clear();
            tell(guest, operation);
        }
    }

    void tell(const std::string& guest, const Json& operation) {
        if (text_of(operation, "state") == "failed") {
            context_.terminal.note(fmt::format("{} was not moved: {}", guest,
                                               text_of(object_of(operation, "error"), "message")));
        } else if (!context_.json) {
            context_.terminal.print(moved_words(guest, object_of(operation, "result")));
        }
    }

    void look_at_guests() {
        const auto vms = context_.get("/v1/vms");
        if (!vms) return;
        left_.clear();
        for (const Json& vm : list_of(*vms, "vms"))
            if (text_of(vm, "node") == node_) left_.insert(text_of(vm, "name"));
        here_.insert(left_.begin(), left_.end());
    }

    Context& context_;
    std::string node_;
    std::set<std::string> told_;  // operations
    std::set<std::string> here_;  // guests that are or were on the node
    std::set<std::string> left_;  // guests that are
    std::string moving_;          // "web1, copying memory ..."
    std::string waits_;
    std::optional<std::chrono::steady_clock::time_point> looked_;
};

Status drain(Context& context, const std::string& node) {
    if (auto good = check_name("node", node); !good) return good;
    DrainWatch watch(context, node);
    if (auto begun = watch.begin(); !begun) return begun;
    auto operation = context.begin("POST", fmt::format("/v1/nodes/{}/drain", node), Json::object());
    if (!operation) return tl::unexpected<Error>(operation.error());
    const auto goes_on = [&] {
        return fmt::format(
            "stopped waiting; guests go on moving away from {}: 'gemel status --watch' shows "
            "how far they are, 'gemel node undrain {}' ends it{}",
            node, node, watch.what_is_left());
    };
    const auto detail = [&](const Json& seen, Progress& progress) { return watch.look(seen, progress); };
    operation = context.follow(std::move(*operation), {"draining " + node, true, goes_on, detail});
    if (!operation) return tl::unexpected<Error>(operation.error());
    watch.end();
    if (const auto done = outcome_of(*operation); !done)
        return fail(done.error().code, done.error().message + watch.what_is_left());
    if (context.json) {
        context.print_json(*operation);
    } else {
        context.terminal.print(fmt::format(
            "{} is drained: no guest runs there, and none is started there until 'gemel node undrain {}'\n",
            node, node));
    }
    return {};
}

Status undrain(Context& context, const std::string& node) {
    if (auto good = check_name("node", node); !good) return good;
    auto done = context.change("POST", fmt::format("/v1/nodes/{}/undrain", node), Json::object(),
                               "undraining " + node);
    if (!done) return tl::unexpected<Error>(done.error());
    context.terminal.print(
        fmt::format("{} takes guests again; those that moved stay where they are\n", node));
    return {};
}

}  // namespace

void add_migrate_command(CommandTree& tree, CLI::App* vm) {
    auto options = std::make_shared<MigrateOptions>();
    CLI::App* command = tree.add(
        vm, "migrate", "move a running guest live to the other node",
        {"The guest goes on while its memory is copied, pauses for a moment and runs on the other node, on "
         "the "
         "copies of its disks there, all of which must be UpToDate. Until it runs there nothing is given up: "
         "if "
         "anything fails before, it stays where it is and the command says why. Its memory goes over the "
         "replication link and is not encrypted. Interrupting the command does not stop the move; --cancel "
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
                     "milliseconds of pause to aim at; a shorter one takes longer to reach")
        ->check(CLI::Range(1, 60000))
        ->capture_default_str();
    command->add_flag("--no-auto-converge", options->no_auto_converge,
                      "never slow the guest down, also where it writes faster than its memory can be copied");
    command->add_flag("--cancel", options->cancel, "give up a move that is under way");
    tree.add_json_option(command);
    tree.on(command, [&tree, options] { return migrate(tree.context, *options); });
}

void add_drain_commands(CommandTree& tree, CLI::App* node) {
    auto name = std::make_shared<std::string>();
    CLI::App* drained = tree.add(
        node, "drain", "move all guests away and start none there",
        {"For work on a server: its guests move live to the other node, one after the other. Each is named "
         "as "
         "it arrives, and the command returns when the node is empty. A guest that cannot be moved now is "
         "named with the reason and tried again every half minute. Interrupting the command does not stop "
         "the "
         "drain; 'gemel node undrain' does. Volumes are mirrored to the node as before until it is powered "
         "off.",
         {{"gemel node drain node1", "before its memory is replaced"}}});
    drained->add_option("NODE", *name, "the node's name")->required();
    tree.add_json_option(drained);
    tree.on(drained, [&tree, name] { return drain(tree.context, *name); });
    CLI::App* back = tree.add(node, "undrain", "let guests be started on a node again",
                              {"Guests that moved away stay where they are: 'gemel vm migrate' brings them "
                               "back. A drain that is under way ends.",
                               {{"gemel node undrain node1", "when the work is done"}}});
    back->add_option("NODE", *name, "the node's name")->required();
    tree.on(back, [&tree, name] { return undrain(tree.context, *name); });
}

}  // namespace gemel::cli
