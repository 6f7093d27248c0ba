#include "adapters/libvirt/tests/private_libvirtd.hpp"

#include <chrono>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdexcept>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace gemel::test {

namespace {

namespace fs = std::filesystem;

void must(bool good, const std::string& what) {
    if (!good) throw std::runtime_error("test setup: " + what);
}

void write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
}

std::string read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

pid_t spawn(const std::vector<std::string>& words, const std::string& log) {
    std::vector<std::string> copy = words;
    std::vector<char*> arguments;
    for (auto& word : copy) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t child = 0;
    const int failed = posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    must(failed == 0, words[0] + " cannot be started");
    return child;
}

void end(pid_t child) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
}

void run(const std::vector<std::string>& words) {
    int status = 0;
    waitpid(spawn(words, "/run/commands.log"), &status, 0);
    must(WIFEXITED(status) && WEXITSTATUS(status) == 0, words[0] + " failed: " + read("/run/commands.log"));
}

// libvirtd wants a user that only Debian's libvirt-daemon-system package makes.
void add_line(const std::string& path, const std::string& line) {
    write("/run/" + fs::path(path).filename().string(), read(path) + line);
    must(mount(("/run/" + fs::path(path).filename().string()).c_str(), path.c_str(), nullptr, MS_BIND,
               nullptr) == 0,
         "mounting over " + path);
}

}  // namespace

std::string PrivateLibvirtd::obstacle() {
    return geteuid() == 0 ? "" : "needs root: namespaces of its own for a real libvirtd";
}

PrivateLibvirtd::PrivateLibvirtd() {
    must(unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS) == 0, "unshare");
    must(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "private mounts");
    for (const char* place :
         {"/run", "/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"}) {
        fs::create_directories(place);
        must(mount("tmpfs", place, "tmpfs", 0, nullptr) == 0, std::string("tmpfs on ") + place);
    }
    fs::create_directories("/run/gemel");
    fs::create_directories("/run/lock");
    add_line("/etc/passwd", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n");
    add_line("/etc/group", "libvirt-qemu:x:64055:\nkvm:x:64056:\n");
    write("/etc/libvirt/qemu.conf",
          "security_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = \"file\"\n"
          "user = \"root\"\ngroup = \"root\"\n");
    write("/etc/libvirt/libvirtd.conf",
          "auth_unix_rw = \"none\"\nhost_uuid = \"6f1d0a52-0f5b-4a53-9f3e-2f6a2f7f3c11\"\n");
    must(sethostname("testhost", 8) == 0, "host name");
    run({"ip", "link", "set", "lo", "up"});
    run({"ip", "link", "add", "br-guest", "type", "bridge"});
    run({"ip", "link", "set", "br-guest", "up"});
    start_libvirtd();
}

PrivateLibvirtd::~PrivateLibvirtd() {
    std::error_code none;
    for (const auto& file : fs::directory_iterator("/run/libvirt/qemu", none)) {
        if (file.path().extension() != ".pid") continue;
        const int qemu = std::atoi(read(file.path()).c_str());
        if (qemu > 1) kill(qemu, SIGKILL);
    }
    kill_libvirtd();
    for (const pid_t child : children_) end(child);
}

void PrivateLibvirtd::start_libvirtd() {
    libvirtd_ = spawn({"libvirtd"}, "/run/libvirtd.log");
    must(wait_for([] { return fs::exists("/run/libvirt/libvirt-sock"); }),
         "libvirtd: " + read("/run/libvirtd.log"));
}

void PrivateLibvirtd::kill_libvirtd() {
    if (libvirtd_ == 0) return;
    end(libvirtd_);
    libvirtd_ = 0;
    fs::remove("/run/libvirt/libvirt-sock");
}

void PrivateLibvirtd::serve_disk(const std::string& socket, const std::string& export_name) {
    children_.push_back(
        spawn({"nbdkit", "-f", "-U", socket, "-e", export_name, "memory", "1M"}, "/run/nbdkit.log"));
    must(wait_for([&] { return fs::exists(socket); }), "nbdkit: " + read("/run/nbdkit.log"));
}

void PrivateLibvirtd::serve_vhost_user_disk(const std::string& socket) {
    children_.push_back(spawn({"qemu-storage-daemon", "--blockdev",
                               "null-co,node-name=disk,size=1048576,read-zeroes=on", "--export",
                               "vhost-user-blk,id=disk,node-name=disk,writable=on,num-queues=2,"
                               "addr.type=unix,addr.path=" +
                                   socket},
                              "/run/storage-daemon.log"));
    must(wait_for([&] { return fs::exists(socket); }),
         "qemu-storage-daemon: " + read("/run/storage-daemon.log"));
}

bool wait_for(const std::function<bool()>& condition, int deadline_ms) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(deadline_ms);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) return false;
        poll(nullptr, 0, 20);
    }
    return true;
}

}  // namespace gemel::test
