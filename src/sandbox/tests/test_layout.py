"""Names and addresses derive from the id and never collide; the switch's rules say exactly what was cut."""
import tomllib
import unittest
from pathlib import Path

from gemel_sandbox import config
from gemel_sandbox.errors import SandboxError
from gemel_sandbox.layout import Layout, check_id, port_name, subnet_octet
from gemel_sandbox.sandbox import check_shape
from gemel_sandbox.state import State
from gemel_sandbox.switch import check_rate, ruleset


def layout(**options):
    return Layout("demo", Path("/x"), **{"node_count": 2, "with_witness": True, "link_count": 3, **options})


class Names(unittest.TestCase):
    def test_ids(self):
        for good in ("demo", "a", "test-2", "abcdefghijklmnop"):
            self.assertEqual(check_id(good), good)
        for bad in ("", "Demo", "1a", "a b", "../x", "abcdefghijklmnopq"):
            with self.assertRaises(SandboxError):
                check_id(bad)

    def test_addresses_are_unique(self):
        shape = layout(node_count=16, with_witness=False, link_count=8)
        seen = [shape.address(network, host) for network in shape.networks() for host in shape.members_of(network)
                if not (network == "guest" and host != "client")]
        self.assertEqual(len(seen), len(set(seen)))
        self.assertNotIn(shape.guest_address(1), seen)
        self.assertEqual(layout().address("control", "node1"), "10.77.0.1")
        self.assertTrue(all(0 < int(part) < 255 for address in seen for part in address.split(".")[:1]))

    def test_ports_fit_the_kernel(self):
        shape = layout(node_count=16, link_count=8)
        for network in shape.networks():
            for host in shape.members_of(network):
                self.assertLessEqual(len(port_name(host, network)), 15)

    def test_subnets(self):
        self.assertEqual(subnet_octet("demo"), 77)
        self.assertTrue(all(80 <= subnet_octet(f"s{i}") < 250 for i in range(500)))

    def test_voters(self):
        self.assertEqual(layout().voters(), ["node1", "node2", "witness"])
        self.assertEqual(layout(with_witness=False).voters(), ["node1", "node2"])
        self.assertEqual(len(layout(with_witness=False, node_count=4).voters()), 3)
        self.assertEqual(len(layout(with_witness=False, node_count=16).voters()), 5)

    def test_bad_shapes(self):
        for wrong in ({"node_count": 0}, {"node_count": 17}, {"link_count": 0}, {"with_witness": True, "node_count": 3},
                      {"link_rate": "fast"}):
            with self.assertRaises(SandboxError):
                check_shape(State("demo", "/x", **wrong))
        self.assertEqual(check_rate("1gbit"), "1gbit")


class Cuts(unittest.TestCase):
    def test_no_cut_no_table(self):
        self.assertEqual(ruleset(layout(), [], []), "table bridge gemel\ndelete table bridge gemel\n")

    def test_one_port(self):
        text = ruleset(layout(), [{"network": "link1", "host": "node1"}], [])
        self.assertIn('iifname { "node1-link1" } drop', text)
        self.assertIn('oifname { "node1-link1" } drop', text)
        self.assertNotIn("node2", text)

    def test_one_way(self):
        text = ruleset(layout(), [{"network": "control", "from": "node1", "to": "witness"}], [])
        self.assertIn('iifname "node1-control" oifname "witness-control" drop', text)
        self.assertNotIn("prerouting", text)

    def test_everything_between_two_hosts(self):
        text = ruleset(layout(), [{"network": "all", "from": "node1", "to": "witness"}], [])
        self.assertIn("witness-mgmt", text)
        self.assertNotIn("link1", text)

    def test_power_cut_takes_every_port(self):
        text = ruleset(layout(), [], ["node2"])
        for network in layout().networks():
            self.assertIn(f'"node2-{network}"', text)


class Texts(unittest.TestCase):
    IDS = {"cluster": "c", "node1": "u1", "node2": "u2", "witness": "u3"}

    def test_node_toml(self):
        parsed = tomllib.loads(config.node_toml(layout(), "node1", self.IDS, {"lease_ms": 4000, "fence_bound_ms": 9000}))
        self.assertEqual(parsed["node"], {"name": "node1", "id": "u1"})
        self.assertEqual([member["name"] for member in parsed["store"]["members"]], ["node1", "node2", "witness"])
        self.assertEqual(parsed["control"]["address"], "10.77.0.1:7700")
        self.assertEqual([link["address"] for link in parsed["link"]],
                         ["10.77.1.1:7710", "10.77.2.1:7710", "10.77.3.1:7710"])
        self.assertEqual(len(parsed["peer"]), 1)
        self.assertEqual(parsed["peer"][0]["links"]["link3"], "10.77.3.2:7710")
        self.assertEqual(parsed["timing"], {**config.TIMING, "lease_ms": 4000, "fence_bound_ms": 9000})


if __name__ == "__main__":
    unittest.main()
