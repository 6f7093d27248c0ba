#include "cli/fields.hpp"

namespace gemel::cli {

std::string printable(const std::string& text) {
    std::string out = text;
    for (char& c : out) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20 || byte == 0x7f) c = ' ';
    }
    return out;
}

bool is_utf8(const std::string& text) {
    const std::string quoted = Json(text).dump(-1, ' ', false, Json::error_handler_t::ignore);
    // what is not UTF-8 was left out, so the text no longer comes back
    return Json::parse(quoted).get<std::string>() == text;
}

bool has(const Json& object, const char* key) {
    if (!object.is_object()) return false;
    const auto it = object.find(key);
    return it != object.end() && !it->is_null();
}

std::string text_of(const Json& object, const char* key, const char* fallback) {
    if (!has(object, key)) return fallback;
    const Json& value = object.at(key);
    return value.is_string() ? printable(value.get<std::string>()) : fallback;
}

std::int64_t number_of(const Json& object, const char* key, std::int64_t fallback) {
    if (!has(object, key)) return fallback;
    const Json& value = object.at(key);
    return value.is_number() ? value.get<std::int64_t>() : fallback;
}

bool flag_of(const Json& object, const char* key, bool fallback) {
    if (!has(object, key)) return fallback;
    const Json& value = object.at(key);
    return value.is_boolean() ? value.get<bool>() : fallback;
}

const Json& object_of(const Json& object, const char* key) {
    static const Json nothing = Json::object();
    if (!has(object, key)) return nothing;
    const Json& value = object.at(key);
    return value.is_object() ? value : nothing;
}

const Json& list_of(const Json& object, const char* key) {
    static const Json nothing = Json::array();
    if (!has(object, key)) return nothing;
    const Json& value = object.at(key);
    return value.is_array() ? value : nothing;
}

}  // namespace gemel::cli
