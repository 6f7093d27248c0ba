#!/usr/bin/python3
"""Golden status screens. `test_status.py --update` writes what gemel says now; look at the difference before committing."""
import pathlib
import sys
import unittest

import status_cases
from clitest import CliTest

GOLDEN = pathlib.Path(__file__).resolve().parent / "status"


class StatusScreens(CliTest):
    def screen(self, name):
        self.end()
        self.begin(status_cases.make(name))
        return self.good("status")

    def test_golden(self):
        for name in sorted(status_cases.CASES):
            with self.subTest(name):
                self.assertEqual(self.screen(name), (GOLDEN / f"{name}.txt").read_text(encoding="utf-8"))

    def test_nothing_is_left_over(self):
        self.assertEqual({path.stem for path in GOLDEN.glob("*.txt")}, set(status_cases.CASES))

    def test_80_columns_of_ascii_except_commands(self):
        for name in sorted(status_cases.CASES):
            for line in (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines():
                self.assertTrue(line.isascii(), f"{name}: {line}")
                if not line.startswith("   do   "):
                    self.assertLessEqual(len(line), 80, f"{name}: {line}")

    def test_every_command_to_type_is_on_one_line(self):
        for name in sorted(status_cases.CASES):
            screen = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
            for problem in status_cases.make(name)["problems"]:
                if problem["next_command"]:
                    self.assertIn(f"   do   {problem['next_command']}\n", screen)

    def test_all_shows_every_guest(self):
        self.end()
        self.begin(status_cases.make("many_guests"))
        screen = self.good("status", "--all")
        for vm in self.fake.status["vms"]:
            self.assertRegex(screen, rf"(?m)^{vm['name']} ")


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        case = StatusScreens()
        case.begin()
        for each in status_cases.CASES:
            (GOLDEN / f"{each}.txt").write_text(case.screen(each), encoding="utf-8")
        case.end()
    else:
        unittest.main()
