// Fuzzer of the store records' and peer messages' decoders: whatever comes in, they answer with a record that
// survives its own encoding, or with an error of one line. First byte: which decoder.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/invariant.hpp"
#include "core/cluster/peer_message.hpp"
#include "core/formats/records_json.hpp"

namespace {

template <typename Record>
void check(std::string_view text) {
    const auto record = gemel::decode<Record>(text);
    if (!record) {
        INVARIANT(record.error().message.find('\n') == std::string::npos, "an error is one line");
        return;
    }
    const auto again = gemel::decode<Record>(gemel::encode(*record));
    INVARIANT(again && *again == *record, "a record survives its own encoding");
}

void check_message(std::string_view text) {
    const auto message = gemel::cluster::decode_peer_message(text);
    if (!message) return;
    const auto again = gemel::cluster::decode_peer_message(gemel::cluster::encode_peer_message(*message));
    INVARIANT(again && *again == *message, "a message survives its own encoding");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    std::string_view text;
    if (size > 1)
        text = std::string_view(static_cast<const char*>(static_cast<const void*>(data + 1)), size - 1);
    switch (data[0] % 12) {
        case 0: check<gemel::VolumeRecord>(text); break;
        case 1: check<gemel::ClusterRecord>(text); break;
        case 2: check<gemel::LineageRecord>(text); break;
        case 3: check<gemel::NodeRecord>(text); break;
        case 4: check<gemel::PoolRecord>(text); break;
        case 5: check<gemel::GuestRecord>(text); break;
        case 6: check<gemel::FenceDeviceRecord>(text); break;
        case 7: check<gemel::OperationRecord>(text); break;
        case 8: check<gemel::EventBatchRecord>(text); break;
        case 9: check<gemel::CoordinatorRecord>(text); break;
        case 10: check<gemel::AppliedRecord>(text); break;
        default: check_message(text); break;
    }
    return 0;
}
