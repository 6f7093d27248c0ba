#include "cli/context.hpp"

#include <array>
#include <chrono>
#include <sys/random.h>

#include <fmt/format.h>

#include "base/ids.hpp"
#include "cli/fields.hpp"

namespace gemel::cli {

namespace {

constexpr int kPollMs = 100;
constexpr int kSilenceMs = 30'000;  // how long an operation may be unreadable before we stop waiting for it
constexpr const char* kApiMajor = "1.";

bool is_final(const Json& operation) {
    const std::string state = text_of(operation, "state");
    return state == "succeeded" || state == "failed";
}

}  // namespace

std::string progress_detail(const Json& operation) {
    const Json& progress = object_of(operation, "progress");
    const std::int64_t done = number_of(progress, "done");
    const std::int64_t total = number_of(progress, "total");
    const std::string step = text_of(operation, "step");
    if (total <= 0) return step;
    const std::string unit = text_of(progress, "unit");
    std::string amount = fmt::format("{} of {}", done, total);
    if (unit == "bytes") amount = fmt::format("{} of {}", human_size(done), human_size(total));
    if (unit == "ms") amount = fmt::format("{} of {}", human_duration(done), human_duration(total));
    return step.empty() ? amount : fmt::format("{}, {}", step, amount);
}

Result<Json> outcome_of(const Json& operation) {
    if (text_of(operation, "state") == "succeeded") {
        return has(operation, "result") ? operation.at("result") : Json(nullptr);
    }
    return tl::unexpected<Error>(
        error_of_answer(500, object_of(operation, "error").dump(), text_of(operation, "kind")));
}

int exit_code_of(ErrorCode code) {
    switch (code) {
        case ErrorCode::invalid_argument:
        case ErrorCode::unsupported: return kExitUsage;
        case ErrorCode::not_found: return kExitNotFound;
        case ErrorCode::already_exists:
        case ErrorCode::failed_precondition:
        case ErrorCode::permission_denied: return kExitRefused;
        case ErrorCode::unavailable:
        case ErrorCode::timed_out: return kExitUnreachable;
        case ErrorCode::corrupt:
        case ErrorCode::out_of_space:
        case ErrorCode::io_error:
        case ErrorCode::internal: return kExitFailed;
    }
    return kExitFailed;
}

std::string make_operation_id() {
    std::array<std::uint64_t, 2> words{};
    // 16 bytes are always delivered at once (getrandom(2)); only a kernel without it fails, and then the
    // server's refusal of a repeated id says so
    if (getrandom(words.data(), sizeof words, 0) != static_cast<ssize_t>(sizeof words)) return {};
    return Uuid::from_random(words[0], words[1]).to_string();
}

Result<ApiClient*> Context::open() {
    if (client_) return client_.get();
    auto client = make_unix_api_client(socket_path);
    auto version = client->get("/v1/version");
    if (!version && version.error().code == ErrorCode::unavailable)
        return tl::unexpected<Error>(version.error());
    const std::string api = version ? text_of(*version, "api_version") : "";
    if (!version || text_of(*version, "product") != "gemel" || api.rfind(kApiMajor, 0) != 0) {
        return fail(
            ErrorCode::unsupported,
            fmt::format("this gemel speaks API 1.x and what listens on {} {}: install the same version of "
                        "gemel and gemel-clusterd",
                        socket_path, api.empty() ? "is no gemel-clusterd of that kind" : "speaks " + api));
    }
    client_ = std::move(client);
    return client_.get();
}

Result<Json> Context::get(const std::string& target) {
    auto api = open();
    if (!api) return tl::unexpected<Error>(api.error());
    return (*api)->get(target);
}

Result<Json> Context::change(const std::string& method, const std::string& target, Json body,
                             const std::string& words) {
    return run_change(method, target, std::move(body), {words, true, {}, {}});
}

Result<Json> Context::finish(const std::string& method, const std::string& target, Json body,
                             const std::string& words) {
    return run_change(method, target, std::move(body), {words, false, {}, {}});
}

Result<Json> Context::run_change(const std::string& method, const std::string& target, Json body,
                                 const Wait& wait) {
    auto operation = begin(method, target, std::move(body));
    if (operation) operation = follow(std::move(*operation), wait);
    return operation ? outcome_of(*operation) : operation;
}

Result<Json> Context::begin(const std::string& method, const std::string& target, Json body) {
    auto api = open();
    if (!api) return tl::unexpected<Error>(api.error());
    const Request request{method, target, std::move(body), make_operation_id()};
    auto operation = (*api)->call(request);
    if (!operation && operation.error().code == ErrorCode::unavailable) {
        // The request may have arrived although its answer did not: the outcome is read by its id. Where that
        // cannot be read either, or the server never heard of it, the first error stands.
        auto found = (*api)->get("/v1/operations/" + request.operation_id);
        if (!found) return operation;
        operation = std::move(found);
    }
    return operation;
}

Result<Json> Context::follow(Json operation, const Wait& wait) {
    Progress progress(terminal);
    const std::string id = text_of(operation, "id");
    auto last_answer = std::chrono::steady_clock::now();
    while (!is_final(operation)) {
        if (wait.stop_when_interrupted && interrupted()) {
            return fail(ErrorCode::timed_out,
                        wait.when_interrupted
                            ? wait.when_interrupted()
                            : fmt::format("stopped waiting while {}; the cluster goes on with it: "
                                          "'gemel status' shows how far it is",
                                          wait.words));
        }
        progress.show(wait.words,
                      wait.detail ? wait.detail(operation, progress) : progress_detail(operation));
        wait_ms(kPollMs);
        auto next = client_->get("/v1/operations/" + id);
        const auto now = std::chrono::steady_clock::now();
        if (next) {
            operation = std::move(*next);
            last_answer = now;
        } else if (next.error().code != ErrorCode::unavailable) {
            return next;
        } else if (now - last_answer > std::chrono::milliseconds(kSilenceMs)) {
            return fail(
                ErrorCode::timed_out,
                fmt::format("gemel-clusterd stopped answering while {}; the outcome is not known: look with "
                            "'gemel status' when it answers again",
                            wait.words));
        }
    }
    return operation;
}

Result<std::string> Context::confirm_plan(const std::string& action, const std::string& object,
                                          const std::string& parameters) {
    auto plan = get(fmt::format("/v1/plan?action={}&object={}{}", action, url_encode(object), parameters));
    if (!plan) return tl::unexpected<Error>(plan.error());
    if (!flag_of(*plan, "allowed")) {
        return fail(ErrorCode::failed_precondition, text_of(*plan, "refusal", "refused by gemel-clusterd"));
    }
    std::vector<std::string> will_do;
    std::vector<std::string> may_lose;
    for (const Json& line : list_of(*plan, "will_do")) {
        if (line.is_string()) will_do.push_back(printable(line.get<std::string>()));
    }
    for (const Json& line : list_of(*plan, "may_lose")) {
        if (line.is_string()) may_lose.push_back(printable(line.get<std::string>()));
    }
    const std::int64_t wait = number_of(*plan, "wait_ms");
    if (wait > 0) will_do.push_back(fmt::format("wait {} before it takes effect", human_duration(wait)));
    return confirm_name(text_of(*plan, "confirm_name", object.c_str()), will_do, may_lose);
}

Result<std::string> Context::confirm_name(const std::string& name, const std::vector<std::string>& will_do,
                                          const std::vector<std::string>& may_lose) {
    const bool colours = terminal.error_colours();
    const auto say = [&](const char* title, Colour colour, const std::vector<std::string>& lines) {
        if (lines.empty()) return;
        terminal.note(paint(colour, title, colours));
        for (const auto& line : lines) {
            bool first = true;
            for (const auto& part : wrap(line, 74)) {
                terminal.note((first ? "  - " : "    ") + part);
                first = false;
            }
        }
    };
    say("This will:", Colour::bold, will_do);
    say("This may lose:", Colour::bad, may_lose);
    std::string typed = confirm;
    if (typed.empty()) {
        if (!terminal.input_is_terminal()) {
            return fail(
                ErrorCode::failed_precondition,
                fmt::format("a confirmation is expected: run it in a terminal and type the name, or add "
                            "--confirm {}; nothing was changed",
                            name));
        }
        auto answer = terminal.ask(fmt::format("Type {} to go on, anything else to stop: ", name));
        if (!answer) return tl::unexpected<Error>(answer.error());
        typed = *answer;
    }
    if (typed != name) {
        return fail(
            ErrorCode::failed_precondition,
            fmt::format("'{}' was typed and '{}' was expected: nothing was changed", printable(typed), name));
    }
    return name;
}

}  // namespace gemel::cli
