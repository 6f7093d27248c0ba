#include "cli/status_screen.hpp"

#include <algorithm>
#include <functional>
#include <map>

#include <fmt/format.h>

#include "cli/fields.hpp"
#include "cli/text.hpp"

namespace gemel::cli {

namespace {

constexpr std::size_t kWidth = 80;

struct Row {
    std::vector<Cell> cells;
    bool attention = false;
    std::string note;  // a line of its own below, may be empty
};

bool several_nodes(const Json& status) {
    return list_of(status, "nodes").size() > 1;
}

// "2026-11-23T02:14:07Z" as "2026-11-23 02:14:07 UTC"
std::string human_time(const std::string& time) {
    if (time.size() < 20 || time[10] != 'T') return time;
    return time.substr(0, 10) + " " + time.substr(11, 8) + " UTC";
}

bool as_wanted(const Json& vm) {
    const std::string state = text_of(vm, "state", "unknown");
    const bool runs = state == "running" || state == "idle";
    return runs == (text_of(vm, "desired") == "running") && text_of(vm, "phase").empty();
}

// Everything is where and as it should be; where the server names no problem but this is false, something is
// on its way.
bool settled(const Json& status) {
    const auto every = [&](const char* list, const std::function<bool(const Json&)>& good) {
        const Json& items = list_of(status, list);
        return std::all_of(items.begin(), items.end(), good);
    };
    const Json& voters = list_of(object_of(status, "store"), "voters");
    return text_of(object_of(status, "store"), "state") == "quorate" &&
           std::all_of(voters.begin(), voters.end(),
                       [](const Json& voter) { return text_of(voter, "state") == "up"; }) &&
           every("nodes", [](const Json& node) { return text_of(node, "state") == "online"; }) &&
           every("volumes", [](const Json& volume) { return text_of(volume, "state") == "ok"; }) &&
           every("vms", as_wanted) && list_of(status, "operations").empty();
}

std::string verdict(const Json& status, Colour& colour) {
    std::map<std::string, int> count;
    for (const Json& problem : list_of(status, "problems")) ++count[text_of(problem, "severity")];
    std::string words;
    const auto add = [&](const char* severity, const char* one, const char* many) {
        const int n = count[severity];
        if (n == 0) return;
        words += fmt::format("{}{} {}", words.empty() ? "" : ", ", n, n == 1 ? one : many);
    };
    add("critical", "critical", "critical");
    add("error", "error", "errors");
    add("warning", "warning", "warnings");
    colour = count["critical"] + count["error"] > 0 ? Colour::bad : Colour::warn;
    if (!words.empty()) return words;
    colour = Colour::good;
    if (!settled(status)) return "no problems; work is under way";
    words = "all is well";
    for (const Json& node : list_of(status, "nodes")) {
        if (!flag_of(node, "drained")) continue;
        words += fmt::format("; {} is drained", text_of(node, "name"));
        colour = Colour::warn;
    }
    return words;
}

std::string headline(const Json& status, bool colours) {
    Colour colour = Colour::plain;
    const std::string left = text_of(object_of(status, "cluster"), "name", "cluster") + ": ";
    const std::string words = verdict(status, colour);
    const Json& as_of = object_of(status, "as_of");
    const std::string right =
        fmt::format("seen from {}, {}", text_of(status, "node", "?"), human_time(text_of(as_of, "time")));
    const std::size_t used = left.size() + words.size() + right.size();
    std::string out = paint(Colour::bold, left, colours) + paint(colour, words, colours) +
                      std::string(used + 2 < kWidth ? kWidth - used : 2, ' ') + right + "\n";
    if (flag_of(as_of, "stale")) {
        out += paint(Colour::bad, "NOT CURRENT: the store cannot be read now; this is the last known state.",
                     colours) +
               "\n";
    }
    return out;
}

std::string indented(const char* title, const std::string& text) {
    std::string out;
    bool first = true;
    for (const auto& line : wrap(text, kWidth - 8)) {
        out += fmt::format("   {:<5}{}\n", first ? title : "", line);
        first = false;
    }
    return out;
}

std::string problems(const Json& status, bool colours) {
    std::string out;
    int number = 0;
    for (const Json& problem : list_of(status, "problems")) {
        const std::string severity = text_of(problem, "severity");
        std::string title = severity;
        std::transform(title.begin(), title.end(), title.begin(),
                       [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
        const std::string what = text_of(problem, "object") + ": " + text_of(problem, "what");
        const Colour colour = severity == "warning" ? Colour::warn : Colour::bad;
        const std::string lead = fmt::format("{}. {}", ++number, title);
        bool first = true;
        for (const auto& line : wrap(what, kWidth - lead.size() - 2)) {
            out += first ? paint(colour, lead, colours) : std::string(lead.size(), ' ');
            out += "  " + line + "\n";
            first = false;
        }
        out += indented("why", text_of(problem, "why"));
        const std::string command = text_of(problem, "next_command");
        if (command.empty()) {
            out += indented("do", "nothing; it is being dealt with");
        } else {
            out += "   do   " + paint(Colour::bold, command, colours) + "\n";
        }
    }
    return out.empty() ? out : "\n" + out;
}

std::string store_lines(const Json& status, bool colours) {
    const Json& store = object_of(status, "store");
    const std::string state = text_of(store, "state", "unknown");
    std::string voters;
    std::size_t plain_width =
        std::string("; voters ;").size();  // of the line up to the coordinator, without escapes
    for (const Json& voter : list_of(store, "voters")) {
        const std::string voter_state = text_of(voter, "state", "unknown");
        const bool up = voter_state == "up";
        std::string name = text_of(voter, "name");
        if (text_of(voter, "kind") == "witness" && name != "witness") name += " (witness)";
        plain_width += (voters.empty() ? 0 : 2) + name.size() + 1 + voter_state.size();
        voters += (voters.empty() ? "" : ", ") + name + " " +
                  paint(up ? Colour::plain : Colour::bad, voter_state, colours);
    }
    const std::string coordinator =
        "coordinator " + text_of(object_of(status, "coordinator"), "node", "none");
    const std::string line =
        fmt::format("{}  {}; voters {};", paint(Colour::bold, "STORE", colours),
                    paint(state == "quorate" ? Colour::good : Colour::bad, state, colours),
                    voters.empty() ? "unknown" : voters);
    const bool fits = 7 + state.size() + plain_width + coordinator.size() + 1 <= kWidth;
    return fmt::format("\n{}{}{}\n", line, fits ? " " : "\n       ", coordinator);
}

// All rows, or where they are too many those that need attention first and a line that says what was left
// out.
std::string table_of(std::vector<std::string> header, std::vector<Row> rows, const ScreenOptions& options) {
    const std::size_t limit = options.rows_per_table == 0 ? rows.size() : options.rows_per_table;
    // a list that fits keeps its order, so that the eye finds the same object in the same place
    if (rows.size() > limit) {
        std::stable_sort(rows.begin(), rows.end(),
                         [](const Row& a, const Row& b) { return a.attention > b.attention; });
    }
    const std::size_t shown = std::min(limit, rows.size());
    Table table(std::move(header));
    for (std::size_t i = 0; i < shown; ++i) table.add(rows[i].cells);
    std::string out = "\n";
    std::size_t i = 0;
    std::string text = table.render(options.colours);
    std::size_t begin = text.find('\n') + 1;
    out += text.substr(0, begin);
    for (; i < shown; ++i) {
        const std::size_t end = text.find('\n', begin) + 1;
        out += text.substr(begin, end - begin);
        begin = end;
        for (const auto& line : wrap(rows[i].note, kWidth - 4)) out += "    " + line + "\n";
    }
    if (shown < rows.size()) {
        const auto bad = std::count_if(rows.begin() + static_cast<std::ptrdiff_t>(shown), rows.end(),
                                       [](const Row& row) { return row.attention; });
        out += bad == 0
                   ? fmt::format("+ {} more, all in order ('gemel status --all' shows them)\n",
                                 rows.size() - shown)
                   : fmt::format("+ {} more, {} of them need attention ('gemel status --all' shows them)\n",
                                 rows.size() - shown, bad);
    }
    return out;
}

Colour node_colour(const Json& node) {
    const std::string state = text_of(node, "state", "unknown");
    if (state == "online") return flag_of(node, "drained") ? Colour::warn : Colour::good;
    return state == "joining" || state == "left" ? Colour::warn : Colour::bad;
}

std::string node_table(const Json& status, const ScreenOptions& options) {
    std::vector<Row> rows;
    std::map<std::string, int> guests;
    for (const Json& vm : list_of(status, "vms")) ++guests[text_of(vm, "node")];
    for (const Json& node : list_of(status, "nodes")) {
        const std::string name = text_of(node, "name");
        const std::string state = text_of(node, "state", "unknown");
        const std::string links = link_words(node);
        const std::string fencing = several_nodes(status) ? fencing_words(node) : "-";
        const bool fencing_bad = fencing != "-" && !flag_of(object_of(node, "fencing"), "protected");
        const bool links_bad = links.find("down") != std::string::npos;
        std::string memory = "-";
        if (has(node, "memory_free_bytes")) memory = human_size(number_of(node, "memory_free_bytes"));
        std::string disk = "-";
        const Json& pools = list_of(node, "pools");
        if (!pools.empty() && has(pools[0], "free_bytes"))
            disk = human_size(number_of(pools[0], "free_bytes"));
        Row row;
        row.attention = state != "online" || fencing_bad || links_bad;
        row.cells = {{name, Colour::plain},
                     {node_words(node), node_colour(node)},
                     {flag_of(node, "voter") ? "yes" : "no", Colour::plain},
                     {links, links_bad ? Colour::warn : Colour::plain},
                     {fencing, fencing_bad ? Colour::bad : Colour::plain},
                     {std::to_string(guests[name]), Colour::plain},
                     {memory, Colour::plain},
                     {disk, Colour::plain}};
        rows.push_back(std::move(row));
    }
    return table_of({"NODE", "STATE", "VOTER", "LINKS", "FENCING", "GUESTS", "FREE RAM", "FREE DISK"},
                    std::move(rows), options);
}

std::string volume_note(const Json& volume) {
    const Json& owner = object_of(volume, "owner");
    const std::string lease = text_of(owner, "lease");
    std::string note;
    const auto add = [&](const std::string& words) { note += (note.empty() ? "" : "; ") + words; };
    if (text_of(volume, "state") == "frozen") add("writes wait for a decision, nothing is lost");
    if (lease == "lapsed")
        add(fmt::format("the lease of {} has lapsed, it serves nothing", text_of(owner, "node")));
    if (lease == "revoking") add(fmt::format("the lease of {} is being taken back", text_of(owner, "node")));
    const Json& replicas = list_of(volume, "replicas");
    if (std::any_of(replicas.begin(), replicas.end(),
                    [](const Json& replica) { return text_of(replica, "connection") == "StandAlone"; })) {
        add("StandAlone, the replicas are kept apart");
    }
    return note;
}

std::string volume_table(const Json& status, const ScreenOptions& options) {
    std::vector<Row> rows;
    for (const Json& volume : list_of(status, "volumes")) {
        const std::string state = text_of(volume, "state", "unknown");
        std::string replicas;
        for (const Json& replica : list_of(volume, "replicas")) {
            replicas += (replicas.empty() ? "" : ", ") + replica_words(volume, replica);
        }
        const bool busy = state == "resync" || state == "creating" || state == "deleting";
        Row row;
        row.note = volume_note(volume);
        row.attention = state != "ok" || !row.note.empty();
        row.cells = {{text_of(volume, "name"), Colour::plain},
                     {human_size(number_of(volume, "size_bytes")), Colour::plain},
                     {state, state == "ok" ? Colour::good : (busy ? Colour::warn : Colour::bad)},
                     {replicas, Colour::plain}};
        rows.push_back(std::move(row));
    }
    if (rows.empty())
        return "\nNo volumes yet: 'gemel vm import NAME IMAGE' or 'gemel volume create NAME SIZE'.\n";
    return table_of({"VOLUME", "SIZE", "STATE", "REPLICAS (* serves the guest)"}, std::move(rows), options);
}

std::string vm_table(const Json& status, const ScreenOptions& options) {
    std::vector<Row> rows;
    for (const Json& vm : list_of(status, "vms")) {
        const std::string state = text_of(vm, "state", "unknown");
        const bool runs = state == "running" || state == "idle";
        std::string disks;
        for (const Json& disk : list_of(vm, "disks")) {
            disks += (disks.empty() ? "" : ",") + text_of(disk, "volume");
        }
        Row row;
        row.attention = !as_wanted(vm);
        if (row.attention) row.note = text_of(vm, "why");
        const Colour colour = row.attention ? Colour::bad : (runs ? Colour::good : Colour::plain);
        row.cells = {{text_of(vm, "name"), Colour::plain},
                     {vm_words(vm), colour},
                     {text_of(vm, "node", "-"), Colour::plain},
                     {std::to_string(number_of(vm, "vcpus")), Colour::plain},
                     {human_size(number_of(vm, "memory_bytes")), Colour::plain},
                     {disks, Colour::plain}};
        rows.push_back(std::move(row));
    }
    if (rows.empty()) return "";
    return table_of({"GUEST", "STATE", "NODE", "CPUS", "MEMORY", "VOLUMES"}, std::move(rows), options);
}

// "resync volume/web1, node1 to node2": whoever of the two it is that knows how far it is.
std::string resync_line(const Json& volume, const Json& replica) {
    const Json& resync = object_of(replica, "resync");
    const std::int64_t total = number_of(resync, "total_bytes");
    const std::int64_t done = number_of(resync, "done_bytes");
    if (total <= 0) return "";
    std::string here = text_of(replica, "node");
    std::string other;
    for (const Json& one : list_of(volume, "replicas"))
        if (text_of(one, "node") != here) other = text_of(one, "node");
    if (text_of(replica, "connection") != "SyncSource") std::swap(here, other);
    std::string line = fmt::format("resync volume/{}, {} to {}: {} % of {}", text_of(volume, "name"), here,
                                   other, done * 100 / total, human_size(total));
    const std::int64_t rate = number_of(resync, "rate_bytes_per_s");
    if (rate > 0 && total >= done)
        line +=
            fmt::format(", {}/s, {} left", human_size(rate), human_duration((total - done) / rate * 1000));
    return line;
}

std::string operation_line(const Json& operation) {
    const Json& progress = object_of(operation, "progress");
    const std::int64_t total = number_of(progress, "total");
    std::string words = text_of(operation, "step");
    if (total > 0) {
        words += fmt::format("{}{} %", words.empty() ? "" : ", ", number_of(progress, "done") * 100 / total);
    }
    return fmt::format("{} {}{}{}", text_of(operation, "kind"), text_of(operation, "object"),
                       words.empty() ? "" : ": ", words);
}

std::string under_way(const Json& status, bool colours) {
    std::string out;
    const auto add = [&](const std::string& text) {
        bool first = true;
        for (const auto& line : wrap(text, kWidth - 4)) {
            out += (first ? "" : "    ") + line + "\n";
            first = false;
        }
    };
    for (const Json& operation : list_of(status, "operations")) add(operation_line(operation));
    for (const Json& volume : list_of(status, "volumes"))
        for (const Json& replica : list_of(volume, "replicas")) add(resync_line(volume, replica));
    return out.empty() ? out : "\n" + paint(Colour::bold, "UNDER WAY", colours) + "\n" + out;
}

}  // namespace

std::string replica_words(const Json& volume, const Json& replica) {
    const std::string node = text_of(replica, "node");
    std::string words = node + " " + text_of(replica, "disk", "Unknown");
    const Json& resync = object_of(replica, "resync");
    const std::int64_t total = number_of(resync, "total_bytes");
    if (total > 0) {
        const std::int64_t done = number_of(resync, "done_bytes");
        const std::int64_t rate = number_of(resync, "rate_bytes_per_s");
        words += fmt::format(" {}%", done * 100 / total);
        if (rate > 0 && total >= done)
            words += fmt::format(" {} left", human_duration((total - done) / rate * 1000));
    }
    if (text_of(object_of(volume, "owner"), "node") == node) words += "*";
    return words;
}

std::string fencing_words(const Json& node) {
    std::string words;
    for (const Json& rung : list_of(object_of(node, "fencing"), "rungs")) {
        const std::string kind = text_of(rung, "kind");
        const std::string state = text_of(rung, "state");
        if ((kind != "fence-device" && kind != "watchdog") || state == "absent") continue;
        const std::string name = kind == "watchdog" ? kind : text_of(rung, "device", "device");
        words +=
            fmt::format("{}{} {}", words.empty() ? "" : ", ", name, state == "failing" ? "FAILING" : state);
    }
    return words.empty() ? "none" : words;
}

std::string link_words(const Json& node) {
    std::size_t up = 0;
    std::size_t down = 0;
    std::string names;
    const Json& links = list_of(node, "links");
    for (const Json& link : links) {
        const std::string state = text_of(link, "state");
        if (state == "up") ++up;
        if (state == "down") {
            ++down;
            names += (names.empty() ? "" : ",") + text_of(link, "name");
        }
    }
    if (links.empty()) return "-";
    if (up + down == 0) return "unknown";
    if (down == 0)
        return up == links.size() ? fmt::format("{} up", up) : fmt::format("{} of {} up", up, links.size());
    if (up == 0) return down == links.size() ? "all down" : "none up";
    return names.size() <= 12 ? fmt::format("{} down", names)
                              : fmt::format("{} of {} down", down, links.size());
}

std::string node_words(const Json& node) {
    const std::string state = text_of(node, "state", "unknown");
    if (!flag_of(node, "drained")) return state;
    return state == "online" ? "drained" : state + ", drained";
}

std::string vm_words(const Json& vm) {
    const std::string state = text_of(vm, "state", "unknown");
    const std::string phase = text_of(vm, "phase");
    const Json& migration = object_of(vm, "migration");
    if (!migration.empty() && phase.empty()) {
        const std::string words =
            flag_of(migration, "cancel") ? "cancelling its migration to " : "migrating to ";
        return (state == "running" ? "" : state + ", ") + words + text_of(migration, "node", "?");
    }
    return phase.empty() ? state : fmt::format("{} ({})", state, phase);
}

std::string render_status(const Json& status, const ScreenOptions& options) {
    return headline(status, options.colours) + problems(status, options.colours) +
           store_lines(status, options.colours) + node_table(status, options) +
           volume_table(status, options) + vm_table(status, options) + under_way(status, options.colours);
}

}  // namespace gemel::cli
