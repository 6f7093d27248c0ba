// The numbers of the vhost-user protocol's messages once more, for tests: with session.cpp's own ones a wrong
// number would pass.
#pragma once

#include <cstdint>

namespace gemel::vhost {

enum : std::uint32_t {
    kGetFeatures = 1,
    kSetFeatures = 2,
    kSetOwner = 3,
    kSetMemTable = 5,
    kSetLogBase = 6,
    kSetVringNum = 8,
    kSetVringAddr = 9,
    kSetVringBase = 10,
    kGetVringBase = 11,
    kSetVringKick = 12,
    kSetVringCall = 13,
    kGetProtocolFeatures = 15,
    kSetProtocolFeatures = 16,
    kGetQueueNum = 17,
    kSetVringEnable = 18,
    kGetConfig = 24,
    kSetConfig = 25,
    kGetInflightFd = 31,
    kSetInflightFd = 32,
    kAddMemReg = 37,
    kRemMemReg = 38,
};

}  // namespace gemel::vhost
