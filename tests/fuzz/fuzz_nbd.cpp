// A hostile NBD client: bytes arrive in pieces of arbitrary size; the server machine must stay inside its
// bounds whatever they say. Input: first byte = how the stream is cut into pieces and what the export is
// like.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/invariant.hpp"
#include "core/nbd/server.hpp"

namespace {

using namespace gemel;  // NOLINT

struct Client {
    nbd::Server server;
    std::vector<std::byte> pending;
    std::uint64_t payload_left = 0;
    bool open = true;

    void answer(const nbd::Request& request) const {
        const auto& exported = server.exported();
        INVARIANT(
            request.length <= exported.size_bytes && request.offset <= exported.size_bytes - request.length,
            "no request leaves the volume");
        INVARIANT(!exported.read_only || request.command == nbd::Command::read ||
                      request.command == nbd::Command::flush || request.command == nbd::Command::block_status,
                  "a read-only export is not written");
        if (request.command == nbd::Command::read) {
            INVARIANT(server.read_head(request, request.offset, request.length, true).size >= 16, "a head");
        } else if (request.command == nbd::Command::block_status) {
            INVARIANT(server.block_status_reply(request, request.length, false).size == 32, "one extent");
        } else {
            INVARIANT(server.plain_reply(request, nbd::ReplyError::io_error).size == 16, "a reply");
        }
    }

    // false: wait for more bytes
    bool step() {
        if (payload_left > 0) {
            const auto taken =
                static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(payload_left, pending.size()));
            pending.erase(pending.begin(), pending.begin() + taken);
            payload_left -= static_cast<std::uint64_t>(taken);
            return taken > 0;
        }
        const auto step = server.step(pending);
        INVARIANT(step.consumed <= pending.size(), "consumes what is there");
        INVARIANT(step.reply.size() <= nbd::kMaxReplyBytes, "bounded replies");
        if (const auto* need = std::get_if<nbd::NeedBytes>(&step.found)) {
            INVARIANT(need->at_least > pending.size() && need->at_least <= nbd::kReceiveBytes,
                      "can be satisfied");
            return false;
        }
        if (const auto* submit = std::get_if<nbd::Submit>(&step.found)) answer(submit->request);
        if (const auto* payload = std::get_if<nbd::Payload>(&step.found)) {
            INVARIANT(payload->request.length <= nbd::kMaxRequestBytes, "bounded payload");
            answer(payload->request);
            payload_left = payload->request.length;
        }
        if (std::holds_alternative<nbd::Close>(step.found)) open = false;
        pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(step.consumed));
        return open;
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) return 0;
    const std::size_t piece = 1U + (data[0] & 31U) * 8U;
    Client client{.server = nbd::Server({.name = "volume",
                                         .description = "",
                                         .size_bytes = 1 << 20,
                                         .minimum_block = (data[0] & 32) != 0 ? 4096U : 512U,
                                         .read_only = (data[0] & 64) != 0,
                                         .fast_zero = (data[0] & 128) != 0}),
                  .pending = {}};
    client.server.greeting();
    const auto* bytes = reinterpret_cast<const std::byte*>(data);
    for (std::size_t at = 1; at < size && client.open; at += piece) {
        client.pending.insert(client.pending.end(), bytes + at, bytes + std::min(size, at + piece));
        while (client.open && client.step()) {
        }
    }
    return 0;
}
