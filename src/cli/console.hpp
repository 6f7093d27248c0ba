// Attaching this terminal to a guest's serial line: a pty or a unix stream on this node. Ctrl-] detaches. The
// terminal is raw meanwhile and always put back.
#pragma once

#include <functional>
#include <string>

#include "base/error.hpp"

namespace gemel::cli {

// kind: "pty" or "unix" as the API says. attached() is called once the line is open and the terminal is raw:
// what is typed after it reaches the guest as it is. Returns when the user detaches or the guest's side
// closes; closed_by_guest tells which.
struct ConsoleEnd {
    bool closed_by_guest = false;
};
Result<ConsoleEnd> attach_console(const std::string& kind, const std::string& path,
                                  const std::function<void()>& attached);

}  // namespace gemel::cli
