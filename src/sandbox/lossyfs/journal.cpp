#include "sandbox/lossyfs/journal.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/invariant.hpp"
#include "sandbox/lossyfs/tree.hpp"

namespace gemel::lossyfs {

namespace {

bool speaks_of(const Change& change, const Node* node) {
    return change.directory.get() == node || change.object.get() == node || change.to_directory.get() == node;
}

void remove_entry(int directory_fd, const std::string& name) {
    if (::unlinkat(directory_fd, name.c_str(), 0) == 0) return;
    const bool is_directory = errno == EISDIR || errno == EPERM;
    INVARIANT(is_directory && ::unlinkat(directory_fd, name.c_str(), AT_REMOVEDIR) == 0,
              "an entry that the journal knows can be removed");
}

void move_entry(int from_fd, const std::string& from, int to_fd, const std::string& to, unsigned flags = 0) {
    const int moved = ::renameat2(from_fd, from.c_str(), to_fd, to.c_str(), flags);
    INVARIANT(moved == 0, "an entry that the journal knows can be moved back");
}

}  // namespace

bool Journal::concerns(const Node* node) const {
    for (const Change& change : changes_) {
        if (speaks_of(change, node)) return true;
    }
    return false;
}

std::vector<NodePtr> Journal::commit(const Node* node) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < changes_.size(); ++i) {
        if (speaks_of(changes_[i], node)) count = i + 1;
    }
    std::vector<NodePtr> touched;
    for (; count > 0; --count) {
        Change& change = changes_.front();
        make_stable(change);
        touched.push_back(std::move(change.directory));
        touched.push_back(std::move(change.object));
        if (change.to_directory) touched.push_back(std::move(change.to_directory));
        changes_.pop_front();
    }
    return touched;
}

void Journal::make_stable(const Change& change) const {
    if (!change.trash.empty()) remove_entry(trash_fd_, change.trash);
}

void Journal::take_back(const Change& change) const {
    switch (change.kind) {
        case Change::Kind::kCreate: remove_entry(change.directory->fd, change.name); break;
        case Change::Kind::kUnlink:
            move_entry(trash_fd_, change.trash, change.directory->fd, change.name);
            break;
        case Change::Kind::kRename:
            move_entry(change.to_directory->fd, change.to_name, change.directory->fd, change.name);
            if (!change.trash.empty()) {
                move_entry(trash_fd_, change.trash, change.to_directory->fd, change.to_name);
            }
            break;
        case Change::Kind::kExchange:
            move_entry(change.to_directory->fd, change.to_name, change.directory->fd, change.name,
                       RENAME_EXCHANGE);
            break;
    }
}

std::size_t Journal::lose(Prng& random) {
    const std::uint64_t mode = random.below(10);  // 0-3: none survives; 4-7: a prefix; 8-9: all
    std::size_t kept = changes_.size();
    if (mode < 4) kept = 0;
    if (mode >= 4 && mode < 8) kept = static_cast<std::size_t>(random.below(changes_.size() + 1));
    std::size_t lost = 0;
    for (; changes_.size() > kept; ++lost) {
        take_back(changes_.back());
        changes_.pop_back();
    }
    for (; !changes_.empty(); changes_.pop_front()) make_stable(changes_.front());
    return lost;
}

}  // namespace gemel::lossyfs
