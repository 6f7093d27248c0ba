#include "adapters/etcd/process.hpp"

#include <cerrno>
#include <charconv>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sstream>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

namespace gemel::etcd {
namespace {

namespace fs = std::filesystem;

std::string system_error() {
    return std::generic_category().message(errno);
}

// Two arguments of the command line tell: the program's name and the data directory. A zombie has none.
bool is_member(const fs::path& process, const std::string& data_argument) {
    std::ifstream file(process / "cmdline", std::ios::binary);
    std::string argument;
    bool etcd = false;
    bool ours = false;
    for (int i = 0; std::getline(file, argument, '\0'); ++i) {
        if (i == 0) etcd = fs::path(argument).filename() == "etcd";
        ours = ours || argument == data_argument;
    }
    return etcd && ours;
}

Result<std::uint16_t> free_loopback_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    const bool ok = fd >= 0 && ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
                    ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
    if (fd >= 0) ::close(fd);
    if (!ok) return fail(ErrorCode::io_error, "no free port on the loopback interface: " + system_error());
    return ntohs(address.sin_port);
}

// True when the process was gone within the time.
bool wait_gone(int pidfd, Duration timeout) {
    pollfd wait{pidfd, POLLIN, 0};
    return ::poll(&wait, 1, static_cast<int>(timeout.milliseconds())) == 1;
}

}  // namespace

Process::Process(ProcessConfig config, fs::path data_directory, fs::path log)
    : config_(std::move(config)), data_(std::move(data_directory)), log_(std::move(log)) {}

pid_t Process::find() const {
    const std::string wanted = "--data-dir=" + data_.string();
    std::error_code error;
    for (const auto& entry : fs::directory_iterator("/proc", error)) {
        const std::string name = entry.path().filename().string();
        pid_t pid = 0;
        const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
        if (bad == std::errc{} && end == name.data() + name.size() && is_member(entry.path(), wanted))
            return pid;
    }
    return 0;
}

std::vector<std::string> Process::common_arguments() const {
    return {
        config_.program,
        "--name=" + config_.name,
        "--data-dir=" + data_.string(),
        "--advertise-client-urls=" + config_.client_url,
        "--initial-advertise-peer-urls=" + config_.peer_url,
        "--initial-cluster-token=" + config_.cluster_token,
        "--trusted-ca-file=" + config_.tls.ca,
        "--cert-file=" + config_.tls.certificate,
        "--key-file=" + config_.tls.key,
        "--client-cert-auth",
        "--peer-trusted-ca-file=" + config_.tls.ca,
        "--peer-cert-file=" + config_.tls.certificate,
        "--peer-key-file=" + config_.tls.key,
        "--peer-client-cert-auth",
        "--auto-compaction-mode=revision",
        "--auto-compaction-retention=10000",
        fmt::format("--quota-backend-bytes={}", config_.quota_bytes),
        "--pre-vote",
        "--logger=zap",
        "--log-level=warn",
        "--log-outputs=stderr",
    };
}

Status Process::start(const Membership& membership) {
    if (find() != 0) return {};
    auto arguments = common_arguments();
    arguments.push_back("--listen-client-urls=" + config_.client_url);
    arguments.push_back("--listen-peer-urls=" + config_.peer_url);
    arguments.push_back(fmt::format("--heartbeat-interval={}", config_.heartbeat_ms));
    arguments.push_back(fmt::format("--election-timeout={}", config_.election_ms));
    arguments.push_back("--initial-cluster=" + membership.initial_cluster);
    arguments.push_back(std::string("--initial-cluster-state=") + (membership.existing ? "existing" : "new"));
    return spawn(arguments);
}

Status Process::start_forced() {
    const auto client = free_loopback_port();
    const auto peer = free_loopback_port();
    if (!client) return tl::unexpected<Error>(client.error());
    if (!peer) return tl::unexpected<Error>(peer.error());
    auto arguments = common_arguments();
    config_.client_url = fmt::format("https://127.0.0.1:{}", *client);
    arguments.push_back("--listen-client-urls=" + config_.client_url);
    arguments.push_back(fmt::format("--listen-peer-urls=https://127.0.0.1:{}", *peer));
    // Alone and for seconds only: a short election saves most of the time that forcing takes.
    arguments.emplace_back("--heartbeat-interval=10");
    arguments.emplace_back("--election-timeout=100");
    arguments.emplace_back("--force-new-cluster");
    // Its log need not lead to what its key-value store holds (force.cpp): from a snapshot on, it does.
    arguments.emplace_back("--snapshot-count=1");
    return spawn(arguments);
}

// Forks twice, so that etcd is nobody's child: whether it lives is always looked up, never waited for.
Status Process::spawn(const std::vector<std::string>& arguments) const {
    std::error_code ignored;
    if (fs::exists(log_, ignored) && fs::file_size(log_, ignored) > 16U << 20)
        fs::rename(log_, log_.string() + ".old", ignored);
    const int log = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    int report[2] = {-1, -1};  // carries errno of a failed exec; closed by a successful one
    if (log < 0 || null < 0 || ::pipe2(report, O_CLOEXEC) != 0) {
        const auto why = system_error();
        for (const int fd : {log, null, report[0], report[1]})
            if (fd >= 0) ::close(fd);
        return fail(ErrorCode::io_error,
                    fmt::format("cannot start {}: {}: {}", config_.program, log_.string(), why));
    }
    std::vector<char*> argv;
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    // Nothing of ETCD_* may come in from our environment.
    std::string path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    std::vector<char*> environment{path.data(), nullptr};
    const pid_t first = ::fork();
    if (first == 0) {
        ::setsid();
        const pid_t second = ::fork();
        if (second != 0) ::_exit(second < 0 ? 1 : 0);
        ::dup2(null, 0);
        ::dup2(log, 1);
        ::dup2(log, 2);
        ::dup2(report[1], 3);
        ::fcntl(3, F_SETFD, FD_CLOEXEC);
        ::syscall(SYS_close_range, 4U, ~0U, 0U);
        sigset_t none;
        ::sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
        ::execvpe(argv[0], argv.data(), environment.data());
        const int why = errno;
        [[maybe_unused]] const auto told = ::write(3, &why, sizeof why);
        ::_exit(127);
    }
    ::close(report[1]);
    ::close(log);
    ::close(null);
    int status = 1;
    if (first > 0) ::waitpid(first, &status, 0);
    int why = 0;
    const bool failed = ::read(report[0], &why, sizeof why) == sizeof why;
    ::close(report[0]);
    if (failed)
        return fail(ErrorCode::io_error, fmt::format("cannot start {}: {}; install the package etcd-server",
                                                     config_.program, std::generic_category().message(why)));
    if (first < 0 || status != 0)
        return fail(ErrorCode::io_error, "cannot start another process: " + system_error());
    return {};
}

Status Process::stop(Duration grace) {
    // More than once, should a start have raced with an older one.
    for (pid_t pid = find(); pid != 0; pid = find()) {
        const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
        if (pidfd < 0) continue;  // it ended meanwhile
        if (find() != pid) {      // and somebody else has its number now
            ::close(pidfd);
            continue;
        }
        ::syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, nullptr, 0);
        bool gone = wait_gone(pidfd, grace);
        if (!gone) {
            ::syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
            gone = wait_gone(pidfd, seconds(10));
        }
        ::close(pidfd);
        if (!gone)
            return fail(ErrorCode::timed_out,
                        fmt::format("etcd (process {}) does not end, even when killed", pid));
    }
    return {};
}

bool says_removed(const std::filesystem::path& log) {
    std::ifstream file(log, std::ios::binary | std::ios::ate);
    if (!file) return false;
    const auto size = static_cast<std::streamoff>(file.tellg());
    const std::streamoff window = 8192;
    file.seekg(size > window ? size - window : 0);
    const std::string tail{std::istreambuf_iterator<char>(file), {}};
    return tail.find("permanently removed from the cluster") != std::string::npos ||
           tail.find("data-dir used by this member must be removed") != std::string::npos;
}

}  // namespace gemel::etcd
