#include "cli/image.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "cli/fields.hpp"
#include "cli/process.hpp"

namespace gemel::cli {

namespace {

constexpr std::int64_t kSectorBytes = 512;

struct Magic {
    std::string_view bytes;
    std::size_t offset;
    const char* what;
    const char* next;
};

// What qemu-img would call raw although it is none.
constexpr Magic kForeign[] = {
    {"\x1f\x8b", 0, "compressed with gzip", "unpack it with gunzip first"},
    {"\xfd"
     "7zXZ",
     0, "compressed with xz", "unpack it with unxz first"},
    {"BZh", 0, "compressed with bzip2", "unpack it with bunzip2 first"},
    {"\x28\xb5\x2f\xfd", 0, "compressed with zstd", "unpack it with unzstd first"},
    {"PK\x03\x04", 0, "a zip archive", "unpack it with unzip first"},
    {"ustar", 257, "a tar archive or OVA",
     "unpack it with tar -xf and convert the disk inside with qemu-img"},
    {"\x7f"
     "ELF",
     0, "a program", "give a disk image"},
};

Error refused(const std::string& path, const std::string& why) {
    return {ErrorCode::invalid_argument, fmt::format("{} is not a usable disk image: {}", path, why)};
}

Status check_file(const std::string& path) {
    struct stat info {};
    if (stat(path.c_str(), &info) != 0) {
        return fail(ErrorCode::not_found,
                    fmt::format("there is no file {}: give a qcow2 or raw image", path));
    }
    if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)) {
        return tl::unexpected<Error>(refused(path, "a file or a block device is expected"));
    }
    if (access(path.c_str(), R_OK) != 0) {
        return fail(ErrorCode::permission_denied, fmt::format("{} cannot be read: run gemel as root", path));
    }
    return {};
}

// Only where the user did not say raw: a raw disk may begin with anything.
Status check_magic(const std::string& path) {
    std::array<char, 512> head{};
    std::ifstream file(path, std::ios::binary);
    file.read(head.data(), head.size());
    const std::string_view seen(head.data(), static_cast<std::size_t>(file.gcount()));
    for (const Magic& magic : kForeign) {
        if (seen.size() >= magic.offset + magic.bytes.size() &&
            seen.substr(magic.offset, magic.bytes.size()) == magic.bytes) {
            return tl::unexpected<Error>(refused(path, fmt::format("it is {}: {}", magic.what, magic.next)));
        }
    }
    return {};
}

Result<Json> qemu_info(const std::string& path, const std::string& format) {
    std::vector<std::string> argv = {"qemu-img", "info", "--output=json"};
    if (!format.empty()) argv.insert(argv.end(), {"-f", format});
    argv.push_back(path);
    auto run = run_child(
        argv, [](const std::string&) {}, [] { return true; });
    if (!run) return tl::unexpected<Error>(run.error());
    if (run->exit_code != 0) {
        const std::string why = printable(run->errors.substr(0, run->errors.find('\n')));
        if (why.find("lock") != std::string::npos) {
            return fail(ErrorCode::failed_precondition,
                        fmt::format("{} is in use: shut down what has it open, then try again", path));
        }
        return tl::unexpected<Error>(refused(path, why));
    }
    Json info = Json::parse(run->output, nullptr, false);
    if (!info.is_object())
        return fail(ErrorCode::internal, "qemu-img's answer is not JSON: install qemu-utils 7.2 or later");
    return info;
}

}  // namespace

Result<Image> inspect_image(const std::string& path, const std::string& format) {
    if (!format.empty() && format != "raw" && format != "qcow2") {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("the format '{}' is not known: raw or qcow2 is expected; "
                                "convert others with 'qemu-img convert -O qcow2'",
                                format));
    }
    if (auto good = check_file(path); !good) return tl::unexpected<Error>(good.error());
    if (format.empty()) {
        if (auto good = check_magic(path); !good) return tl::unexpected<Error>(good.error());
    }
    auto info = qemu_info(path, format);
    if (!info) return tl::unexpected<Error>(info.error());
    Image image{path, text_of(*info, "format"), number_of(*info, "virtual-size")};
    if (image.format != "raw" && image.format != "qcow2") {
        return tl::unexpected<Error>(refused(
            path,
            fmt::format(
                "it is {}: qcow2 or raw is expected; convert it with 'qemu-img convert -O qcow2 {} {}.qcow2'",
                image.format, path, path)));
    }
    if (has(*info, "backing-filename")) {
        return tl::unexpected<Error>(refused(
            path, fmt::format(
                      "it needs its backing file {}: flatten it with 'qemu-img convert -O qcow2 {} {}.flat'",
                      text_of(*info, "backing-filename"), path, path)));
    }
    if (flag_of(*info, "encrypted"))
        return tl::unexpected<Error>(refused(path, "it is encrypted: decrypt it first"));
    const Json& specific = object_of(object_of(*info, "format-specific"), "data");
    if (flag_of(specific, "corrupt")) {
        return tl::unexpected<Error>(
            refused(path, fmt::format("it is marked corrupt: try 'qemu-img check -r all {}'", path)));
    }
    if (image.virtual_bytes <= 0) return tl::unexpected<Error>(refused(path, "it is empty"));
    // qemu-img rounds a raw file up to whole sectors; the file itself tells
    struct stat data {};
    const bool regular = stat(path.c_str(), &data) == 0 && S_ISREG(data.st_mode);
    if (image.format == "raw" && regular && data.st_size % kSectorBytes != 0) {
        return tl::unexpected<Error>(refused(
            path, fmt::format(
                      "its {} bytes are no multiple of 512, so it is no raw disk: give a qcow2 or raw image",
                      data.st_size)));
    }
    return image;
}

Status copy_image(const Image& image, const std::string& nbd_uri,
                  const std::function<void(double)>& on_percent, const std::function<bool()>& keep_going) {
    // -t writeback: qemu-img's default never flushes. The volume is new, so zeroes need not be written.
    const std::vector<std::string> argv = {
        "qemu-img", "convert",    "-p", "-n",  "--target-is-zero", "-t",   "writeback", "-W", "-m", "8",
        "-f",       image.format, "-O", "raw", image.path,         nbd_uri};
    std::string tail;
    const auto on_output = [&](const std::string& piece) {
        tail += piece;
        const std::size_t end = tail.rfind("/100%)");
        if (end == std::string::npos) return;
        const std::size_t begin = tail.rfind('(', end);
        if (begin != std::string::npos) on_percent(std::strtod(tail.c_str() + begin + 1, nullptr));
        tail.erase(0, end + 1);
    };
    auto run = run_child(argv, on_output, keep_going);
    if (!run) return tl::unexpected<Error>(run.error());
    if (run->exit_code == 0) return {};
    if (!keep_going()) return fail(ErrorCode::failed_precondition, "interrupted");
    const std::string why = printable(run->errors.substr(0, run->errors.find('\n')));
    return fail(ErrorCode::io_error, fmt::format("copying {} failed ({})", image.path, why));
}

}  // namespace gemel::cli
