// The commands, one file for each first word. Every add_ function puts its part into the tree; the chosen
// command's action is run by main after the whole line was understood, so that nothing is done for a line
// with a mistake.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/context.hpp"

namespace gemel::cli {

struct Example {
    std::string command;
    std::string meaning;
};

// What a manual page says besides what CLI11 knows.
struct CommandDoc {
    std::string description;
    std::vector<Example> examples;
};

struct CommandTree {
    CLI::App app;
    Context context;
    std::map<const CLI::App*, CommandDoc> docs;
    std::function<Status()> action;
    int exit_code = kExitDone;  // where an action has a word of its own (sandbox, export -- COMMAND)

    // A command below parent, with its help and manual page.
    CLI::App* add(CLI::App* parent, const std::string& name, const std::string& summary, CommandDoc doc);
    void on(CLI::App* command, std::function<Status()> what) {
        command->callback([this, what = std::move(what)] { action = what; });
    }
    void add_json_option(CLI::App* command) {
        command->add_flag("--json", context.json, "print the API's answer as JSON");
    }
    void add_confirm_option(CLI::App* command) {
        command
            ->add_option("--confirm", context.confirm,
                         "the name that would have to be typed; for scripts, no question is asked")
            ->type_name("NAME");
    }
};

void add_status_command(CommandTree& tree);
void add_node_commands(CommandTree& tree);
void add_cluster_commands(CommandTree& tree);
void add_volume_commands(CommandTree& tree);
void add_vm_commands(CommandTree& tree);
void add_vm_import_command(CommandTree& tree, CLI::App* vm);
void add_migrate_command(CommandTree& tree, CLI::App* vm);
void add_drain_commands(CommandTree& tree, CLI::App* node);
void add_fence_commands(CommandTree& tree);
void add_event_commands(CommandTree& tree);
void add_sandbox_commands(CommandTree& tree);  // and version
void add_help_commands(CommandTree& tree);

// The whole manual page of a command in troff (man) form, or the tree in Markdown.
std::string manual_page(const CommandTree& tree, const CLI::App* command);
std::string markdown_reference(const CommandTree& tree);
// all commands in the order of their making, the root first; "gemel volume create" is the name of one
std::vector<const CLI::App*> all_commands(const CommandTree& tree);
std::string full_name(const CLI::App* command);

}  // namespace gemel::cli
