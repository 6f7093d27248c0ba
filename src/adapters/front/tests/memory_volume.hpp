// MemoryVolume: a volume in memory behind a front end, for tests. Executes half of the requests inside the
// call and half later; may hold them, or fail what touches one byte. Everything is touched on the reactor's
// thread, or while nothing is under way; held_count from anywhere.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "adapters/front/block_service.hpp"
#include "adapters/ring/reactor.hpp"

namespace gemel::front {

struct MemoryVolume final : BlockService {
    explicit MemoryVolume(std::size_t size) : bytes(size) {}

    ring::Reactor* reactor = nullptr;
    std::vector<std::byte> bytes;
    std::vector<BlockOperation> seen;
    bool fua_seen = false;
    bool holds = false;  // requests wait for release()
    std::deque<BlockRequest*> held;
    std::atomic<std::size_t> held_count{0};
    std::uint64_t fail_at = ~std::uint64_t{0};

    void submit(BlockRequest& request) override {
        seen.push_back(request.operation);
        fua_seen = fua_seen || request.fua;
        if (holds) {
            held.push_back(&request);
            held_count = held.size();
            return;
        }
        if ((request.offset & 4096) != 0) return execute(request);
        reactor->post([this, &request] { execute(request); });
    }
    void release(BlockStatus status) {
        holds = false;
        held_count = 0;
        for (auto* request : std::exchange(held, {})) {
            status == BlockStatus::ok ? execute(*request) : request->block_done(status);
        }
    }

  private:
    void execute(BlockRequest& request) {
        if (request.offset <= fail_at && fail_at < request.offset + request.length) {
            return request.block_done(BlockStatus::io_error);
        }
        auto* at = bytes.data() + request.offset;
        if (request.operation == BlockOperation::write) {
            std::memcpy(at, reactor->buffers().memory(request.payload).data(), request.length);
        } else if (request.operation == BlockOperation::read) {
            std::memcpy(reactor->buffers().memory(request.payload).data(), at, request.length);
        } else if (request.operation != BlockOperation::flush) {
            std::memset(at, 0, request.length);
        }
        request.block_done(BlockStatus::ok);
    }
};

}  // namespace gemel::front
