// Reading an answer of the API without trusting its shape: a field that is missing, null or of another type
// gives the fallback, never an exception. What comes out is printable: control characters are replaced, so
// that no answer can drive the terminal.
#pragma once

#include <cstdint>
#include <string>

#include "cli/api_client.hpp"

namespace gemel::cli {

std::string printable(const std::string& text);
bool is_utf8(const std::string& text);
std::string text_of(const Json& object, const char* key, const char* fallback = "");
std::int64_t number_of(const Json& object, const char* key, std::int64_t fallback = 0);
bool flag_of(const Json& object, const char* key, bool fallback = false);
bool has(const Json& object, const char* key);  // present and not null
// the field itself; an empty object or array where it is missing or of another type
const Json& object_of(const Json& object, const char* key);
const Json& list_of(const Json& object, const char* key);

}  // namespace gemel::cli
