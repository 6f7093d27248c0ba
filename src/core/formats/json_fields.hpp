// JsonFields: one description of a record's fields serves both directions. Shared by the codecs of store
// records and peer messages; not for anything that reads foreign JSON. A decoder keeps the first error and
// reads on harmlessly.
//
//   template <typename V> void fields(V& v, auto& record) { v("name", record.name); ... }   // found by
//   overload
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/ids.hpp"

namespace gemel::json_fields {

using Json = nlohmann::json;

inline constexpr std::size_t kMaxElements = 4096;  // of a list or map inside a record

// The words of an enum; index = value.
template <typename Enum>
struct Words;

template <typename T>
inline constexpr bool kIsVector = false;
template <typename T>
inline constexpr bool kIsVector<std::vector<T>> = true;

class Writer {
  public:
    explicit Writer(Json& out) : out_(out) {}
    template <typename T>
    void operator()(const char* name, const T& value) {
        out_[name] = make(value);
    }

    template <typename T>
    static Json make(const T& value) {
        if constexpr (std::is_enum_v<T>) {
            return Words<T>::kList[static_cast<std::size_t>(value)];
        } else if constexpr (std::is_same_v<T, std::string> || std::is_arithmetic_v<T>) {
            return value;
        } else if constexpr (
            requires { value.bytes; } || requires { value.value.bytes; } || requires { value.boot; }) {
            return value.to_string();
        } else if constexpr (requires { value.has_value(); }) {
            return value ? make(*value) : Json(nullptr);
        } else if constexpr (requires { typename T::mapped_type; }) {
            Json object = Json::object();
            for (const auto& [key, element] : value) object[key] = make(element);
            return object;
        } else if constexpr (kIsVector<T>) {
            Json list = Json::array();
            for (const auto& element : value) list.push_back(make(element));
            return list;
        } else {
            Json object = Json::object();
            Writer inner(object);
            fields(inner, value);
            return object;
        }
    }

  private:
    Json& out_;
};

class Reader {
  public:
    Reader(const Json& in, std::string& error, std::string where)
        : in_(in), error_(error), where_(std::move(where)) {
        if (!in_.is_object()) complain("expected an object");
    }
    // Once, after all fields: anything left over is a field this program does not know.
    void finish() {
        if (!error_.empty() || !in_.is_object()) return;
        if (in_.size() != seen_) {
            for (const auto& item : in_.items()) {
                if (!known(item.key())) return complain("field '" + printable(item.key()) + "' is not known");
            }
        }
    }
    template <typename T>
    void operator()(const char* name, T& value) {
        names_.push_back(name);
        if (!error_.empty() || !in_.is_object()) return;
        const auto at = in_.find(name);
        if (at == in_.end()) return complain(std::string("field '") + name + "' is missing");
        ++seen_;
        take(*at, value, where_ + "." + name);
    }

  private:
    static std::string printable(const std::string& text) {
        std::string out;
        for (const char c : text.substr(0, 40)) out += c >= ' ' && c <= '~' ? c : '?';
        return out;
    }
    bool known(const std::string& name) const {
        for (const char* one : names_) {
            if (name == one) return true;
        }
        return false;
    }
    void complain(const std::string& what) {
        if (error_.empty()) error_ = where_ + ": " + what;
    }
    void complain_at(const std::string& where, const std::string& what) {
        if (error_.empty()) error_ = where + ": expected " + what;
    }

    template <typename T>
    void take(const Json& in, T& value, const std::string& where) {
        if constexpr (std::is_enum_v<T>) {
            take_enum(in, value, where);
        } else if constexpr (std::is_same_v<T, std::string>) {
            if (!in.is_string()) return complain_at(where, "text");
            value = in.get_ref<const std::string&>();
        } else if constexpr (std::is_same_v<T, bool>) {
            if (!in.is_boolean()) return complain_at(where, "true or false");
            value = in.get<bool>();
        } else if constexpr (std::is_arithmetic_v<T>) {
            take_number(in, value, where);
        } else if constexpr (
            requires { value.bytes; } || requires { value.value.bytes; } || requires { value.boot; }) {
            if (!in.is_string()) return complain_at(where, "an id");
            auto parsed = parse_id<T>(in.get_ref<const std::string&>());
            if (!parsed) return complain_at(where, "an id");
            value = *parsed;
        } else {
            take_compound(in, value, where);
        }
    }
    template <typename T>
    void take_compound(const Json& in, T& value, const std::string& where) {
        if constexpr (requires { value.has_value(); }) {
            if (in.is_null()) return value.reset();
            value.emplace();
            take(in, *value, where);
        } else if constexpr (requires { typename T::mapped_type; }) {
            if (!in.is_object() || in.size() > kMaxElements) return complain_at(where, "an object");
            for (const auto& item : in.items())
                take(item.value(), value[item.key()], where + "." + printable(item.key()));
        } else if constexpr (kIsVector<T>) {
            if (!in.is_array() || in.size() > kMaxElements) return complain_at(where, "a list");
            for (const auto& element : in) {
                value.emplace_back();
                take(element, value.back(), where);
            }
        } else {
            Reader inner(in, error_, where);
            fields(inner, value);
            inner.finish();
        }
    }
    template <typename T>
    static Result<T> parse_id(const std::string& text) {
        return T::parse(text);
    }
    template <typename T>
    void take_enum(const Json& in, T& value, const std::string& where) {
        if (in.is_string()) {
            const auto& text = in.get_ref<const std::string&>();
            for (std::size_t i = 0; i < Words<T>::kList.size(); ++i) {
                if (text == Words<T>::kList[i]) {
                    value = static_cast<T>(i);
                    return;
                }
            }
        }
        complain_at(where, "a known word");
    }
    template <typename T>
    void take_number(const Json& in, T& value, const std::string& where) {
        if constexpr (std::is_unsigned_v<T>) {
            if (!in.is_number_unsigned() || in.get<std::uint64_t>() > std::numeric_limits<T>::max()) {
                return complain_at(where, "a whole number in range");
            }
        } else {
            if (!in.is_number_integer()) return complain_at(where, "a whole number");
            if (in.is_number_unsigned() &&
                in.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<T>::max())) {
                return complain_at(where, "a whole number in range");
            }
        }
        value = in.get<T>();
    }

    const Json& in_;
    std::string& error_;
    std::string where_;
    std::vector<const char*> names_;
    std::size_t seen_ = 0;
};

}  // namespace gemel::json_fields
