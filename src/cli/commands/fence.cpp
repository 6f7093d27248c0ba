// gemel fence set | test | list
#include <fstream>
#include <iostream>

#include <fmt/format.h>

#include "cli/commands/commands.hpp"
#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

struct FenceOptions {
    std::string name;
    std::string node;
    std::string agent;
    std::vector<std::string> options;
    std::vector<std::string> secret_files;
    int timeout_s = 20;
};

Result<std::pair<std::string, std::string>> key_and_value(const std::string& text, const char* option) {
    const auto equals = text.find('=');
    if (equals == 0 || equals == std::string::npos) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' is not what {} takes: NAME=VALUE is expected, like ip=192.0.2.7", text,
                                option));
    }
    return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

bool is_secret(const std::string& key) {
    return key == "password" || key == "passwd" || key == "snmp_priv_passwd";
}

Result<std::string> first_line(const std::string& file, const std::string& key) {
    std::string line;
    bool got = false;
    if (file == "-") {
        got = static_cast<bool>(std::getline(std::cin, line));
    } else {
        std::ifstream input(file);
        got = static_cast<bool>(std::getline(input, line));
    }
    if (!got || line.empty()) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("no {} could be read from {}: a file whose first line is the {} is expected",
                                key, file, key));
    }
    return line;
}

Result<Json> device_body(const FenceOptions& options) {
    Json body = {{"node", options.node}, {"agent", options.agent}, {"options", Json::object()}};
    for (const auto& text : options.options) {
        auto pair = key_and_value(text, "--option");
        if (!pair) return tl::unexpected<Error>(pair.error());
        if (is_secret(pair->first)) {
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{} is a secret and would be seen in the process list: give it with "
                                    "--secret-file {}=FILE",
                                    pair->first, pair->first));
        }
        body["options"][pair->first] = pair->second;
    }
    for (const auto& text : options.secret_files) {
        auto pair = key_and_value(text, "--secret-file");
        if (!pair) return tl::unexpected<Error>(pair.error());
        auto secret = first_line(pair->second, pair->first);
        if (!secret) return tl::unexpected<Error>(secret.error());
        body["secrets"][pair->first] = *secret;
    }
    body["timeout_ms"] = options.timeout_s * 1000;
    return body;
}

std::string device_words(const Json& device) {
    const std::string state = text_of(device, "state", "untested");
    const std::string power = text_of(device, "power", "unknown");
    return fmt::format("{}, says that {} is {}", state, text_of(device, "node"), power);
}

Status set(Context& context, const FenceOptions& options) {
    if (auto good = check_name("fence device", options.name); !good) return good;
    if (auto good = check_name("node", options.node); !good) return good;
    auto body = device_body(options);
    if (!body) return tl::unexpected<Error>(body.error());
    auto device = context.change("PUT", "/v1/fence-devices/" + options.name, std::move(*body),
                                 "asking fence device " + options.name);
    if (!device) return tl::unexpected<Error>(device.error());
    context.terminal.print(fmt::format("fence device {} is set: {}\n", options.name, device_words(*device)));
    return {};
}

Status test(Context& context, const std::string& name) {
    if (auto good = check_name("fence device", name); !good) return good;
    auto device = context.change("POST", fmt::format("/v1/fence-devices/{}/test", name), nullptr,
                                 "asking fence device " + name);
    if (!device) return tl::unexpected<Error>(device.error());
    context.terminal.print(fmt::format("fence device {}: {}\n", name, device_words(*device)));
    return {};
}

Status list(Context& context) {
    auto answer = context.get("/v1/fence-devices");
    if (!answer) return tl::unexpected<Error>(answer.error());
    if (context.json) {
        context.print_json(*answer);
        return {};
    }
    Table table({"DEVICE", "NODE", "AGENT", "STATE", "POWER", "TESTED", "DETAIL"});
    for (const Json& device : list_of(*answer, "fence_devices")) {
        const std::string state = text_of(device, "state");
        table.add({{text_of(device, "name")},
                   {text_of(device, "node")},
                   {text_of(device, "agent")},
                   {state, state == "ok" ? Colour::good : Colour::bad},
                   {text_of(device, "power", "unknown")},
                   {text_of(device, "tested", "never")},
                   {text_of(device, "detail")}});
    }
    context.terminal.print(table.render(context.terminal.output_colours()));
    return {};
}

}  // namespace

void add_fence_commands(CommandTree& tree) {
    auto options = std::make_shared<FenceOptions>();
    CLI::App* fence = tree.add(&tree.app, "fence", "devices that can power a node off", {"", {}});
    fence->require_subcommand(1);
    CLI::App* made =
        tree.add(fence, "set", "create or replace a fence device",
                 {"A fence device is a program of the fence-agents collection, or any executable with its "
                  "interface (arguments as "
                  "NAME=VALUE lines on standard input), with the arguments that let it power one node off. "
                  "It is stored only after "
                  "it answered a status question. Secrets are read from files, stored in the cluster and "
                  "never shown again.",
                  {{"gemel fence set bmc2 --node node2 --agent fence_ipmilan --option ip=192.0.2.12 --option "
                    "username=admin "
                    "--option lanplus=1 --option cipher=3 --secret-file password=/root/bmc2",
                    "a BMC"},
                   {"gemel fence set pdu2 --node node2 --agent /usr/local/sbin/fence_pdu --option plug=7",
                    "a program of your own"}}});
    made->add_option("NAME", options->name, "the device's name")->required();
    made->add_option("--node", options->node, "the node that it can power off")->required();
    made->add_option("--agent", options->agent, "fence_... or the path of an executable")->required();
    made->add_option("--option", options->options, "NAME=VALUE for the agent; may be repeated")
        ->expected(1)
        ->take_all();
    made->add_option("--secret-file", options->secret_files,
                     "NAME=FILE, the first line of FILE is the value; - is standard input")
        ->expected(1)
        ->take_all();
    made->add_option("--timeout", options->timeout_s, "seconds after which an answer is a failure")
        ->check(CLI::Range(1, 120))
        ->capture_default_str();
    tree.on(made, [&tree, options] { return set(tree.context, *options); });

    CLI::App* tested = tree.add(
        fence, "test", "ask a fence device for its node's power state",
        {"Powers nothing off. The cluster does the same on a schedule and warns before it is needed.",
         {{"gemel fence test bmc2", "does it answer?"}}});
    tested->add_option("NAME", options->name, "the device's name")->required();
    tree.on(tested, [&tree, options] { return test(tree.context, options->name); });

    CLI::App* all = tree.add(fence, "list", "all fence devices and whether they answer",
                             {"", {{"gemel fence list", "all"}}});
    tree.add_json_option(all);
    tree.on(all, [&tree] { return list(tree.context); });
}

}  // namespace gemel::cli
