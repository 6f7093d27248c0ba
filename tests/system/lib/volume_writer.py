#!/usr/bin/python3
"""Runs inside a host of a sandbox: writes numbered blocks to an exported volume and says what was acknowledged.

    volume_writer.py SOCKET EXPORT SIZE FIRST_NUMBER

Between it and gemel-blockd stands what a guest has there: QEMU's NBD client, which reconnects by itself. One line per
event: `w BLOCK NUMBER` a write was acknowledged, `f THREAD NUMBER` all of that thread's writes up to NUMBER were
flushed, `e TEXT` an error reached the guest's side. It ends with its host, or when its standard input ends, after a
last FLUSH. Thread T writes blocks that are T modulo THREADS, one at a time. Not here: remembering (lib/load.py does, outside of what loses power).
"""
import random
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.blockd_client import BlockdError  # noqa: E402  (the path above makes it importable)
from lib.nbd_writer import BLOCK, Client, Relay, contents  # noqa: E402

THREADS = 4
WRITES_PER_FLUSH = 20
PAUSE_S = 0.002     # a guest that leaves the other daemons of a small machine some processor


class Speaker:
    """One line at a time, whole, at once."""

    def __init__(self):
        self._lock = threading.Lock()

    def say(self, *words):
        with self._lock:
            sys.stdout.write(" ".join(map(str, words)) + "\n")
            sys.stdout.flush()


def write_on(path, index, blocks, number, speaker, ending):
    chance = random.Random(number * THREADS + index)
    try:
        client = Client(path, "d")
        while not ending.wait(PAUSE_S):
            block = chance.randrange(blocks // THREADS) * THREADS + index
            client.request(1, block * BLOCK, BLOCK, contents(block, number))
            speaker.say("w", block, number)
            if number % WRITES_PER_FLUSH == 0:
                client.request(3)
                speaker.say("f", index, number)
            number += 1
        client.request(3)
        speaker.say("f", index, number - 1)
    except (BlockdError, OSError) as error:
        speaker.say("e", error)


def main():
    socket, export, size, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    ending = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ending.set()), daemon=True).start()
    speaker = Speaker()
    with tempfile.TemporaryDirectory() as directory:
        relay = Relay(directory, export, socket)
        threads = [threading.Thread(target=write_on, daemon=True,
                                    args=(relay.path, index, size // BLOCK, first, speaker, ending))
                   for index in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        relay.stop()


if __name__ == "__main__":
    main()
