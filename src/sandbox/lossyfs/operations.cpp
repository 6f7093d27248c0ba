#include "sandbox/lossyfs/operations.hpp"

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <sys/statvfs.h>
#include <unistd.h>
#include <vector>

#include <climits>

#include "sandbox/lossyfs/tree.hpp"

namespace gemel::lossyfs {

namespace {

constexpr double kCacheSeconds = 60.0;  // nobody else changes the backing directory

Tree& tree_of(fuse_req_t request) {
    return *static_cast<Tree*>(fuse_req_userdata(request));
}

// FUSE's inode numbers are addresses of Nodes: a Node lives as long as the kernel has looked it up.
NodePtr node_of(fuse_req_t request, fuse_ino_t ino) {
    if (ino == FUSE_ROOT_ID) return tree_of(request).root();
    return reinterpret_cast<Node*>(ino)->shared_from_this();
}

int attributes_of(const Node& node, struct stat& info) {
    return ::fstatat(node.fd, "", &info, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
}

std::string path_of(const Node& node) {
    return "/proc/self/fd/" + std::to_string(node.fd);
}

fuse_entry_param entry_of(const NodePtr& node) {
    fuse_entry_param entry{};
    entry.ino = reinterpret_cast<fuse_ino_t>(node.get());
    entry.attr_timeout = kCacheSeconds;
    entry.entry_timeout = kCacheSeconds;
    attributes_of(*node, entry.attr);
    return entry;
}

void reply_entry(fuse_req_t request, int error, const NodePtr& node) {
    if (error != 0) {
        fuse_reply_err(request, error);
        return;
    }
    const fuse_entry_param entry = entry_of(node);
    fuse_reply_entry(request, &entry);
}

// New entries belong to who made them, not to this daemon.
void give_to_caller(fuse_req_t request, const NodePtr& node) {
    const fuse_ctx* caller = fuse_req_ctx(request);
    if (node && (caller->uid != 0 || caller->gid != 0)) {
        [[maybe_unused]] const int owned =
            ::fchownat(node->fd, "", caller->uid, caller->gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
    }
}

void do_init(void*, fuse_conn_info* connection) {
    // Truncation arrives as a request of its own, so that it can be taken back.
    connection->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC);
    connection->want |=
        connection->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS);
}

void do_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
    NodePtr node;
    const int error = tree_of(request).lookup(node_of(request, parent), name, node);
    reply_entry(request, error, node);
}

void do_forget(fuse_req_t request, fuse_ino_t ino, std::uint64_t lookups) {
    if (ino != FUSE_ROOT_ID) tree_of(request).forget(node_of(request, ino), lookups);
    fuse_reply_none(request);
}

void do_forget_multi(fuse_req_t request, std::size_t count, fuse_forget_data* list) {
    for (std::size_t i = 0; i < count; ++i) {
        if (list[i].ino != FUSE_ROOT_ID)
            tree_of(request).forget(node_of(request, list[i].ino), list[i].nlookup);
    }
    fuse_reply_none(request);
}

void do_getattr(fuse_req_t request, fuse_ino_t ino, fuse_file_info*) {
    struct stat info {};
    const int error = attributes_of(*node_of(request, ino), info);
    if (error != 0) {
        fuse_reply_err(request, error);
    } else {
        fuse_reply_attr(request, &info, kCacheSeconds);
    }
}

int set_times(const Node& node, const struct stat& wanted, int which) {
    std::array<timespec, 2> times{};
    times[0].tv_nsec = times[1].tv_nsec = UTIME_OMIT;
    if ((which & FUSE_SET_ATTR_ATIME_NOW) != 0) {
        times[0].tv_nsec = UTIME_NOW;
    } else if ((which & FUSE_SET_ATTR_ATIME) != 0) {
        times[0] = wanted.st_atim;
    }
    if ((which & FUSE_SET_ATTR_MTIME_NOW) != 0) {
        times[1].tv_nsec = UTIME_NOW;
    } else if ((which & FUSE_SET_ATTR_MTIME) != 0) {
        times[1] = wanted.st_mtim;
    }
    return ::utimensat(AT_FDCWD, path_of(node).c_str(), times.data(), 0) == 0 ? 0 : errno;
}

void do_setattr(fuse_req_t request, fuse_ino_t ino, struct stat* wanted, int which, fuse_file_info* file) {
    const NodePtr node = node_of(request, ino);
    int error = 0;
    if ((which & FUSE_SET_ATTR_MODE) != 0 && ::chmod(path_of(*node).c_str(), wanted->st_mode) != 0)
        error = errno;
    if (error == 0 && (which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0) {
        const uid_t uid = (which & FUSE_SET_ATTR_UID) != 0 ? wanted->st_uid : static_cast<uid_t>(-1);
        const gid_t gid = (which & FUSE_SET_ATTR_GID) != 0 ? wanted->st_gid : static_cast<gid_t>(-1);
        if (::fchownat(node->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) error = errno;
    }
    if (error == 0 && (which & FUSE_SET_ATTR_SIZE) != 0) {
        error = tree_of(request).truncate(node, static_cast<std::uint64_t>(wanted->st_size));
    }
    if (error == 0 && (which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) != 0) {
        error = set_times(*node, *wanted, which);
    }
    if (error != 0) {
        fuse_reply_err(request, error);
    } else {
        do_getattr(request, ino, file);
    }
}

void do_readlink(fuse_req_t request, fuse_ino_t ino) {
    std::array<char, PATH_MAX + 1> target{};
    if (::readlinkat(node_of(request, ino)->fd, "", target.data(), PATH_MAX) < 0) {
        fuse_reply_err(request, errno);
    } else {
        fuse_reply_readlink(request, target.data());
    }
}

void do_mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
    NodePtr node;
    const int error = tree_of(request).make_file(node_of(request, parent), name, mode, device, node);
    give_to_caller(request, node);
    reply_entry(request, error, node);
}

void do_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
    NodePtr node;
    const int error = tree_of(request).make_directory(node_of(request, parent), name, mode, node);
    give_to_caller(request, node);
    reply_entry(request, error, node);
}

void do_symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
    NodePtr node;
    const int error = tree_of(request).make_symlink(node_of(request, parent), name, target, node);
    give_to_caller(request, node);
    reply_entry(request, error, node);
}

void do_link(fuse_req_t request, fuse_ino_t ino, fuse_ino_t parent, const char* name) {
    const NodePtr node = node_of(request, ino);
    reply_entry(request, tree_of(request).make_link(node, node_of(request, parent), name), node);
}

void do_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
    fuse_reply_err(request, tree_of(request).remove(node_of(request, parent), name, false));
}

void do_rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
    fuse_reply_err(request, tree_of(request).remove(node_of(request, parent), name, true));
}

void do_rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t to, const char* new_name,
               unsigned flags) {
    fuse_reply_err(request, tree_of(request).rename(node_of(request, parent), name, node_of(request, to),
                                                    new_name, flags));
}

// An O_DIRECT user talks to the disk, not to a page cache.
void set_cache_mode(fuse_file_info* file) {
    file->direct_io = (file->flags & O_DIRECT) != 0 ? 1 : 0;
}

void do_open(fuse_req_t request, fuse_ino_t ino, fuse_file_info* file) {
    if (!S_ISREG(node_of(request, ino)->mode)) {
        fuse_reply_err(request, EINVAL);
        return;
    }
    set_cache_mode(file);
    fuse_reply_open(request, file);
}

void do_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* file) {
    NodePtr node;
    const NodePtr directory = node_of(request, parent);
    int error = tree_of(request).make_file(directory, name, S_IFREG | mode, 0, node);
    if (error == EEXIST && (file->flags & O_EXCL) == 0) {
        error = tree_of(request).lookup(directory, name, node);
    } else {
        give_to_caller(request, node);
    }
    if (error != 0) {
        fuse_reply_err(request, error);
        return;
    }
    set_cache_mode(file);
    const fuse_entry_param entry = entry_of(node);
    fuse_reply_create(request, &entry, file);
}

void do_read(fuse_req_t request, fuse_ino_t ino, std::size_t length, off_t offset, fuse_file_info*) {
    const std::unique_ptr<char[]> buffer(new char[length]);
    const NodePtr node = node_of(request, ino);
    const ssize_t got =
        tree_of(request).read(*node, buffer.get(), length, static_cast<std::uint64_t>(offset));
    if (got < 0) {
        fuse_reply_err(request, static_cast<int>(-got));
    } else {
        fuse_reply_buf(request, buffer.get(), static_cast<std::size_t>(got));
    }
}

void do_write(fuse_req_t request, fuse_ino_t ino, const char* from, std::size_t length, off_t offset,
              fuse_file_info* file) {
    // The kernel sets the flag for O_DSYNC and O_SYNC files and for single writes with RWF_DSYNC.
    const bool stable = (file->flags & (O_DSYNC | O_SYNC)) != 0;
    const ssize_t written = tree_of(request).write(node_of(request, ino), from, length,
                                                   static_cast<std::uint64_t>(offset), stable);
    if (written < 0) {
        fuse_reply_err(request, static_cast<int>(-written));
    } else {
        fuse_reply_write(request, static_cast<std::size_t>(written));
    }
}

void do_sync(fuse_req_t request, fuse_ino_t ino, int, fuse_file_info*) {
    fuse_reply_err(request, tree_of(request).sync(node_of(request, ino)));
}

void do_fallocate(fuse_req_t request, fuse_ino_t ino, int mode, off_t offset, off_t length, fuse_file_info*) {
    fuse_reply_err(request,
                   tree_of(request).allocate(node_of(request, ino), mode, static_cast<std::uint64_t>(offset),
                                             static_cast<std::uint64_t>(length)));
}

void do_seek(fuse_req_t request, fuse_ino_t ino, off_t offset, int whence, fuse_file_info*) {
    std::int64_t result = 0;
    const int error = tree_of(request).seek(*node_of(request, ino), offset, whence, result);
    if (error != 0) {
        fuse_reply_err(request, error);
    } else {
        fuse_reply_lseek(request, result);
    }
}

void do_opendir(fuse_req_t request, fuse_ino_t ino, fuse_file_info* file) {
    const int fd = ::openat(node_of(request, ino)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR* stream = fd < 0 ? nullptr : ::fdopendir(fd);
    if (stream == nullptr) {
        fuse_reply_err(request, errno);
        return;
    }
    file->fh = reinterpret_cast<std::uint64_t>(stream);
    fuse_reply_open(request, file);
}

void do_readdir(fuse_req_t request, fuse_ino_t, std::size_t length, off_t offset, fuse_file_info* file) {
    DIR* stream = reinterpret_cast<DIR*>(file->fh);
    if (::telldir(stream) != offset) ::seekdir(stream, offset);
    std::vector<char> buffer(length);
    std::size_t used = 0;
    for (long before = ::telldir(stream); const dirent* entry = ::readdir(stream);
         before = ::telldir(stream)) {
        struct stat info {};
        info.st_ino = entry->d_ino;
        info.st_mode = static_cast<mode_t>(entry->d_type) << 12U;
        const std::size_t need = fuse_add_direntry(request, buffer.data() + used, length - used,
                                                   entry->d_name, &info, ::telldir(stream));
        if (need > length - used) {
            ::seekdir(stream, before);
            break;
        }
        used += need;
    }
    fuse_reply_buf(request, buffer.data(), used);
}

void do_releasedir(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
    ::closedir(reinterpret_cast<DIR*>(file->fh));
    fuse_reply_err(request, 0);
}

void do_statfs(fuse_req_t request, fuse_ino_t ino) {
    struct statvfs info {};
    if (::fstatvfs(node_of(request, ino)->fd, &info) != 0) {
        fuse_reply_err(request, errno);
    } else {
        fuse_reply_statfs(request, &info);
    }
}

}  // namespace

// Locks are not here on purpose: without these handlers the kernel keeps flock, POSIX and OFD locks itself,
// which is right where all users are on one machine.
fuse_lowlevel_ops operations() {
    fuse_lowlevel_ops table{};
    table.init = do_init;
    table.lookup = do_lookup;
    table.forget = do_forget;
    table.forget_multi = do_forget_multi;
    table.getattr = do_getattr;
    table.setattr = do_setattr;
    table.readlink = do_readlink;
    table.mknod = do_mknod;
    table.mkdir = do_mkdir;
    table.symlink = do_symlink;
    table.link = do_link;
    table.unlink = do_unlink;
    table.rmdir = do_rmdir;
    table.rename = do_rename;
    table.open = do_open;
    table.create = do_create;
    table.read = do_read;
    table.write = do_write;
    table.fsync = do_sync;
    table.fsyncdir = do_sync;
    table.fallocate = do_fallocate;
    table.lseek = do_seek;
    table.opendir = do_opendir;
    table.readdir = do_readdir;
    table.releasedir = do_releasedir;
    table.statfs = do_statfs;
    return table;
}

}  // namespace gemel::lossyfs
