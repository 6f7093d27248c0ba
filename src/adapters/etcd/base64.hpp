// Base64 (RFC 4648, with padding): how etcd's JSON gateway carries keys and values.
#pragma once

#include <string>
#include <string_view>

#include "base/error.hpp"

namespace gemel::etcd {

std::string base64_encoded(std::string_view bytes);
Result<std::string> base64_decoded(std::string_view text);

}  // namespace gemel::etcd
