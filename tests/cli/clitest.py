"""What the tests of the command line share: a fake API on a socket of its own, and running gemel against it."""
import os
import pathlib
import subprocess
import tempfile
import unittest

from fake_api import FakeCluster, serve

ROOT = pathlib.Path(__file__).resolve().parents[2]
GEMEL = pathlib.Path(os.environ.get("GEMEL", ROOT / "build/dev/src/cli/gemel"))


class CliTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.begin()

    def tearDown(self):
        self.end()

    def begin(self, status=None):
        self.folder = tempfile.TemporaryDirectory(prefix="gemel-cli-")
        self.socket = os.path.join(self.folder.name, "clusterd.sock")
        self.fake = FakeCluster(status)
        self.server = serve(self.socket, self.fake)

    def end(self):
        self.server.shutdown()
        self.server.server_close()
        self.fake.close()
        self.folder.cleanup()

    def stop_server(self):
        self.server.shutdown()
        self.server.server_close()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def environment(self, **more):
        return {**os.environ, "GEMEL_API_SOCKET": self.socket, "LC_ALL": "C", "TZ": "UTC", **more}

    def gemel(self, *arguments, text="", **more):
        return subprocess.run([GEMEL, *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60,
                              env=self.environment(**more))

    def good(self, *arguments, text=""):
        """A command that must succeed, keeping to the contract."""
        done = self.gemel(*arguments, text=text)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.fake.breaches, [])
        return done.stdout
