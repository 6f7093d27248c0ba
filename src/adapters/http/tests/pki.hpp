// A throw-away certificate authority for tests: ca.crt, and NAME.crt + NAME.key for each node, valid for
// loopback addresses. Made with the openssl program.
#pragma once

#include <filesystem>
#include <string>

#include "adapters/http/address.hpp"

namespace gemel::testing {

// A directory that is removed with everything in it.
class ScratchDirectory {
  public:
    ScratchDirectory();
    ~ScratchDirectory();
    ScratchDirectory(const ScratchDirectory&) = delete;
    ScratchDirectory& operator=(const ScratchDirectory&) = delete;
    const std::filesystem::path& path() const { return path_; }
    std::string operator/(const std::string& name) const { return (path_ / name).string(); }

  private:
    std::filesystem::path path_;
};

class TestPki {
  public:
    explicit TestPki(std::filesystem::path directory);
    http::TlsFiles node(const std::string& name);

  private:
    std::filesystem::path directory_;
};

}  // namespace gemel::testing
