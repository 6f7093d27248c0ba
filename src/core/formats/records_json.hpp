// JSON codec of the store's records. Every value is one object with "schema" first. decode() never throws and
// never guesses: a missing field, a wrong type, a number out of range, an unknown enum word or an unknown
// schema is an Error (corrupt, or unsupported for the schema), because a record read half is worse than one
// not read (promise C8). Unknown fields are refused for the same reason. At most kMaxRecordBytes.
#pragma once

#include <string>
#include <string_view>

#include "base/error.hpp"
#include "core/formats/records.hpp"

namespace gemel {

inline constexpr std::size_t kMaxRecordBytes = 1U << 20;

std::string encode(const VolumeRecord& record);
std::string encode(const ClusterRecord& record);
std::string encode(const LineageRecord& record);
std::string encode(const NodeRecord& record);
std::string encode(const PoolRecord& record);
std::string encode(const GuestRecord& record);
std::string encode(const FenceDeviceRecord& record);
std::string encode(const OperationRecord& record);
std::string encode(const EventBatchRecord& record);
std::string encode(const CoordinatorRecord& record);
std::string encode(const AppliedRecord& record);

// decode<VolumeRecord>(text)
template <typename Record>
Result<Record> decode(std::string_view text);

template <>
Result<VolumeRecord> decode(std::string_view text);
template <>
Result<ClusterRecord> decode(std::string_view text);
template <>
Result<LineageRecord> decode(std::string_view text);
template <>
Result<NodeRecord> decode(std::string_view text);
template <>
Result<PoolRecord> decode(std::string_view text);
template <>
Result<GuestRecord> decode(std::string_view text);
template <>
Result<FenceDeviceRecord> decode(std::string_view text);
template <>
Result<OperationRecord> decode(std::string_view text);
template <>
Result<EventBatchRecord> decode(std::string_view text);
template <>
Result<CoordinatorRecord> decode(std::string_view text);
template <>
Result<AppliedRecord> decode(std::string_view text);

}  // namespace gemel
