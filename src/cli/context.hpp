// Context: what every command gets. Opens the API at its first use (checking that both sides speak the same
// API version), follows operations to their end, and asks for a typed name before what may lose data.
// Threads: none; one command a process.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cli/api_client.hpp"
#include "cli/terminal.hpp"
#include "cli/text.hpp"

namespace gemel::cli {

// what a process of ours answers to its caller; documented in gemel(1)
enum ExitCode : int {
    kExitDone = 0,
    kExitFailed = 1,       // tried and failed; what had begun was undone
    kExitUsage = 2,        // bad input; nothing was sent or nothing changed
    kExitNotFound = 3,     // the named object does not exist
    kExitRefused = 4,      // not in this state, not permitted, exists already, or not confirmed
    kExitUnreachable = 5,  // gemel-clusterd or what it needs does not answer; the outcome may be unknown
    kExitInterrupted = 130,
};
int exit_code_of(ErrorCode code);

// How an operation is waited for.
struct Wait {
    std::string words;                  // what is being done, for progress: "creating volume web1"
    bool stop_when_interrupted = true;  // else it is seen through to its end: undoing
    // What an interrupted wait says; empty: that the cluster goes on with it.
    std::function<std::string()> when_interrupted;
    // Called at each look at the operation: what changes, for progress. Empty: its step and its numbers.
    std::function<std::string(const Json& operation, Progress& progress)> detail;
};
std::string progress_detail(const Json& operation);
// The result of a finished operation (may be null), or its error.
Result<Json> outcome_of(const Json& operation);

struct Context {
    Terminal terminal;
    std::string socket_path;
    bool json = false;
    std::string confirm;  // --confirm NAME

    // The API, after one question for its version.
    Result<ApiClient*> open();
    Result<Json> get(const std::string& target);
    // Sends a change with a fresh operation id and waits for its end; the operation's result (may be null).
    // words: what is being done, for progress: "creating volume web1".
    Result<Json> change(const std::string& method, const std::string& target, Json body,
                        const std::string& words);
    // The same without giving up when interrupted: for undoing, and for what must not be left half way.
    Result<Json> finish(const std::string& method, const std::string& target, Json body,
                        const std::string& words);
    // The same in two steps: the operation as it was accepted; the operation when it has ended, well or not.
    Result<Json> begin(const std::string& method, const std::string& target, Json body);
    Result<Json> follow(Json operation, const Wait& wait);

    // Shows the server's plan and gets the object's name from the user (or --confirm). parameters: what the
    // plan needs besides, like "&node=node1". Answers the name to send, or failed_precondition, nothing
    // changed.
    Result<std::string> confirm_plan(const std::string& action, const std::string& object,
                                     const std::string& parameters);
    // Says what will happen, then gets the name. may_lose is said in full sentences.
    Result<std::string> confirm_name(const std::string& name, const std::vector<std::string>& will_do,
                                     const std::vector<std::string>& may_lose);

    void print_json(const Json& value) { terminal.print(value.dump(2) + "\n"); }

  private:
    Result<Json> run_change(const std::string& method, const std::string& target, Json body,
                            const Wait& wait);

    std::unique_ptr<ApiClient> client_;
};

// a fresh random id (version 4)
std::string make_operation_id();

}  // namespace gemel::cli
