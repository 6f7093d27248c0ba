#include "adapters/system/unix_address.hpp"

#include <cerrno>
#include <cstring>
#include <sys/socket.h>

namespace gemel {

bool unix_address(const std::string& path, sockaddr_un& address) {
    address = {};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return true;
}

}  // namespace gemel
