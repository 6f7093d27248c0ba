#!/usr/bin/python3
"""The demonstration's client without a server: its log, its gaps, its verdict. Promise D1 is judged by this verdict."""
import argparse
import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import client  # noqa: E402


class ClientTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.log = str(pathlib.Path(self.directory.name) / "acknowledged")

    def tearDown(self):
        self.directory.cleanup()

    def verify(self, rows):
        original, client.read_rows = client.read_rows, lambda settings: rows
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
                status = client.command_verify(argparse.Namespace(log=self.log))
        finally:
            client.read_rows = original
        return status, output.getvalue().strip()

    def record(self, ids):
        log = client.AcknowledgementLog(self.log)
        for row_id in ids:
            log.record(row_id)
        log.close()

    def test_a_half_written_last_line_is_no_acknowledgement(self):
        self.record([5, 6])
        with open(self.log, "ab") as file:
            file.write(b"12.5 7")
        self.assertEqual([row_id for _, row_id in client.read_log(self.log)], [5, 6])

    def test_all_rows_are_there(self):
        self.record([1, 2])
        rows = {row_id: client.payload_of(row_id) for row_id in (1, 2, 3)}    # 3: its outcome was unknown
        self.assertEqual(self.verify(rows), (0, "acknowledged=2 found=2 lost=0"))

    def test_a_missing_row_is_lost(self):
        self.record([1, 2])
        self.assertEqual(self.verify({1: client.payload_of(1)}), (1, "acknowledged=2 found=1 lost=1"))

    def test_a_damaged_row_is_lost(self):
        self.record([1])
        self.assertEqual(self.verify({1: client.payload_of(2)}), (1, "acknowledged=1 found=0 lost=1"))

    def test_a_server_that_never_answers_is_no_success(self):
        self.record([1])
        self.assertEqual(self.verify(None), (2, ""))

    def test_gaps_belong_to_the_moment_before_them(self):
        entries = [(time, 0) for time in (10.0, 10.1, 15.0, 15.1, 15.2, 40.2, 40.3)]
        first, second = client.gaps(entries, [10.05, 15.15])
        self.assertAlmostEqual(first, 4.9)
        self.assertAlmostEqual(second, 25.0)

    def test_no_acknowledgement_after_a_moment_is_no_gap(self):
        self.assertEqual(client.gaps([(1.0, 0), (2.0, 0)], [1.5, 3.0]), [1.0, None])


if __name__ == "__main__":
    unittest.main()
