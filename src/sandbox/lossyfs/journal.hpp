// Journal: the order of changes to names (create, link, unlink, rename) that are not stable yet.
//
// As in a journalling file system, metadata becomes stable in order: a fsync of a file or directory makes the
// last change that concerns it stable, and everything before that one. At a power cut a seeded prefix
// survives, and the rest is taken back, newest first. What is unlinked or replaced waits in a trash directory
// until it is stable. Not in it: file content (file_undo.hpp). One owner; the caller serialises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.hpp"

namespace gemel::lossyfs {

struct Node;
using NodePtr = std::shared_ptr<Node>;

struct Change {
    enum class Kind { kCreate, kUnlink, kRename, kExchange };
    Kind kind;
    NodePtr directory;  // kRename: where it was
    std::string name;
    NodePtr object;
    NodePtr to_directory;  // kRename, kExchange
    std::string to_name;
    std::string trash;  // name in the trash directory of what was unlinked or replaced; empty: nothing was
};

class Journal {
  public:
    // trash_fd: an open directory on the same file system, used by nobody else; stays owned by the caller.
    explicit Journal(int trash_fd) : trash_fd_(trash_fd) {}

    void add(Change change) { changes_.push_back(std::move(change)); }
    // A name for the trash that was never used.
    std::string trash_name() { return "t" + std::to_string(next_trash_++); }

    // A fsync of `node`: returns the nodes that the now stable changes spoke of.
    std::vector<NodePtr> commit(const Node* node);

    // Power cut: keeps a seeded prefix, takes back the rest; returns how many were taken back.
    std::size_t lose(Prng& random);

    bool concerns(const Node* node) const;
    std::size_t size() const { return changes_.size(); }

  private:
    void make_stable(const Change& change) const;
    void take_back(const Change& change) const;

    int trash_fd_;
    std::uint64_t next_trash_ = 0;
    std::deque<Change> changes_;
};

}  // namespace gemel::lossyfs
