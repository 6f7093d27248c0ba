// The status screen: the API's Status as text for a tired person. Order: verdict, problems with the command
// that helps, store, nodes, volumes, guests, what is under way. 80 columns of ASCII; only a command to be
// typed may be longer, because it must be copied whole. Pure.
#pragma once

#include <string>

#include "cli/api_client.hpp"

namespace gemel::cli {

struct ScreenOptions {
    bool colours = false;
    std::size_t rows_per_table = 12;  // 0: all; else those that need attention come first
};

std::string render_status(const Json& status, const ScreenOptions& options);

// words for one object, shared with the show commands
std::string replica_words(const Json& volume, const Json& replica);
std::string fencing_words(const Json& node);
std::string link_words(const Json& node);
std::string node_words(const Json& node);  // its state; "drained" where it is online and takes no guests
std::string vm_words(const Json& vm);      // its state, or where it is migrating to

}  // namespace gemel::cli
