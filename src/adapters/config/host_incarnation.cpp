#include "adapters/config/host_incarnation.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/invariant.hpp"

namespace gemel {
namespace {

Result<std::string> first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    if (!file || !std::getline(file, line))
        return fail(ErrorCode::io_error, "cannot read " + path + ": expected one line");
    return line;
}

// Writes a new nonce under a name of its own and links it to its place: whoever links first wins, and no
// reader can ever see half a nonce.
Status create_nonce(const std::string& path) {
    const std::string text = random_uuid().to_string() + "\n";
    const std::string temporary = path + "." + random_uuid().to_string();
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return fail(ErrorCode::io_error, "cannot create " + temporary + ": " + std::strerror(errno));
    const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::close(fd);
    const bool linked = written && (::link(temporary.c_str(), path.c_str()) == 0 || errno == EEXIST);
    const int error = errno;
    ::unlink(temporary.c_str());
    if (!linked) return fail(ErrorCode::io_error, "cannot create " + path + ": " + std::strerror(error));
    return {};
}

}  // namespace

std::uint64_t random_word() {
    std::uint64_t word = 0;
    INVARIANT(::getrandom(&word, sizeof word, 0) == static_cast<ssize_t>(sizeof word),
              "the kernel has random bytes");
    return word;
}

Uuid random_uuid() {
    return Uuid::from_random(random_word(), random_word());
}

Result<Incarnation> host_incarnation(const std::string& run_dir) {
    if (::mkdir(run_dir.c_str(), 0755) != 0 && errno != EEXIST) {
        return fail(ErrorCode::io_error, "cannot create " + run_dir + ": " + std::strerror(errno));
    }
    const std::string path = run_dir + "/incarnation";
    if (::access(path.c_str(), F_OK) != 0) {
        if (auto made = create_nonce(path); !made) return tl::unexpected<Error>(made.error());
    }
    auto nonce_text = first_line(path);
    if (!nonce_text) return tl::unexpected<Error>(nonce_text.error());
    auto boot_text = first_line("/proc/sys/kernel/random/boot_id");
    if (!boot_text) return tl::unexpected<Error>(boot_text.error());
    auto nonce = Uuid::parse(*nonce_text);
    auto boot = Uuid::parse(*boot_text);
    if (!nonce || !boot)
        return fail(ErrorCode::corrupt, path + " is damaged: expected one id; reboot this node");
    return Incarnation{*boot, *nonce};
}

}  // namespace gemel
