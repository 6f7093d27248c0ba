// Logging of the daemons: one line per event to standard error (systemd adds time and unit; elsewhere the
// lines carry a wall-clock time for human eyes, promise C7). Threads: any. Core never logs: it returns
// notices.
#pragma once

#include <string>
#include <string_view>

namespace gemel::log {

// Once, at start. `program` begins every line; GEMEL_LOG=debug shows debug lines.
void set_up(const std::string& program);

void debug(std::string_view line);
void info(std::string_view line);
void warning(std::string_view line);
void error(std::string_view line);

}  // namespace gemel::log
