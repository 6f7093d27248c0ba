#include "adapters/http/tests/pki.hpp"

#include <cstdlib>
#include <fstream>

#include <fmt/format.h>

#include "base/invariant.hpp"

namespace gemel::testing {
namespace {

void shell(const std::string& command) {
    INVARIANT(std::system(command.c_str()) == 0, "openssl makes test certificates");
}

}  // namespace

ScratchDirectory::ScratchDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "gemel-test-XXXXXX").string();
    INVARIANT(::mkdtemp(pattern.data()) != nullptr, "a scratch directory can be made");
    path_ = pattern;
}

ScratchDirectory::~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

TestPki::TestPki(std::filesystem::path directory) : directory_(std::move(directory)) {
    std::filesystem::create_directories(directory_);
    shell(fmt::format(
        "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout "
        "ca.key -out ca.crt -subj /CN=test-ca 2>/dev/null",
        directory_.string()));
}

http::TlsFiles TestPki::node(const std::string& name) {
    const auto file = [&](const std::string& end) { return (directory_ / (name + end)).string(); };
    std::ofstream(file(".ext")) << "subjectAltName=IP:127.0.0.1,DNS:" << name
                                << "\nextendedKeyUsage=serverAuth,clientAuth\n";
    shell(
        fmt::format("cd {0} && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "
                    "{1}.key -out {1}.csr "
                    "-subj /CN={1} 2>/dev/null && openssl x509 -req -in {1}.csr -CA ca.crt -CAkey ca.key "
                    "-CAcreateserial -days 2 "
                    "-extfile {1}.ext -out {1}.crt 2>/dev/null",
                    directory_.string(), name));
    return {(directory_ / "ca.crt").string(), file(".crt"), file(".key")};
}

}  // namespace gemel::testing
