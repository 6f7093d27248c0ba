#include "adapters/etcd/store_directory.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "adapters/system/owned_fd.hpp"

namespace gemel::etcd {
namespace {

namespace fs = std::filesystem;

tl::unexpected<Error> broken(const char* what, const fs::path& path) {
    return fail(ErrorCode::io_error,
                fmt::format("cannot {} {}: {}", what, path.string(), std::generic_category().message(errno)));
}

Status write_all(int fd, const char* data, std::size_t size, off_t offset, const fs::path& path) {
    while (size > 0) {
        const ssize_t done = ::pwrite(fd, data, size, offset);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return broken("write", path);
        data += done;
        size -= static_cast<std::size_t>(done);
        offset += done;
    }
    return {};
}

Status copy_extent(int from, int to, off_t begin, off_t end, const fs::path& path) {
    static thread_local std::array<char, 1 << 16> buffer;
    while (begin < end) {
        const auto want = std::min<off_t>(end - begin, static_cast<off_t>(buffer.size()));
        const ssize_t got = ::pread(from, buffer.data(), static_cast<std::size_t>(want), begin);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return broken("read", path);
        if (got == 0) break;
        if (auto ok = write_all(to, buffer.data(), static_cast<std::size_t>(got), begin, path); !ok)
            return ok;
        begin += got;
    }
    return {};
}

Status copy_one_file(const fs::path& from, const fs::path& to) {
    const OwnedFd in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
    if (!in.is_open()) return broken("open", from);
    struct stat status {};
    if (::fstat(in.get(), &status) != 0) return broken("look at", from);
    const OwnedFd out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, status.st_mode & 0777));
    if (!out.is_open()) return broken("create", to);
    if (::ftruncate(out.get(), status.st_size) != 0) return broken("size", to);
    off_t position = 0;
    while (position < status.st_size) {
        const off_t data = ::lseek(in.get(), position, SEEK_DATA);
        if (data < 0 && errno == ENXIO) break;  // only a hole is left
        const off_t begin = data < 0 ? position : data;
        const off_t hole = data < 0 ? status.st_size : ::lseek(in.get(), begin, SEEK_HOLE);
        const off_t end = hole < 0 ? status.st_size : hole;
        if (auto ok = copy_extent(in.get(), out.get(), begin, end, to); !ok) return ok;
        position = end;
    }
    if (::fsync(out.get()) != 0) return broken("sync", to);
    return {};
}

Status copy_directory(const fs::path& from, const fs::path& to) {
    if (::mkdir(to.c_str(), 0700) != 0) return broken("create", to);
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(from, error)) {
        const fs::path target = to / entry.path().filename();
        Status done;
        if (entry.is_directory()) {
            done = copy_directory(entry.path(), target);
        } else if (entry.is_regular_file() && entry.path().extension() != ".tmp") {
            done = copy_one_file(entry.path(), target);
        }
        if (!done) return done;
    }
    if (error)
        return fail(ErrorCode::io_error, fmt::format("cannot list {}: {}", from.string(), error.message()));
    return sync_directory(to);
}

Status remove_tree(const fs::path& path) {
    std::error_code error;
    fs::remove_all(path, error);
    if (error)
        return fail(ErrorCode::io_error, fmt::format("cannot remove {}: {}", path.string(), error.message()));
    return sync_directory(path.parent_path());
}

Status rename_durably(const fs::path& from, const fs::path& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) return broken("rename", from);
    return sync_directory(to.parent_path());
}

}  // namespace

Status sync_directory(const fs::path& path) {
    const OwnedFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.is_open() || ::fsync(directory.get()) != 0) return broken("sync", path);
    return {};
}

bool has_snapshot(const fs::path& data) {
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(data / "member" / "snap", none))
        if (entry.path().extension() == ".snap") return true;
    return false;
}

Status copy_tree_durably(const fs::path& from, const fs::path& to) {
    if (auto done = copy_directory(from, to); !done) return done;
    return sync_directory(to.parent_path());
}

Status write_file_durably(const fs::path& path, const std::string& content, unsigned mode) {
    const fs::path temporary = path.string() + ".new";
    {
        const OwnedFd file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
        if (!file.is_open()) return broken("create", temporary);
        if (auto ok = write_all(file.get(), content.data(), content.size(), 0, temporary); !ok) return ok;
        if (::fsync(file.get()) != 0) return broken("sync", temporary);
    }
    return rename_durably(temporary, path);
}

bool StoreDirectory::present() const {
    return fs::exists(data() / "member");
}
bool StoreDirectory::has_copy() const {
    return fs::exists(forcing());
}

fs::path StoreDirectory::next_aside(const std::string& reason) const {
    std::string slug;
    for (const char c : reason) {
        const char low = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
        if ((low >= 'a' && low <= 'z') || (low >= '0' && low <= '9')) {
            slug += low;
        } else if (!slug.empty() && slug.back() != '-') {
            slug += '-';
        }
        if (slug.size() >= 40) break;
    }
    while (slug.ends_with('-')) slug.pop_back();
    for (unsigned number = 1;; ++number) {
        const auto prefix = fmt::format("store.aside-{}-", number);
        bool taken = false;
        std::error_code ignored;
        for (const auto& entry : fs::directory_iterator(state_, ignored))
            taken = taken || entry.path().filename().string().starts_with(prefix);
        if (!taken) return state_ / (prefix + slug);
    }
}

Status StoreDirectory::set_aside(const std::string& reason) const {
    if (!fs::exists(data())) return {};
    return rename_durably(data(), next_aside(reason));
}

Status StoreDirectory::make_copy() const {
    if (!present()) return fail(ErrorCode::failed_precondition, "there is no store here to copy");
    if (has_copy()) {
        if (auto done = delete_copy(); !done) return done;
    }
    const Status copied = copy_tree_durably(data(), forcing());
    if (copied) return {};
    // half a copy would be taken for a forcing under way
    const Status deleted = delete_copy();
    return deleted ? copied : deleted;
}

Status StoreDirectory::delete_copy() const {
    return has_copy() ? remove_tree(forcing()) : Status();
}

Status StoreDirectory::activate_copy(const std::string& reason) const {
    if (!fs::exists(forcing() / "member"))
        return fail(ErrorCode::failed_precondition, "there is no prepared copy of the store to put in place");
    const fs::path aside = next_aside(reason);
    if (auto done = write_file_durably(journal(), aside.filename().string(), 0600); !done) return done;
    return finish_activation(aside);
}

// From the journal's rename on, this is done however often it is interrupted.
Status StoreDirectory::finish_activation(const fs::path& aside) const {
    if (has_copy()) {
        if (fs::exists(data())) {
            if (auto done = rename_durably(data(), aside); !done) return done;
        }
        if (auto done = rename_durably(forcing(), data()); !done) return done;
    }
    if (::unlink(journal().c_str()) != 0) return broken("remove", journal());
    return sync_directory(state_);
}

Status StoreDirectory::recover() const {
    if (fs::exists(journal())) {
        std::ifstream file(journal());
        std::string name;
        std::getline(file, name);
        if (!name.starts_with("store.aside-") || name.find('/') != std::string::npos)
            return fail(
                ErrorCode::corrupt,
                fmt::format("{} is damaged: the name of a store set aside is expected", journal().string()));
        return finish_activation(state_ / name);
    }
    return delete_copy();
}

Result<std::optional<MemberNonces>> StoreDirectory::read_nonces() const {
    const fs::path path = state_ / "store.nonce";
    if (!fs::exists(path)) return std::optional<MemberNonces>();
    std::ifstream file(path);
    const auto json = nlohmann::json::parse(file, nullptr, false);
    const auto damaged = [&] {
        return fail(ErrorCode::corrupt,
                    fmt::format("{} is damaged: two member nonces are expected", path.string()));
    };
    if (!json.is_object() || !json.contains("current") || !json.contains("next")) return damaged();
    if (!json["current"].is_string() || !json["next"].is_string()) return damaged();
    const auto current = Uuid::parse(json["current"].get<std::string>());
    const auto next = Uuid::parse(json["next"].get<std::string>());
    if (!current || !next) return damaged();
    return std::optional(MemberNonces{*current, *next});
}

Status StoreDirectory::write_nonces(const MemberNonces& nonces) const {
    const nlohmann::json json{{"current", nonces.current.to_string()}, {"next", nonces.next.to_string()}};
    return write_file_durably(state_ / "store.nonce", json.dump() + "\n", 0600);
}

}  // namespace gemel::etcd
