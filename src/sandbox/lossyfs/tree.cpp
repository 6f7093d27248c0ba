#include "sandbox/lossyfs/tree.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/invariant.hpp"

namespace gemel::lossyfs {

namespace {

using ReadLock = std::shared_lock<std::shared_mutex>;
using Lock = std::lock_guard<std::mutex>;

std::vector<std::string> entries_of(int directory_fd) {
    std::vector<std::string> names;
    const int copy = ::openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR* stream = copy < 0 ? nullptr : ::fdopendir(copy);
    if (stream == nullptr) return names;
    while (const dirent* entry = ::readdir(stream)) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(name);
    }
    ::closedir(stream);
    return names;
}

std::uint64_t size_of(int fd) {
    struct stat info {};
    INVARIANT(::fstat(fd, &info) == 0, "the backing file is open");
    return static_cast<std::uint64_t>(info.st_size);
}

}  // namespace

Node::~Node() {
    ::close(fd);
    if (data_fd >= 0) ::close(data_fd);
}

Tree::Tree(const std::string& backing, const std::string& trash, bool ignore_syncs)
    : ignore_syncs_(ignore_syncs) {
    trash_fd_ = ::open(trash.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    INVARIANT(trash_fd_ >= 0, "the trash directory was made by the caller");
    for (const std::string& name : entries_of(trash_fd_)) {
        if (::unlinkat(trash_fd_, name.c_str(), 0) != 0) ::unlinkat(trash_fd_, name.c_str(), AT_REMOVEDIR);
    }
    journal_ = std::make_unique<Journal>(trash_fd_);
    const int found = adopt(AT_FDCWD, backing.c_str(), root_);
    INVARIANT(found == 0, "the backing directory was checked by the caller");
}

Tree::~Tree() {
    ::close(trash_fd_);
}

// The node of an existing entry, made if it is new; its lookups grow by one. The caller holds mutex_.
int Tree::adopt(int directory_fd, const char* name, NodePtr& out) {
    const int fd = ::openat(directory_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    struct stat info {};
    if (::fstat(fd, &info) != 0) {
        const int error = errno;
        ::close(fd);
        return error;
    }
    NodePtr& slot = nodes_[info.st_ino];
    if (slot) {
        ::close(fd);
    } else {
        slot = std::make_shared<Node>(fd, info.st_ino, info.st_mode);
    }
    ++slot->lookups;
    out = slot;
    return 0;
}

int Tree::lookup(const NodePtr& directory, const char* name, NodePtr& out) {
    const Lock lock(mutex_);
    return adopt(directory->fd, name, out);
}

void Tree::forget(const NodePtr& node, std::uint64_t lookups) {
    const Lock lock(mutex_);
    INVARIANT(node->lookups >= lookups, "the kernel forgets only what it looked up");
    node->lookups -= lookups;
    drop_if_unused(node);
}

// The caller holds mutex_ and one reference; the table holds another. A journal entry or a request would be a
// third.
void Tree::drop_if_unused(const NodePtr& node) {
    if (!node || node->lookups != 0 || node.use_count() > 2) return;
    {
        const Lock lock(node->mutex);
        if (node->undo && !node->undo->clean(size_of(node->data_fd))) return;
    }
    nodes_.erase(node->ino);
}

int Tree::created(const NodePtr& directory, const char* name, NodePtr& out) {
    const int error = adopt(directory->fd, name, out);
    if (error == 0) journal_->add({Change::Kind::kCreate, directory, name, out, nullptr, "", ""});
    return error;
}

int Tree::make_file(const NodePtr& directory, const char* name, mode_t mode, dev_t device, NodePtr& out) {
    const ReadLock gate(gate_);
    const Lock lock(mutex_);
    if (cut_) return EIO;
    if (::mknodat(directory->fd, name, mode, device) != 0) return errno;
    return created(directory, name, out);
}

int Tree::make_directory(const NodePtr& directory, const char* name, mode_t mode, NodePtr& out) {
    const ReadLock gate(gate_);
    const Lock lock(mutex_);
    if (cut_) return EIO;
    if (::mkdirat(directory->fd, name, mode) != 0) return errno;
    return created(directory, name, out);
}

int Tree::make_symlink(const NodePtr& directory, const char* name, const char* target, NodePtr& out) {
    const ReadLock gate(gate_);
    const Lock lock(mutex_);
    if (cut_) return EIO;
    if (::symlinkat(target, directory->fd, name) != 0) return errno;
    return created(directory, name, out);
}

int Tree::make_link(const NodePtr& node, const NodePtr& directory, const char* name) {
    const ReadLock gate(gate_);
    const Lock lock(mutex_);
    if (cut_) return EIO;
    const std::string path = "/proc/self/fd/" + std::to_string(node->fd);
    if (::linkat(AT_FDCWD, path.c_str(), directory->fd, name, AT_SYMLINK_FOLLOW) != 0) return errno;
    ++node->lookups;
    journal_->add({Change::Kind::kCreate, directory, name, node, nullptr, "", ""});
    return 0;
}

// Moves an entry that is about to vanish into the trash. A directory must be empty, as for rmdir.
int Tree::to_trash(const NodePtr& directory, const char* name, bool want_directory, std::string& trash) {
    const int fd = ::openat(directory->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return errno;
    struct stat info {};
    int error = ::fstat(fd, &info) == 0 ? 0 : errno;
    if (error == 0 && want_directory && !S_ISDIR(info.st_mode)) error = ENOTDIR;
    if (error == 0 && !want_directory && S_ISDIR(info.st_mode)) error = EISDIR;
    if (error == 0 && want_directory && !entries_of(fd).empty()) error = ENOTEMPTY;
    ::close(fd);
    if (error != 0) return error;
    trash = journal_->trash_name();
    return ::renameat(directory->fd, name, trash_fd_, trash.c_str()) == 0 ? 0 : errno;
}

int Tree::remove(const NodePtr& directory, const char* name, bool want_directory) {
    const ReadLock gate(gate_);
    const Lock lock(mutex_);
    if (cut_) return EIO;
    NodePtr object;
    int error = adopt(directory->fd, name, object);
    if (error != 0) return error;
    --object->lookups;
    std::string trash;
    error = to_trash(directory, name, want_directory, trash);
    if (error != 0) return error;
    journal_->add({Change::Kind::kUnlink, directory, name, object, nullptr, "", trash});
    return 0;
}

int Tree::rename(const NodePtr& from, const char* name, const NodePtr& to, const char* new_name,
                 unsigned flags) {
    const ReadLock gate(gate_);
    const Lock lock(mutex_);
    if (cut_) return EIO;
    NodePtr object;
    NodePtr replaced;
    int error = adopt(from->fd, name, object);
    if (error != 0) return error;
    --object->lookups;
    std::string trash;
    if (adopt(to->fd, new_name, replaced) == 0) --replaced->lookups;
    if (flags == 0 && replaced == object) return 0;  // two names of one file: rename(2) does nothing
    if (flags == 0 && replaced) {
        error = to_trash(to, new_name, S_ISDIR(object->mode), trash);
        if (error != 0) return error;
    }
    if (::renameat2(from->fd, name, to->fd, new_name, flags) != 0) {
        error = errno;
        if (!trash.empty()) ::renameat(trash_fd_, trash.c_str(), to->fd, new_name);
        return error;
    }
    const auto kind = (flags & RENAME_EXCHANGE) != 0 ? Change::Kind::kExchange : Change::Kind::kRename;
    journal_->add({kind, from, name, object, to, new_name, trash});
    return 0;
}

// Opens the node's content once; the kernel has checked permissions. The caller holds the node's mutex.
int Tree::open_data(Node& node) {
    if (node.data_fd >= 0) return 0;
    if (!S_ISREG(node.mode)) return EINVAL;
    const std::string path = "/proc/self/fd/" + std::to_string(node.fd);
    node.data_fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    return node.data_fd < 0 ? errno : 0;
}

// Called before any change of content; the caller holds the node's mutex.
int Tree::keep(Node& node, std::uint64_t offset, std::uint64_t length) {
    const int error = open_data(node);
    if (error != 0) return error;
    if (!node.undo) node.undo = std::make_unique<FileUndo>(size_of(node.data_fd));
    node.undo->before_change(node.data_fd, offset, length);
    return 0;
}

ssize_t Tree::read(Node& node, void* to, std::size_t length, std::uint64_t offset) {
    {
        const Lock lock(node.mutex);
        const int error = open_data(node);
        if (error != 0) return -error;
    }
    const ssize_t got = ::pread(node.data_fd, to, length, static_cast<off_t>(offset));
    return got < 0 ? -errno : got;
}

ssize_t Tree::write(const NodePtr& node, const void* from, std::size_t length, std::uint64_t offset,
                    bool stable) {
    stable = stable && !ignore_syncs_;
    ssize_t written = 0;
    {
        const ReadLock gate(gate_);
        const Lock lock(node->mutex);
        if (cut_) return -EIO;
        const int error = keep(*node, offset, length);
        if (error != 0) return -error;
        written = ::pwrite(node->data_fd, from, length, static_cast<off_t>(offset));
        if (written < 0) return -errno;
        if (stable) node->undo->settle(node->data_fd, offset, static_cast<std::uint64_t>(written));
        if (node->undo->held_bytes() > kHeldBytesLimit) node->undo->forget(size_of(node->data_fd));
        if (!stable) return written;
    }
    const Lock lock(mutex_);
    for (const NodePtr& touched : journal_->commit(node.get())) drop_if_unused(touched);
    return written;
}

int Tree::truncate(const NodePtr& node, std::uint64_t size) {
    const ReadLock gate(gate_);
    const Lock lock(node->mutex);
    if (cut_) return EIO;
    int error = keep(*node, 0, 0);
    if (error != 0) return error;
    const std::uint64_t stable_end = std::min(size_of(node->data_fd), node->undo->stable_size_bytes());
    const std::uint64_t cut_off = stable_end > size ? stable_end - size : 0;
    if (cut_off > 0 && cut_off <= kRangeLimitBytes) node->undo->before_change(node->data_fd, size, cut_off);
    if (::ftruncate(node->data_fd, static_cast<off_t>(size)) != 0) return errno;
    if (cut_off > kRangeLimitBytes) node->undo->forget(size);
    return 0;
}

int Tree::allocate(const NodePtr& node, int mode, std::uint64_t offset, std::uint64_t length) {
    const ReadLock gate(gate_);
    const Lock lock(node->mutex);
    if (cut_) return EIO;
    const bool changes = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0;
    if ((mode & ~(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)) != 0) return EOPNOTSUPP;
    const bool kept = changes && length <= kRangeLimitBytes;
    const int error = keep(*node, offset, kept ? length : 0);
    if (error != 0) return error;
    if (::fallocate(node->data_fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0)
        return errno;
    if (changes && !kept) node->undo->forget(size_of(node->data_fd));
    return 0;
}

int Tree::seek(Node& node, std::int64_t offset, int whence, std::int64_t& result) {
    const Lock lock(node.mutex);
    const int error = open_data(node);
    if (error != 0) return error;
    result = ::lseek(node.data_fd, offset, whence);
    return result < 0 ? errno : 0;
}

int Tree::sync(const NodePtr& node) {
    const ReadLock gate(gate_);
    const Lock lock(mutex_);
    if (cut_) return EIO;
    if (ignore_syncs_) return 0;
    {
        const Lock content(node->mutex);
        if (node->undo) node->undo->forget(size_of(node->data_fd));
    }
    for (const NodePtr& touched : journal_->commit(node.get())) drop_if_unused(touched);
    return 0;
}

CutReport Tree::power_cut(std::uint64_t seed) {
    const std::unique_lock<std::shared_mutex> gate(gate_);
    const Lock lock(mutex_);
    CutReport report;
    if (std::exchange(cut_, true)) return report;
    std::vector<NodePtr> ordered;  // by inode number, so that one seed gives one loss
    for (const auto& [ino, node] : nodes_) {
        if (node->undo) ordered.push_back(node);
    }
    std::sort(ordered.begin(), ordered.end(),
              [](const NodePtr& a, const NodePtr& b) { return a->ino < b->ino; });
    Prng random(seed);
    for (const NodePtr& node : ordered) {
        Prng own = random.fork();
        const LossReport loss = node->undo->lose(node->data_fd, own);
        report.unsynced_sectors += loss.unsynced_sectors;
        report.lost_sectors += loss.lost_sectors;
        if (loss.lost_sectors > 0 || loss.size_after_bytes != loss.size_before_bytes)
            ++report.files_with_loss;
    }
    report.changes_lost = journal_->lose(random);
    return report;
}

}  // namespace gemel::lossyfs
