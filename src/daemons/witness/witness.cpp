#include "daemons/witness/witness.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "adapters/etcd/process.hpp"
#include "adapters/etcd/store_directory.hpp"
#include "adapters/log/log.hpp"

namespace gemel::witness {
namespace {

namespace fs = std::filesystem;

constexpr Duration kLook = seconds(1);

}  // namespace

Witness::Witness(WitnessConfig config, fs::path config_file)
    : config_(std::move(config)), config_file_(std::move(config_file)) {}

fs::path Witness::pending() const {
    return config_.data_directory.parent_path() / "bootstrap-pending";
}

bool Witness::has_data() const {
    std::error_code ignored;
    return fs::exists(config_.data_directory / "member", ignored);
}

bool Witness::pause(Duration duration) const {
    for (Duration passed{}; passed < duration && !stop_; passed = passed + milliseconds(100))
        ::poll(nullptr, 0, 100);
    return !stop_;
}

void Witness::stop() {
    stop_ = true;
    const pid_t child = child_;
    if (child > 0) ::kill(child, SIGTERM);
}

// Kept, never deleted. Its log goes with it: what it says is about a member that is no more.
Status Witness::set_aside() {
    std::error_code error;
    for (int number = 1; number < 10000; ++number) {
        const fs::path aside = fmt::format("{}.aside-{}-removed", config_.data_directory.string(), number);
        if (fs::exists(aside, error)) continue;
        fs::rename(config_.data_directory, aside, error);
        if (error) break;
        std::error_code ignored;
        fs::rename(log(), aside.string() + ".log", ignored);
        log::info("the cluster removed this member: its store is kept as " + aside.string());
        return etcd::sync_directory(config_.data_directory.parent_path());
    }
    return fail(ErrorCode::io_error,
                "cannot rename " + config_.data_directory.string() + ": " + error.message());
}

Result<std::vector<etcd::Member>> Witness::wait_to_be_added() {
    etcd::Client client({config_.others(), config_.tls});
    std::string told;
    while (!stop_) {
        std::string why = "no node answers";
        if (const auto members = client.members(seconds(2))) {
            why = "waiting until the cluster adds this witness";
            for (const auto& member : *members) {
                if (member.peer_urls.empty() || member.peer_urls.front() != config_.peer_url) continue;
                if (member.learner) return members;
                // A voter without its data could vote twice in one term: never again under this id.
                why =
                    "this witness lost its store; it waits until the cluster has removed and added it again";
            }
        }
        if (why != told) log::info(why);
        told = why;
        if (!pause(seconds(2))) break;
    }
    return fail(ErrorCode::unavailable, "stopped");
}

// While it runs: the permission to begin a cluster ends with the first sign that it is begun.
void Witness::look() {
    std::error_code ignored;
    if (!has_data() || !fs::exists(pending(), ignored)) return;
    const auto own = http::Address::parse(config_.client_url);
    if (!own) return;
    etcd::Client client({{*own}, config_.tls});
    if (!client.get("/gemel/lineage", seconds(1))) return;
    if (::unlink(pending().c_str()) == 0) {
        [[maybe_unused]] const auto synced = etcd::sync_directory(pending().parent_path());
        log::info("the store serves; a new one will not be begun here again");
    }
}

Status Witness::run_etcd(const fs::path& config_file) {
    const int log_file = ::open(log().c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log_file < 0)
        return fail(ErrorCode::io_error,
                    fmt::format("cannot write {}: {}", log().string(), std::strerror(errno)));
    const std::string argument = "--config-file=" + config_file.string();
    const pid_t child = ::fork();
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGTERM);
        sigset_t none;
        ::sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        ::dup2(log_file, 1);
        ::dup2(log_file, 2);
        ::execlp("etcd", "etcd", argument.c_str(), static_cast<char*>(nullptr));
        ::_exit(127);
    }
    ::close(log_file);
    if (child < 0)
        return fail(ErrorCode::io_error, fmt::format("cannot start etcd: {}", std::strerror(errno)));
    child_ = child;
    if (stop_) ::kill(child, SIGTERM);
    int status = 0;
    while (::waitpid(child, &status, WNOHANG) == 0) {
        look();
        ::poll(nullptr, 0, static_cast<int>(kLook.milliseconds()));
    }
    child_ = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return fail(ErrorCode::not_found, "etcd cannot be run; install the package etcd-server");
    if (stop_) return {};
    if (etcd::says_removed(log())) return set_aside();
    return fail(ErrorCode::unavailable, "etcd ended; its last words are in " + log().string());
}

Status Witness::run() {
    while (!stop_) {
        std::error_code ignored;
        fs::path file = config_file_;
        if (!has_data() && !fs::exists(pending(), ignored)) {
            const auto members = wait_to_be_added();
            if (!members) return stop_ ? Status() : Status(tl::unexpected<Error>(members.error()));
            file = config_.data_directory.string() + ".joining.yaml";
            std::ofstream(file, std::ios::trunc) << config_.joining(*members);
        }
        if (auto ended = run_etcd(file); !ended) return ended;
    }
    return {};
}

}  // namespace gemel::witness
