// Identifiers: 128-bit Uuid and distinct types made from it, so that a disk id cannot be passed where a node
// id is meant. Text form is the usual 8-4-4-4-12 lower-case hex. The nil id means "none". Making one takes
// random words as an argument.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace gemel {

struct Uuid {
    std::array<std::uint8_t, 16> bytes{};

    auto operator<=>(const Uuid&) const = default;
    bool is_nil() const { return *this == Uuid{}; }
    std::string to_string() const;

    // version 4 from two random words
    static Uuid from_random(std::uint64_t high, std::uint64_t low);
    static Result<Uuid> parse(std::string_view text);
};

// A Uuid of one kind. Tag is never instantiated.
template <typename Tag>
struct TypedId {
    Uuid value;

    auto operator<=>(const TypedId&) const = default;
    bool is_nil() const { return value.is_nil(); }
    std::string to_string() const { return value.to_string(); }
    static TypedId from_random(std::uint64_t high, std::uint64_t low) {
        return {Uuid::from_random(high, low)};
    }
    static Result<TypedId> parse(std::string_view text) {
        auto id = Uuid::parse(text);
        if (!id) return tl::unexpected<Error>(id.error());
        return TypedId{*id};
    }
};

using ClusterId = TypedId<struct ClusterTag>;
using NodeId = TypedId<struct NodeTag>;
using VolumeId = TypedId<struct VolumeTag>;    // one mirrored disk, the same on all replicas
using ReplicaId = TypedId<struct ReplicaTag>;  // one copy of it, made new for each format of its backing
using GenerationId = TypedId<struct GenerationTag>;  // random id of a data generation
using LineageId = TypedId<struct LineageTag>;        // id of a store, renewed when a single member is forced
using SessionId =
    TypedId<struct SessionTag>;  // one life of a connection between two engines, or of a front end
using OperationId =
    TypedId<struct OperationTag>;  // makes a transaction's outcome readable after a lost reply
using GuestId = TypedId<struct GuestTag>;

// One boot of one host: kernel boot id plus a nonce on tmpfs that is renewed at power-on.
struct Incarnation {
    Uuid boot;
    Uuid nonce;

    auto operator<=>(const Incarnation&) const = default;
    bool is_nil() const { return boot.is_nil() && nonce.is_nil(); }
    std::string to_string() const { return boot.to_string() + "/" + nonce.to_string(); }
    static Result<Incarnation> parse(std::string_view text);
};

}  // namespace gemel

template <>
struct std::hash<gemel::Uuid> {
    std::size_t operator()(const gemel::Uuid& id) const noexcept;
};
template <typename Tag>
struct std::hash<gemel::TypedId<Tag>> {
    std::size_t operator()(const gemel::TypedId<Tag>& id) const noexcept {
        return std::hash<gemel::Uuid>{}(id.value);
    }
};
