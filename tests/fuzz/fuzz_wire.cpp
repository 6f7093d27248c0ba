// Every decoder of the wire: whatever the bytes, no crash; what is accepted encodes to the same bytes again.
#include <cstdint>
#include <cstdlib>

#include "core/link/wire.hpp"

using namespace gemel::link;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
    if (size >= kHeaderBytes) static_cast<void>(decode_header(bytes.first<kHeaderBytes>()));
    if (size == 0) return 0;
    const auto body = bytes.subspan(1);
    static_cast<void>(decode_hello(body));
    const auto type = static_cast<FrameType>(data[0] % 17);
    if (const auto message = decode_message(type, body)) {
        std::vector<std::byte> again;
        encode_message(*message, again);
        if (again.size() != body.size() || !std::equal(again.begin(), again.end(), body.begin()))
            std::abort();
    }
    return 0;
}
