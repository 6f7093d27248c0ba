"""Names, addresses and paths of a sandbox. Pure: a function of the sandbox's id and shape, touches nothing.

Everything derives from the id, so that two sandboxes share no name, no subnet and no socket.
Networks: control, mgmt (BMCs), link1..linkN (replication), guest. Hosts: node1..nodeN and `witness`.
"""
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from gemel_sandbox.errors import SandboxError

REGISTRY = Path("/run/gemel-sandbox")
DEFAULT_HOME = Path("/var/lib/gemel-sandbox")
DEFAULT_ID = "demo"
WITNESS = "witness"
CLIENT = "client"
MAX_NODES = 16
MAX_LINKS = 8
WITNESS_INDEX = 100
BMC_OFFSET = 100
ETCD_CLIENT_PORT = 2379
ETCD_PEER_PORT = 2380
CONTROL_PORT = 7700
LINK_PORT = 7710

_ID = re.compile(r"^[a-z][a-z0-9-]{0,15}$")


def check_id(sandbox_id):
    """Returns the id or says what an id looks like."""
    if not _ID.match(sandbox_id):
        raise SandboxError(
            f"'{sandbox_id}' is no sandbox id: expected a lower case letter, then up to 15 lower case letters, "
            "digits or dashes; give another --id")
    return sandbox_id


def subnet_octet(sandbox_id):
    """Second octet of the sandbox's 10.x networks: 77 for the default id, another one below 250 otherwise."""
    if sandbox_id == DEFAULT_ID:
        return 77
    octet = 80 + zlib.crc32(sandbox_id.encode()) % 170
    return octet


@dataclass(frozen=True)
class Layout:
    """The shape of one sandbox; `directory` holds everything it writes."""
    sandbox_id: str
    directory: Path
    node_count: int = 2
    with_witness: bool = False
    link_count: int = 3

    def nodes(self):
        return [f"node{i}" for i in range(1, self.node_count + 1)]

    def hosts(self):
        return self.nodes() + ([WITNESS] if self.with_witness else [])

    def bmcs(self):
        return [bmc_of(node) for node in self.nodes()]

    def links(self):
        return [f"link{i}" for i in range(1, self.link_count + 1)]

    def networks(self):
        return ["control", "mgmt", *self.links(), "guest"]

    def members_of(self, network):
        """Everything that has a port on this network's bridge, in a fixed order."""
        members = [host for host in self.hosts() if network in self.networks_of(host)]
        if network == "mgmt":
            members += self.bmcs()
        if network == "guest":
            members.append(CLIENT)
        return members

    def networks_of(self, host):
        if host == CLIENT:
            return ["guest"]
        if host in self.bmcs():
            return ["mgmt"]
        if host == WITNESS:
            return ["control", "mgmt"]
        return self.networks()

    def index(self, host):
        return WITNESS_INDEX if host == WITNESS else int(host.removeprefix("node"))

    def address(self, network, host):
        """IPv4 address without prefix length; all networks are /24. Nodes have none on the guest network."""
        third = {"control": 0, "mgmt": 100, "guest": 200}.get(network)
        if third is None:
            third = int(network.removeprefix("link"))
        if host == CLIENT:
            last = 1
        elif host in self.bmcs():
            last = BMC_OFFSET + self.index(node_of_bmc(host))
        else:
            last = self.index(host)
        return f"10.{subnet_octet(self.sandbox_id)}.{third}.{last}"

    def guest_address(self, number):
        """Static address for the number-th guest (1..200)."""
        return f"10.{subnet_octet(self.sandbox_id)}.200.{9 + number}"

    def mac(self, network, host):
        """Stable over power cycles, as a real network card's address is."""
        digest = zlib.crc32(f"{self.sandbox_id}/{host}/{network}".encode())
        return "02:67:" + ":".join(f"{(digest >> shift) & 255:02x}" for shift in (24, 16, 8, 0))

    def voters(self):
        """Initial members of the store (design brief section 3, rule 3)."""
        if self.with_witness:
            return self.nodes() + [WITNESS]
        if self.node_count <= 2:
            return self.nodes()
        return self.nodes()[:3 if self.node_count < 5 else 5]

    def host_dir(self, host):
        return self.directory / "hosts" / host

    def disk_dir(self, host):
        """What survives a power cut: the host's persistent directories."""
        return self.host_dir(host) / "disk"

    def log_dir(self, host):
        return self.host_dir(host) / "log"

    def control_socket(self, host):
        return self.host_dir(host) / "init.sock"

    def check_host(self, host):
        if host not in self.hosts():
            raise SandboxError(f"sandbox '{self.sandbox_id}' has no host '{host}': expected one of "
                               f"{', '.join(self.hosts())}")
        return host


def bmc_of(node):
    return "bmc" + node.removeprefix("node")


def node_of_bmc(bmc):
    return "node" + bmc.removeprefix("bmc")


def port_name(host, network):
    """The host's interface name on the switch's side; at most 15 characters, the kernel's limit."""
    name = f"{host}-{network}"
    assert len(name) <= 15, name
    return name


def cgroup_name(sandbox_id):
    return f"gemel-sandbox-{sandbox_id}"
