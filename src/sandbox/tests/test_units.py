"""The unit file reader means what systemd means, and refuses what it does not know."""
import unittest
from pathlib import Path

from gemel_sandbox.config import unit_files
from gemel_sandbox.units import UnitError, parse_duration, parse_unit, start_order

REPOSITORY = Path(__file__).resolve().parents[3]
MINIMAL = "[Service]\nExecStart=/usr/sbin/x --y\n"


class Units(unittest.TestCase):
    def test_packaged_units_are_understood(self):
        # What a host starts; gemel-leave.service is done by `sandbox shutdown` itself.
        started = {**unit_files(REPOSITORY, witness=False), **unit_files(REPOSITORY, witness=True)}
        self.assertGreaterEqual(len(started), 5)
        for path, text in started.items():
            unit = parse_unit(Path(path).name, text)
            self.assertTrue(unit.command[0].startswith("/usr/"), path)

    def test_clusterd_leaves_etcd_alone_and_starts_last(self):
        names = ["gemel-clusterd", "gemel-guard", "gemel-blockd"]
        folder = REPOSITORY / "packaging" / "systemd"
        units = [parse_unit(f"{name}.service", (folder / f"{name}.service").read_text()) for name in names]
        self.assertEqual(units[0].kill_mode, "process")
        self.assertEqual([unit.name for unit in start_order(units)],
                         ["gemel-blockd.service", "gemel-guard.service", "gemel-clusterd.service"])

    def test_values(self):
        unit = parse_unit("x.service", MINIMAL + "Restart=always\nRestartSec=200ms\nKillSignal=SIGINT\n"
                          "Environment=A=1 B=2\nStartLimitIntervalSec=0\nLimitMEMLOCK=infinity\n")
        self.assertEqual((unit.command, unit.restart, unit.restart_s), (["/usr/sbin/x", "--y"], "always", 0.2))
        self.assertEqual((unit.kill_signal, unit.environment), (2, {"A": "1", "B": "2"}))
        self.assertEqual((unit.start_limit_interval_s, unit.limits), (0, {"LimitMEMLOCK": "infinity"}))
        self.assertEqual(parse_duration("1min"), 60)

    def test_refusals_name_the_line(self):
        for text, expected in (("ExecReload=/bin/x\n", "x.service:3: directive 'ExecReload'"),
                               ("Restart=sometimes\n", "x.service:3: expected one of"),
                               ("RestartSec=soon\n", "x.service:3: expected a time"),
                               ("KillSignal=SIGNONE\n", "x.service:3"), ("nonsense\n", "x.service:3: expected KEY=VALUE"),
                               ("RuntimeDirectory=gemel\n", "RuntimeDirectoryPreserve=yes")):
            with self.assertRaises(UnitError) as caught:
                parse_unit("x.service", MINIMAL + text)
            self.assertIn(expected, str(caught.exception))
        with self.assertRaises(UnitError):
            parse_unit("x.service", "[Service]\nRestart=no\n")

    def test_circle(self):
        first = parse_unit("a.service", MINIMAL + "After=b.service\n")
        second = parse_unit("b.service", MINIMAL + "After=a.service\n")
        with self.assertRaises(UnitError):
            start_order([first, second])


if __name__ == "__main__":
    unittest.main()
