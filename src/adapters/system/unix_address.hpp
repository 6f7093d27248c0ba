// The address of a unix socket with a path.
#pragma once

#include <string>
#include <sys/un.h>

namespace gemel {

// False, with ENAMETOOLONG: the path does not fit (107 bytes at most).
bool unix_address(const std::string& path, sockaddr_un& address);

}  // namespace gemel
