#!/usr/bin/python3
"""The image builder refuses wrong arguments with one line, before it does anything."""
import pathlib
import subprocess
import tempfile
import unittest

BUILD = pathlib.Path(__file__).resolve().parent.parent / "build"


class ArgumentsTest(unittest.TestCase):
    def test_wrong_arguments(self):
        cases = {
            ("--format", "vmdk"): "raw or qcow2",
            ("--name", "Web 1"): "lower case",
            ("--address", "10.0.0.1"): "10.0.0.10/24",
            ("--gateway", "router"): "10.0.0.1",
            ("--size-mib", "100"): "at least 640",
            ("--output",): "a value after --output",
            ("--colour", "red"): "unknown argument",
        }
        for arguments, expected in cases.items():
            with self.subTest(arguments=arguments), tempfile.TemporaryDirectory() as directory:
                done = subprocess.run([BUILD, "--cache", directory + "/cache", *arguments], capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
                self.assertIn(expected, done.stderr)
                self.assertEqual(list(pathlib.Path(directory).iterdir()), [])

    def test_help(self):
        done = subprocess.run([BUILD, "--help"], capture_output=True, text=True, check=True)
        self.assertIn("usage: build", done.stdout)


if __name__ == "__main__":
    unittest.main()
