// The data directory of a store member and what stands beside it, under one state directory:
//   store              the member's data
//   store.forcing      a copy on which a single member is being forced; deleted whenever it is found unused
//   store.activate     journal of a rename that was decided: "put store.forcing in place, the old one to ..."
//   store.aside-N-...  superseded stores; never deleted by us
//   store.nonce        the member's nonces (design brief 3.5)
// Every change is stable (files and directories synced) before the call returns; each can be repeated after a
// crash at any point. No process is started or stopped here: the caller has made sure that none runs.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gemel::etcd {

struct MemberNonces {
    Uuid current;
    Uuid next;  // nil: no renewal under way
    bool operator==(const MemberNonces&) const = default;
};

class StoreDirectory {
  public:
    explicit StoreDirectory(std::filesystem::path state) : state_(std::move(state)) {}

    std::filesystem::path data() const { return state_ / "store"; }
    std::filesystem::path forcing() const { return state_ / "store.forcing"; }
    std::filesystem::path log() const { return state_ / "store.log"; }

    // Finishes an activation that was decided, deletes an unfinished copy. First call after a start.
    Status recover() const;
    bool present() const;      // a finished data directory
    bool has_copy() const;     // store.forcing is there
    Status make_copy() const;  // store -> store.forcing, an older copy is deleted before
    Status delete_copy() const;
    Status activate_copy(const std::string& reason) const;  // the point of no return is one rename
    // Renames the data directory; none there: ok.
    Status set_aside(const std::string& reason) const;

    Result<std::optional<MemberNonces>> read_nonces() const;
    Status write_nonces(const MemberNonces& nonces) const;

  private:
    std::filesystem::path journal() const { return state_ / "store.activate"; }
    std::filesystem::path next_aside(const std::string& reason) const;
    Status finish_activation(const std::filesystem::path& aside) const;
    std::filesystem::path state_;
};

// The data directory holds a snapshot of etcd's: its log begins there, and who joins it is sent one.
bool has_snapshot(const std::filesystem::path& data);
// Copies files and directories, holes as holes, and syncs all of it. Log segments that etcd made in advance
// (*.tmp) are left out. The destination must not exist.
Status copy_tree_durably(const std::filesystem::path& from, const std::filesystem::path& to);
// Replaces a file by another content at once, stable.
Status write_file_durably(const std::filesystem::path& path, const std::string& content, unsigned mode);
Status sync_directory(const std::filesystem::path& path);

}  // namespace gemel::etcd
