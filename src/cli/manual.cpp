// Help screens, manual pages and the Markdown reference, all from the command tree: a command cannot be
// without them.
#include <algorithm>

#include <fmt/format.h>

#include "cli/commands/commands.hpp"

namespace gemel::cli {

namespace {

constexpr std::size_t kWidth = 79;

struct Entry {
    std::string term;
    std::string meaning;
};

const CommandDoc& doc_of(const CommandTree& tree, const CLI::App* command) {
    static const CommandDoc none;
    const auto it = tree.docs.find(command);
    return it == tree.docs.end() ? none : it->second;
}

std::string placeholder(const CLI::Option* option) {
    if (option->get_type_name() == "NAME") return "NAME";
    const std::string& long_name =
        option->get_lnames().empty() ? option->get_name() : option->get_lnames().front();
    if (long_name == "node" || long_name == "keep" || long_name == "prefer") return "NODE";
    if (long_name == "disk") return "VOLUME";
    if (long_name == "memory" || long_name == "new-disk") return "SIZE";
    if (long_name == "option") return "NAME=VALUE";
    if (long_name == "secret-file") return "NAME=FILE";
    if (long_name == "bandwidth") return "RATE";
    if (long_name == "downtime") return "MS";
    if (long_name == "watch") return "SECONDS";
    std::string upper = long_name;
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return upper;
}

std::string term_of(const CLI::Option* option) {
    std::string term;
    for (const auto& name : option->get_snames()) term += (term.empty() ? "-" : ", -") + name;
    for (const auto& name : option->get_lnames()) term += (term.empty() ? "--" : ", --") + name;
    const bool may_be_left_out = option->get_items_expected_min() == 0;
    if (option->get_items_expected_max() != 0)
        term += may_be_left_out ? fmt::format(" [{}]", placeholder(option)) : " " + placeholder(option);
    return term;
}

std::vector<Entry> arguments_of(const CLI::App* command) {
    std::vector<Entry> entries;
    for (const CLI::Option* option : command->get_options()) {
        if (option->get_positional()) entries.push_back({option->get_name(true), option->get_description()});
    }
    return entries;
}

std::vector<Entry> options_of(const CLI::App* command) {
    std::vector<Entry> entries;
    for (const CLI::Option* option : command->get_options()) {
        if (option->get_positional() || option->get_description().empty()) continue;
        std::string meaning = option->get_description();
        if (option->get_required()) meaning += " (must be given)";
        if (!option->get_default_str().empty())
            meaning += fmt::format(" (default: {})", option->get_default_str());
        entries.push_back({term_of(option), meaning});
    }
    return entries;
}

std::vector<Entry> commands_of(const CLI::App* command) {
    std::vector<Entry> entries;
    for (const CLI::App* sub : command->get_subcommands([](const CLI::App*) { return true; })) {
        entries.push_back({sub->get_name(), sub->get_description()});
    }
    return entries;
}

std::string usage_of(const CLI::App* command) {
    std::string usage = full_name(command);
    if (!commands_of(command).empty()) return usage + " COMMAND ...";
    if (command->get_prefix_command()) return usage + " ARGUMENTS ...";
    if (!options_of(command).empty()) usage += " [OPTIONS]";
    for (const CLI::Option* option : command->get_options()) {
        if (!option->get_positional()) continue;
        const std::string name = option->get_name(true);
        if (name == "COMMAND") {
            usage += " [-- COMMAND ...]";
        } else {
            usage += option->get_required() ? " " + name : fmt::format(" [{}]", name);
        }
    }
    return usage;
}

const char* const kExitCodes[][2] = {
    {"0", "done"},
    {"1", "tried and failed; what had been begun was undone"},
    {"2", "bad input; nothing was changed"},
    {"3", "the named object does not exist"},
    {"4", "refused: not in this state, not permitted, exists already, or not confirmed"},
    {"5", "gemel-clusterd, or something it needs, does not answer in time; the outcome may be unknown"},
    {"130", "interrupted"},
};

std::string section(const char* title, const std::vector<Entry>& entries) {
    if (entries.empty()) return "";
    std::size_t width = 0;
    for (const auto& entry : entries) width = std::max(width, entry.term.size());
    width = std::min<std::size_t>(width, 26);
    std::string out = fmt::format("\n{}:\n", title);
    for (const auto& entry : entries) {
        std::string head = fmt::format("  {:<{}}  ", entry.term, width);
        if (entry.term.size() > width) head = fmt::format("  {}\n  {:<{}}  ", entry.term, "", width);
        for (const auto& line : wrap(entry.meaning, kWidth - width - 4)) {
            out += head + line + "\n";
            head = std::string(width + 4, ' ');
        }
    }
    return out;
}

std::string help_screen(const CommandTree& tree, const CLI::App* command) {
    const CommandDoc& doc = doc_of(tree, command);
    std::string out = fmt::format("{}: {}\n\nusage: {}\n", full_name(command), command->get_description(),
                                  usage_of(command));
    if (!doc.description.empty()) out += "\n";
    for (const auto& line : wrap(doc.description, kWidth)) out += line + "\n";
    out += section("commands", commands_of(command)) + section("arguments", arguments_of(command)) +
           section("options", options_of(command));
    if (!doc.examples.empty()) out += "\nexamples:\n";
    for (const auto& example : doc.examples)
        out += fmt::format("  {}\n      {}\n", example.command, example.meaning);
    if (command == &tree.app) {
        std::vector<Entry> codes;
        for (const auto& code : kExitCodes) codes.push_back({code[0], code[1]});
        out += section("exit codes", codes);
    }
    return out;
}

std::string troff(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '\\') {
            out += "\\e";
        } else if (c == '-') {
            out += "\\-";
        } else if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) {
            out += "\\&";
            out += c;
        } else {
            out += c;
        }
    }
    return out;
}

std::string page_name(const CLI::App* command) {
    std::string name = full_name(command);
    std::replace(name.begin(), name.end(), ' ', '-');
    return name;
}

std::string troff_list(const char* title, const std::vector<Entry>& entries) {
    if (entries.empty()) return "";
    std::string out = fmt::format(".SH {}\n", title);
    for (const auto& entry : entries)
        out += fmt::format(".TP\n.B {}\n{}\n", troff(entry.term), troff(entry.meaning));
    return out;
}

class Formatter : public CLI::FormatterBase {
  public:
    explicit Formatter(const CommandTree& tree) : tree_(tree) {}
    std::string make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const override {
        return help_screen(tree_, app);
    }

  private:
    const CommandTree& tree_;
};

void collect(const CLI::App* command, std::vector<const CLI::App*>& out) {
    out.push_back(command);
    for (const CLI::App* sub : command->get_subcommands([](const CLI::App*) { return true; }))
        collect(sub, out);
}

struct HelpOptions {
    std::vector<std::string> words;
    bool man = false;
    bool markdown = false;
    bool commands = false;
};

Status show_help(CommandTree& tree, const HelpOptions& options) {
    if (options.markdown) {
        tree.context.terminal.print(markdown_reference(tree));
        return {};
    }
    if (options.commands) {
        for (const auto* command : all_commands(tree)) tree.context.terminal.print(full_name(command) + "\n");
        return {};
    }
    std::string wanted = "gemel";
    for (const auto& word : options.words) wanted += " " + word;
    for (const auto* command : all_commands(tree)) {
        if (full_name(command) != wanted) continue;
        tree.context.terminal.print(options.man ? manual_page(tree, command) : help_screen(tree, command));
        return {};
    }
    return fail(ErrorCode::invalid_argument,
                fmt::format("there is no command '{}'; 'gemel help' lists them", wanted));
}

}  // namespace

CLI::App* CommandTree::add(CLI::App* parent, const std::string& name, const std::string& summary,
                           CommandDoc doc) {
    CLI::App* command = parent->add_subcommand(name, summary);
    command->formatter(std::make_shared<Formatter>(*this));
    if (parent == &app) app.formatter(std::make_shared<Formatter>(*this));
    if (command->get_help_ptr() != nullptr) command->set_help_flag("-h,--help", "this text");
    docs[command] = std::move(doc);
    return command;
}

std::string full_name(const CLI::App* command) {
    const CLI::App* parent = command->get_parent();
    return parent == nullptr ? command->get_name() : full_name(parent) + " " + command->get_name();
}

std::vector<const CLI::App*> all_commands(const CommandTree& tree) {
    std::vector<const CLI::App*> out;
    collect(&tree.app, out);
    return out;
}

std::string manual_page(const CommandTree& tree, const CLI::App* command) {
    const CommandDoc& doc = doc_of(tree, command);
    std::string out = fmt::format(
        ".\\\" made by 'gemel help --man'\n.TH {} 1 \"\" \"Gemel\" \"Gemel\"\n.SH NAME\n{} \\- {}\n",
        page_name(command), page_name(command), troff(command->get_description()));
    out += fmt::format(".SH SYNOPSIS\n.B {}\n", troff(usage_of(command)));
    if (!doc.description.empty()) out += fmt::format(".SH DESCRIPTION\n{}\n", troff(doc.description));
    std::vector<Entry> commands = commands_of(command);
    for (auto& entry : commands) entry.term = page_name(command) + "-" + entry.term + "(1)";
    out += troff_list("COMMANDS", commands) + troff_list("ARGUMENTS", arguments_of(command)) +
           troff_list("OPTIONS", options_of(command));
    if (!doc.examples.empty()) out += ".SH EXAMPLES\n";
    for (const auto& example : doc.examples) {
        out += fmt::format(".TP\n.B {}\n{}\n", troff(example.command), troff(example.meaning));
    }
    std::vector<Entry> codes;
    for (const auto& code : kExitCodes) codes.push_back({code[0], code[1]});
    out += troff_list("EXIT STATUS", codes);
    out += troff_list("ENVIRONMENT",
                      {{"GEMEL_API_SOCKET", "the socket of gemel-clusterd, where --socket is not given"},
                       {"NO_COLOR", "if set, no colours on a terminal either"}});
    if (command != &tree.app) {
        const CLI::App* parent = command->get_parent();
        out += fmt::format(".SH SEE ALSO\n.BR {} (1)\n", troff(page_name(parent)));
    }
    return out;
}

std::string markdown_reference(const CommandTree& tree) {
    std::string out = "# The command line\n\nMade by `gemel help --markdown` from the program itself.\n";
    const auto list = [&](const char* title, const std::vector<Entry>& entries) {
        if (entries.empty()) return;
        out += fmt::format("\n{}\n\n", title);
        for (const auto& entry : entries) out += fmt::format("- `{}`: {}\n", entry.term, entry.meaning);
    };
    for (const auto* command : all_commands(tree)) {
        const CommandDoc& doc = doc_of(tree, command);
        out += fmt::format("\n## {}\n\n{}.\n\n    {}\n", full_name(command), command->get_description(),
                           usage_of(command));
        if (!doc.description.empty()) out += "\n" + doc.description + "\n";
        list("Commands:", commands_of(command));
        list("Arguments:", arguments_of(command));
        list("Options:", options_of(command));
        if (!doc.examples.empty()) out += "\nExamples:\n\n";
        for (const auto& example : doc.examples)
            out += fmt::format("    # {}\n    {}\n", example.meaning, example.command);
        if (command == &tree.app) {
            out += "\nExit codes:\n\n";
            for (const auto& code : kExitCodes) out += fmt::format("- `{}`: {}\n", code[0], code[1]);
        }
    }
    return out;
}

void add_help_commands(CommandTree& tree) {
    auto options = std::make_shared<HelpOptions>();
    CLI::App* help =
        tree.add(&tree.app, "help", "this text, or that of a command",
                 {"", {{"gemel help volume create", "the same as 'gemel volume create --help'"}}});
    help->add_option("COMMAND", options->words, "the command's words");
    help->add_flag("--man", options->man, "as a manual page in troff form");
    help->add_flag("--markdown", options->markdown, "all commands, in Markdown");
    help->add_flag("--commands", options->commands, "all commands, one a line");
    tree.on(help, [&tree, options] { return show_help(tree, *options); });
}

}  // namespace gemel::cli
