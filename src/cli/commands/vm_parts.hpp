// What creating and importing a guest have in common: its shape on the command line, new volumes that are
// deleted again when a later step fails, starting.
#pragma once

#include <string>
#include <vector>

#include "cli/commands/commands.hpp"

namespace gemel::cli {

struct VmShape {
    std::string memory;  // empty: 1G, or what a domain XML says
    int cpus = 0;        // 0: one, or what a domain XML says
    std::vector<std::string> bridges;
    int priority = -1;  // -1: the server's default
    std::string preferred_node;
    bool private_memory = false;
};

void add_shape_options(CLI::App* command, VmShape& shape);
// the body of POST /v1/vms without disks
Result<Json> guest_body(const std::string& name, const VmShape& shape);
// "web1" and 0 is web1, 1 is web1-2: the first disk has the guest's name
std::string disk_name(const std::string& guest, std::size_t index);
Status check_guest_is_new(Context& context, const std::string& name);
Status start_guest(Context& context, const std::string& name, const std::string& node);

// Volumes made on the way to a guest. Deleted again by undone(); kept after keep().
class NewVolumes {
  public:
    explicit NewVolumes(Context& context) : context_(context) {}
    Status create(const std::string& name, std::int64_t size_bytes);
    void keep() { names_.clear(); }
    // Deletes what was made and answers the error, extended where the undoing failed too.
    Status undone(const Error& cause);

  private:
    Status check_name_is_free(const std::string& name);

    Context& context_;
    std::vector<std::string> names_;
};

}  // namespace gemel::cli
