// BlockService: what a front end asks of a volume. A request is an object of the front end's; between
// submit() and block_done() it belongs to the service. Payload is a piece of the reactor's pool, kept by the
// front end until block_done().
#pragma once

#include <cstdint>

namespace gemel::front {

enum class BlockOperation : std::uint8_t { read, write, flush, discard, write_zeroes };
enum class BlockStatus : std::uint8_t { ok, io_error, out_of_space, refused };

inline constexpr std::uint32_t kNoPayload = 0xffffffffU;

class BlockRequest {
  public:
    BlockOperation operation = BlockOperation::read;
    bool fua = false;
    std::uint32_t payload = kNoPayload;
    std::uint64_t offset = 0;
    std::uint32_t length = 0;

    virtual void block_done(BlockStatus status) = 0;

  protected:
    virtual ~BlockRequest() = default;
};

class BlockService {
  public:
    // block_done() may come from inside the call
    virtual void submit(BlockRequest& request) = 0;

  protected:
    virtual ~BlockService() = default;
};

}  // namespace gemel::front
