#include "adapters/log/log.hpp"

#include <cstdlib>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace gemel::log {

void set_up(const std::string& program) {
    auto logger = spdlog::stderr_logger_mt(program);
    const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
    logger->set_pattern(journal ? "%l: %v" : "%Y-%m-%d %H:%M:%S.%e %n %l: %v");
    const char* level = std::getenv("GEMEL_LOG");
    logger->set_level(level != nullptr && std::string_view(level) == "debug" ? spdlog::level::debug
                                                                             : spdlog::level::info);
    logger->flush_on(spdlog::level::info);
    spdlog::set_default_logger(std::move(logger));
}

void debug(std::string_view line) {
    spdlog::debug("{}", line);
}
void info(std::string_view line) {
    spdlog::info("{}", line);
}
void warning(std::string_view line) {
    spdlog::warn("{}", line);
}
void error(std::string_view line) {
    spdlog::error("{}", line);
}

}  // namespace gemel::log
