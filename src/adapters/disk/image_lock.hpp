// The lock on a raw image file, in the form QEMU uses (open file description locks on bytes 100.. =
// permissions taken, 200.. = permissions not shared with others). While it is held, QEMU, qemu-img and
// qemu-nbd refuse the file
// ("Is another process using the image?"), and so does a second gemel-blockd. The kernel drops it when the
// last reference to the open file goes, which is after the last outlived I/O of a dead process: holding it
// means that nothing of a former process can still land. Not in it: waiting, and what only --force-share (-U)
// readers do.
#pragma once

#include "base/error.hpp"

namespace gemel::disk {

enum class LockOutcome { taken, held_by_another };

// fd: open for reading and writing. An error is anything but "another holds it".
Result<LockOutcome> try_lock_image(int fd);

}  // namespace gemel::disk
