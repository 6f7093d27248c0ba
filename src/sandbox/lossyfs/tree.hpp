// Tree: the lossy file system without FUSE. Names and content lie in a backing directory as they are now;
// FileUndo and Journal remember how to take back what is not stable. operations.cpp maps FUSE requests onto
// it; tests drive it directly.
//
// Every method returns 0 or a positive errno (reads and writes: bytes, or -errno) and may be called from any
// thread. After power_cut() nothing changes the backing directory any more: every call returns EIO. Limits,
// stated in docs/design/0007-sandbox.md: attributes (mode, owner, times) are stable at once, extended
// attributes are not offered, and a file with more than kHeldBytesLimit of unsynced overwritten content is
// written back on its own, as a kernel under memory pressure does.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <sys/stat.h>
#include <unordered_map>

#include "base/prng.hpp"
#include "sandbox/lossyfs/file_undo.hpp"
#include "sandbox/lossyfs/journal.hpp"

namespace gemel::lossyfs {

constexpr std::uint64_t kHeldBytesLimit = 256ULL << 20;
constexpr std::uint64_t kRangeLimitBytes = 64ULL
                                           << 20;  // a truncation or punched hole larger than this is stable

struct Node : std::enable_shared_from_this<Node> {
    Node(int node_fd, ino_t inode, mode_t file_mode) : fd(node_fd), ino(inode), mode(file_mode) {}
    ~Node();
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    int fd;  // O_PATH; keeps the inode from being reused
    ino_t ino;
    mode_t mode;
    std::uint64_t lookups = 0;  // the kernel's references; guarded by Tree's mutex
    std::mutex mutex;           // guards what follows, and the order of changes to the content
    int data_fd = -1;           // O_RDWR, regular files only, opened at first use
    std::unique_ptr<FileUndo> undo;
};

struct CutReport {
    std::size_t changes_lost = 0;
    std::size_t files_with_loss = 0;
    std::uint64_t unsynced_sectors = 0;
    std::uint64_t lost_sectors = 0;
};

class Tree {
  public:
    // backing and trash are directories on one file system; trash is emptied (what an earlier run left
    // there).
    // ignore_syncs: nothing ever becomes stable by a sync, as if no program above did one (a control
    // experiment).
    Tree(const std::string& backing, const std::string& trash, bool ignore_syncs = false);
    ~Tree();

    NodePtr root() const { return root_; }

    // Names. On success `out` has one more lookup.
    int lookup(const NodePtr& directory, const char* name, NodePtr& out);
    void forget(const NodePtr& node, std::uint64_t lookups);
    int make_file(const NodePtr& directory, const char* name, mode_t mode, dev_t device, NodePtr& out);
    int make_directory(const NodePtr& directory, const char* name, mode_t mode, NodePtr& out);
    int make_symlink(const NodePtr& directory, const char* name, const char* target, NodePtr& out);
    int make_link(const NodePtr& node, const NodePtr& directory, const char* name);
    int remove(const NodePtr& directory, const char* name, bool want_directory);
    int rename(const NodePtr& from, const char* name, const NodePtr& to, const char* new_name,
               unsigned flags);

    // Content of regular files.
    ssize_t read(Node& node, void* to, std::size_t length, std::uint64_t offset);
    ssize_t write(const NodePtr& node, const void* from, std::size_t length, std::uint64_t offset,
                  bool stable);
    int truncate(const NodePtr& node, std::uint64_t size);
    int allocate(const NodePtr& node, int mode, std::uint64_t offset, std::uint64_t length);
    int seek(Node& node, std::int64_t offset, int whence, std::int64_t& result);

    // Everything done to the node so far is stable afterwards; its creation too.
    int sync(const NodePtr& node);

    CutReport power_cut(std::uint64_t seed);

  private:
    int adopt(int directory_fd, const char* name, NodePtr& out);
    int created(const NodePtr& directory, const char* name, NodePtr& out);
    int to_trash(const NodePtr& directory, const char* name, bool want_directory, std::string& trash);
    int open_data(Node& node);
    int keep(Node& node, std::uint64_t offset, std::uint64_t length);
    void drop_if_unused(const NodePtr& node);

    const bool ignore_syncs_;
    int trash_fd_ = -1;
    std::shared_mutex gate_;  // held shared by every call, exclusively by power_cut
    bool cut_ = false;
    std::mutex mutex_;  // nodes_, journal_, lookups; taken before any Node's mutex
    std::unordered_map<ino_t, NodePtr> nodes_;
    std::unique_ptr<Journal> journal_;
    NodePtr root_;
};

}  // namespace gemel::lossyfs
