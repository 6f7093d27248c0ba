#include "adapters/libvirt/kvm_probe.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

#include "adapters/libvirt/kvm_payload.hpp"

namespace gemel {

namespace {

constexpr int kAnsweredStatus = kProbeAnswer << 1U | 1U;  // isa-debug-exit's rule

std::string read_all(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

bool write_all(const std::string& path, const std::string& text) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << text;
    file.close();
    return !file.fail();
}

std::string boot_id() {
    auto text = read_all("/proc/sys/kernel/random/boot_id");
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

KvmVerdict no(std::string why) {
    return {false, std::move(why), false};
}

// Waits for the child, kills it at the deadline. Returns its exit status, or -1 when it had to be killed.
int wait_or_kill(pid_t child, std::chrono::milliseconds limit) {
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
    pollfd ended{handle, POLLIN, 0};
    const int ready = handle < 0 ? 0 : poll(&ended, 1, static_cast<int>(limit.count()));
    if (handle >= 0) close(handle);
    if (ready != 1) kill(child, SIGKILL);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return ready == 1 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

KvmVerdict start_and_judge(const std::string& firmware, const std::string& emulator,
                           const std::string& accelerator, std::chrono::milliseconds limit) {
    std::vector<std::string> words = {emulator,
                                      "-accel",
                                      accelerator,
                                      "-machine",
                                      "pc",
                                      "-cpu",
                                      accelerator == "kvm" ? "host" : "qemu64",
                                      "-m",
                                      "16",
                                      "-nodefaults",
                                      "-no-user-config",
                                      "-display",
                                      "none",
                                      "-no-reboot",
                                      "-bios",
                                      firmware,
                                      "-device",
                                      fmt::format("isa-debug-exit,iobase={:#x},iosize=1", kProbePort)};
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    char path[] = "PATH=/usr/bin:/bin";
    char* environment[] = {path, nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    for (const int descriptor : {0, 1, 2}) {
        posix_spawn_file_actions_addopen(&actions, descriptor, "/dev/null",
                                         descriptor == 0 ? O_RDONLY : O_WRONLY, 0);
    }
    pid_t child = 0;
    const int failed =
        posix_spawn(&child, emulator.c_str(), &actions, nullptr, arguments.data(), environment);
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) return no(fmt::format("{} cannot be started: {}", emulator, std::strerror(failed)));
    const int status = wait_or_kill(child, limit);
    if (status == kAnsweredStatus) return {true, {}, false};
    if (status == -1) {
        return no(fmt::format("a test program did not end within {} ms; {} is not usable here", limit.count(),
                              accelerator));
    }
    return no(
        fmt::format("a test program failed with status {}; {} is not usable here", status, accelerator));
}

}  // namespace

KvmVerdict run_probe(const std::string& run_dir, const std::string& emulator, const std::string& accelerator,
                     std::chrono::milliseconds limit) {
    std::string firmware = run_dir + "/kvm-probe-firmware.XXXXXX";
    const int file = mkstemp(firmware.data());
    if (file < 0) return no(fmt::format("cannot write into {}: {}", run_dir, std::strerror(errno)));
    close(file);
    const auto verdict = write_all(firmware, kvm_probe_firmware())
                             ? start_and_judge(firmware, emulator, accelerator, limit)
                             : no(fmt::format("cannot write {}", firmware));
    unlink(firmware.c_str());
    return verdict;
}

KvmVerdict probe_kvm(const std::string& run_dir, const std::string& emulator) {
    const std::string cache = run_dir + "/kvm-probe";
    const std::string boot = boot_id();
    // One line: boot id, "works" or "no", the reason.
    const std::string known = read_all(cache);
    const std::string works_line = boot + " works\n";
    const std::string no_prefix = boot + " no ";
    if (known == works_line) return {true, {}, true};
    if (known.starts_with(no_prefix) && known.ends_with('\n')) {
        return {false, known.substr(no_prefix.size(), known.size() - no_prefix.size() - 1), true};
    }
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        // Not cached: the module may be loaded later, and asking again costs nothing.
        return no(
            fmt::format("/dev/kvm: {}; load kvm_intel or kvm_amd, and enable virtualization in the firmware",
                        std::strerror(errno)));
    }
    const auto verdict = run_probe(run_dir, emulator, "kvm", kKvmProbeLimit);
    const std::string fresh = cache + ".new";
    if (write_all(fresh, verdict.works ? works_line : no_prefix + verdict.why + "\n")) {
        std::rename(fresh.c_str(), cache.c_str());
    }
    return verdict;
}

}  // namespace gemel
