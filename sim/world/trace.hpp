// Trace: what happened, as a running hash (the same seed twice must give the same), a ring of the last events
// (what a violation prints) and, when asked for, text. A note is a name known at compile time and three
// numbers: cheap enough to be always on. Not in it: checks.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/instant.hpp"

namespace gemel::sim {

// The name of a kind of event with its hash, made by the compiler from a literal.
struct TraceName {
    const char* text;
    std::uint64_t hash;
    consteval TraceName(const char* literal) : text(literal), hash(0xcbf29ce484222325ULL) {
        for (const char* c = literal; *c != '\0'; ++c) {
            hash = (hash ^ static_cast<std::uint8_t>(*c)) * 0x100000001b3ULL;
        }
    }
};

// Nodes are 0..2 (the witness is 2); kWorld is the world itself.
inline constexpr std::uint32_t kWorld = 9;

class Trace {
  public:
    explicit Trace(bool print) : print_(print) {}

    void note(Instant now, std::uint32_t node, TraceName name, std::uint64_t a = 0, std::uint64_t b = 0,
              std::uint64_t c = 0) {
        hash_ = mix(mix(hash_ ^ name.hash, static_cast<std::uint64_t>(now.nanoseconds_since_boot)),
                    mix(a * 31 + node, mix(b, c)));
        Record& record = ring_[notes_++ % kRing];
        record.when = now;
        record.name = name.text;
        record.a = a;
        record.b = b;
        record.c = c;
        record.node = node;
        if (!record.text.empty()) record.text.clear();
        if (print_) [[unlikely]]
            print(record);
        if (listener_) [[unlikely]]
            listener_(now, node, name.text, a, {});
    }
    // a name known at run time and a text: for lines meant for people
    void note_text(Instant now, std::uint32_t node, const char* name, std::string_view text);
    // hears every event as it happens: `a` is its first number, `text` is set where the event has one
    using Listener = std::function<void(Instant now, std::uint32_t node, std::string_view name,
                                        std::uint64_t a, std::string_view text)>;
    void listen(Listener listener) { listener_ = std::move(listener); }
    std::uint64_t hash() const { return hash_; }
    std::uint64_t notes() const { return notes_; }
    // the newest `count` events, oldest first, one a line
    std::vector<std::string> last(std::size_t count) const;

  private:
    struct Record {
        Instant when;
        const char* name;
        std::uint64_t a, b, c;
        std::uint32_t node;
        std::string text;
    };
    static constexpr std::size_t kRing = 1024;
    static std::uint64_t mix(std::uint64_t left, std::uint64_t right) {
        const std::uint64_t z = (left ^ (right + 0x9e3779b97f4a7c15ULL)) * 0xbf58476d1ce4e5b9ULL;
        return z ^ (z >> 29);
    }
    static std::string line(const Record& record);
    static void print(const Record& record);

    std::uint64_t hash_ = 0;
    std::uint64_t notes_ = 0;
    bool print_;
    Listener listener_;
    std::array<Record, kRing> ring_{};
};

}  // namespace gemel::sim
