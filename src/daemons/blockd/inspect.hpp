// gemel-blockd --inspect FILE: all metadata of a replica as text for a human. Reads only, without a lock, so
// it may be used on a live image (then what it shows may be in the middle of an update).
#pragma once

#include <string>

#include "base/error.hpp"

namespace gemel::blockd {

Result<std::string> inspect(const std::string& path);

}  // namespace gemel::blockd
