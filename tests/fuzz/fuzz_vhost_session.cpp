// A hostile front end: arbitrary messages with arbitrary numbers of descriptors; the driver's part is played
// here. Input: messages one after the other, each with a first byte for the descriptors and the outcome.
#include <algorithm>
#include <cstdint>

#include "base/invariant.hpp"
#include "core/vhost/session.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace gemel::vhost;  // NOLINT
    Session session({1U << 20, 512, 4096, 4, false});
    auto rest = std::as_bytes(std::span(data, size));
    while (rest.size() > kHeaderBytes) {
        const auto choice = std::to_integer<unsigned>(rest[0]);
        const auto header = rest.subspan<1, kHeaderBytes>();
        rest = rest.subspan(1 + kHeaderBytes);
        const auto bytes = Session::payload_bytes(header);
        if (!bytes) return 0;
        INVARIANT(*bytes <= kMaxPayloadBytes, "bounded");
        const auto payload = rest.first(std::min<std::size_t>(*bytes, rest.size()));
        if (payload.size() < *bytes) return 0;
        rest = rest.subspan(payload.size());
        const Action action = session.message(header, payload, choice % (kMaxDescriptors + 1));
        const bool well = (choice & 128) == 0;
        if (std::holds_alternative<Close>(action)) return 0;
        if (const auto* stop = std::get_if<StopQueue>(&action)) {
            INVARIANT(stop->queue < session.queues(), "a queue that exists");
            session.queue_stopped(stop->queue, choice);
        } else if (std::holds_alternative<MakeInFlight>(action)) {
            session.in_flight_made(well);
        } else if (!std::holds_alternative<Nothing>(action)) {
            INVARIANT(session.owes(), "an answer is owed");
            session.done(well);
            if (!session.failed().empty()) return 0;
        }
        INVARIANT(!session.owes(), "nothing is owed any more");
        for (std::uint16_t i = 0; i < session.queues(); ++i) {
            INVARIANT(session.queue(i).setup.size <= kMaxQueueSize, "bounded");
            const auto records = session.records(i);
            INVARIANT(records.bytes == 0 ||
                          records.bytes == in_flight_bytes(session.packed(), session.queue(i).setup.size),
                      "a queue's records are its size's");
        }
    }
    return 0;
}
