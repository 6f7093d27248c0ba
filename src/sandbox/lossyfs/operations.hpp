// operations: FUSE's requests mapped onto a Tree. No state of its own; the Tree is FUSE's user data.
#pragma once

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>

namespace gemel::lossyfs {

fuse_lowlevel_ops operations();

}  // namespace gemel::lossyfs
