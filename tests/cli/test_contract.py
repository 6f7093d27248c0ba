#!/usr/bin/python3
"""The conformance checker passes on the fake API and fails on one that breaks the contract; the contract itself only
uses what the checker understands."""
import subprocess
import sys
import unittest

from clitest import ROOT, CliTest
from openapi_schema import Contract

CHECKER = ROOT / "tests/cli/check_openapi.py"


class TheContract(CliTest):
    def check(self, *arguments):
        return subprocess.run([sys.executable, "-B", CHECKER, *arguments, self.socket], capture_output=True, text=True, timeout=300)

    def test_the_fake_keeps_to_it(self):
        done = self.check("--write")
        self.assertEqual(done.returncode, 0, "\n".join(line for line in done.stdout.splitlines() if line.startswith("FAIL")) + done.stderr)
        self.assertRegex(done.stdout, r"\n\d{2,} passed, 0 failed\n$")

    def test_breaches_are_found(self):
        self.fake.status["nodes"][1]["state"] = "resting"
        del self.fake.status["volumes"][0]["ack_set"]
        done = self.check()
        self.assertEqual(done.returncode, 1)
        self.assertIn("'resting' is not one of", done.stdout)
        self.assertIn("ack_set is missing", done.stdout)

    def test_every_schema_is_understood_and_every_operation_is_named_once(self):
        contract = Contract()
        for name in contract.document["components"]["schemas"]:
            contract.breaches({"$ref": f"#/components/schemas/{name}"}, {}, name)
        names = [operation["operationId"] for _, _, item in contract.paths for operation in item.values()
                 if isinstance(operation, dict)]
        self.assertEqual(len(names), len(set(names)))
        for name in names:
            self.assertTrue(name.startswith("stream") or hasattr(self.fake, name), f"the fake lacks {name}")


if __name__ == "__main__":
    unittest.main()
