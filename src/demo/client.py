#!/usr/bin/python3
"""The demonstration's client: commits rows in the guest's PostgreSQL from outside and remembers every acknowledgement.

    client.py run    --address A --log FILE   commit until SIGTERM (or --seconds)
    client.py verify --address A --log FILE   are all acknowledged rows there? exit 0 only if none is lost
    client.py gaps   --log FILE --at T ...    largest time without an acknowledgement after each moment T

Promises: a row is written to FILE only after its COMMIT was answered, and before the next commit of that connection
is sent; a commit whose outcome is unknown (the connection broke first) is never counted as acknowledged and its id is
never used again; a dead server is noticed within about four seconds, a live one that is only slow is waited for.
FILE has one line per acknowledgement: seconds on CLOCK_BOOTTIME, a space, the row's id. All times are on that clock.
Not here: causing failures, and judging how long they may last.
"""
import argparse
import hashlib
import os
import secrets
import signal
import socket
import sys
import threading
import time

import psycopg2

PROBE_TIMEOUT_S = 1
CONNECT_TIMEOUT_S = 10
DEAD_AFTER_MS = 4000
RETRY_PAUSE_S = 0.1
DATABASE = "demo"
ROLE = "demo"


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def payload_of(row_id):
    """What a row must hold; made from its id, so that verify finds damaged rows too."""
    return hashlib.sha256(str(row_id).encode()).hexdigest() * 2


# One connection at a time: a slow server that is asked for all of them at once answers none in time, for ever.
_connecting = threading.Lock()


def connect(address, port):
    """A connection, or OSError / psycopg2.Error: after a second where nobody answers at the address.

    Who answered the probe is alive and may take its time to let us in.
    """
    with _connecting:
        socket.create_connection((address, port), timeout=PROBE_TIMEOUT_S).close()
        connection = psycopg2.connect(
            host=address, port=port, dbname=DATABASE, user=ROLE, connect_timeout=CONNECT_TIMEOUT_S, keepalives=1,
            keepalives_idle=1, keepalives_interval=1, keepalives_count=3, tcp_user_timeout=DEAD_AFTER_MS, sslmode="disable",
            gssencmode="disable", application_name="gemel-demo", options="-c statement_timeout=600000")
    connection.autocommit = True
    return connection


class AcknowledgementLog:
    """Appends one line per acknowledgement; the line is with the kernel before record() returns."""

    def __init__(self, path):
        self._file = open(path, "ab", buffering=0)
        self._lock = threading.Lock()
        self.count = 0

    def record(self, row_id):
        with self._lock:
            self._file.write(b"%.6f %d\n" % (now(), row_id))
            self.count += 1

    def close(self):
        self._file.close()


def read_log(path):
    """[(time, id)] in the order of the file; a half-written last line (the client was killed) is left out."""
    entries = []
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                moment, row_id = line.split()
                entries.append((float(moment), int(row_id)))
    return entries


class Worker(threading.Thread):
    """One connection with one commit in flight at a time."""

    def __init__(self, settings, index, run, log, stop):
        super().__init__(name=f"client-{index}", daemon=True)
        self._settings, self._log, self._stop_event = settings, log, stop
        self._next_id = (run << 40) | (index << 32)
        self._connection = None
        self.unknown = 0
        self.reconnects = 0

    def run(self):
        while not self._stop_event.is_set():
            try:
                self._connection = connect(self._settings.address, self._settings.port)
                self.reconnects += 1
                self._commit_until_it_breaks(self._connection)
            except (OSError, psycopg2.Error):
                self._stop_event.wait(RETRY_PAUSE_S)

    def _commit_until_it_breaks(self, connection):
        with connection.cursor() as cursor:
            while not self._stop_event.is_set():
                row_id, self._next_id = self._next_id, self._next_id + 1
                try:
                    cursor.execute("INSERT INTO acknowledged (id, payload) VALUES (%s, %s)", (row_id, payload_of(row_id)))
                except psycopg2.Error:
                    self.unknown += 1
                    raise
                self._log.record(row_id)
                self._stop_event.wait(self._settings.pause_ms / 1000)

    def interrupt(self):
        """Ends a wait for a server that does not answer."""
        try:
            with socket.socket(fileno=os.dup(self._connection.fileno())) as handle:
                handle.shutdown(socket.SHUT_RDWR)
        except (AttributeError, OSError, psycopg2.Error):
            pass    # not connected (any more)


def command_run(settings):
    log = AcknowledgementLog(settings.log)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    run = secrets.randbits(22)
    workers = [Worker(settings, index, run, log, stop) for index in range(settings.connections)]
    for worker in workers:
        worker.start()
    stop.wait(settings.seconds)
    stop.set()
    deadline = now() + 5
    for worker in workers:    # a commit in flight may still be answered
        worker.join(max(0, deadline - now()))
    for worker in workers:
        if worker.is_alive():
            worker.interrupt()
    for worker in workers:
        worker.join(5)
    print(f"acknowledged={log.count} unknown={sum(w.unknown for w in workers)} "
          f"connections={sum(w.reconnects for w in workers)}", flush=True)
    log.close()
    return 0


def read_rows(settings):
    """{id: payload} of the whole table, trying until --timeout; None if the server never answered."""
    deadline = now() + settings.timeout
    problem = "no attempt was made"
    while now() < deadline:
        try:
            connection = connect(settings.address, settings.port)
            with connection.cursor() as cursor:
                cursor.execute("SELECT id, payload FROM acknowledged")
                rows = dict(cursor.fetchall())
            connection.close()
            return rows
        except (OSError, psycopg2.Error) as error:
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            time.sleep(RETRY_PAUSE_S)
    print(f"client: {settings.address} did not answer within {settings.timeout} s ({problem}); is the guest running?",
          file=sys.stderr)
    return None


def command_verify(settings):
    acknowledged = {row_id for _, row_id in read_log(settings.log)}
    rows = read_rows(settings)
    if rows is None:
        return 2
    lost = sorted(row_id for row_id in acknowledged if rows.get(row_id) != payload_of(row_id))
    for row_id in lost[:20]:
        print(f"client: acknowledged row {row_id} is {'damaged' if row_id in rows else 'missing'}", file=sys.stderr)
    print(f"acknowledged={len(acknowledged)} found={len(acknowledged) - len(lost)} lost={len(lost)}", flush=True)
    return 1 if lost else 0


def gaps(entries, moments):
    """For each moment, the largest time between two neighbouring acknowledgements of which the later one comes after
    it and before the next moment; None where no acknowledgement followed."""
    times = sorted(moment for moment, _ in entries)
    limits = list(moments[1:]) + [float("inf")]
    result = []
    for start, end in zip(moments, limits):
        found = [later - earlier for earlier, later in zip(times, times[1:]) if start < later <= end]
        result.append(max(found) if found else None)
    return result


def command_gaps(settings):
    found = gaps(read_log(settings.log), sorted(settings.at))
    print("service_gap_seconds=" + ",".join("none" if gap is None else f"{gap:.1f}" for gap in found), flush=True)
    return 0 if None not in found else 1


def whole_number(least, most):
    def parse(text):
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, not '{text}'")
        return int(text)
    return parse


def main():
    parser = argparse.ArgumentParser(description="client of the demonstration: counts acknowledged commits, finds lost ones")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("run", "commit rows until SIGTERM"), ("verify", "compare the log with the database"),
                       ("gaps", "largest service gap after each moment")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--log", required=True, help="file of acknowledgements")
        if name == "gaps":
            command.add_argument("--at", type=float, action="append", required=True, help="moment, CLOCK_BOOTTIME seconds")
            continue
        command.add_argument("--address", required=True, help="the guest's IPv4 address")
        command.add_argument("--port", type=whole_number(1, 65535), default=5432)
        if name == "run":
            command.add_argument("--connections", type=whole_number(1, 50), default=8, help="commits in flight (8)")
            command.add_argument("--pause-ms", type=whole_number(0, 60000), default=20, help="between a connection's commits (20)")
            command.add_argument("--seconds", type=float, default=None, help="stop after this time (default: never)")
        else:
            command.add_argument("--timeout", type=float, default=60, help="seconds to wait for the server (60)")
    settings = parser.parse_args()
    return {"run": command_run, "verify": command_verify, "gaps": command_gaps}[settings.command](settings)


if __name__ == "__main__":
    sys.exit(main())
