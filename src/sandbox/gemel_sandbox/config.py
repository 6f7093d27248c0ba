"""The files an installer or operator would have put on each host before its first boot.

node.toml, certificates, the witness's etcd configuration, libvirt's settings, the one-time bootstrap marker, and
the addresses of the BMCs. The texts are pure functions; `write_all` puts them on the hosts' disks.
"""
import json
import os
import shutil
import textwrap
from pathlib import Path

from gemel_sandbox.errors import SandboxError
from gemel_sandbox.layout import CONTROL_PORT, ETCD_CLIENT_PORT, ETCD_PEER_PORT, LINK_PORT, WITNESS, bmc_of
from gemel_sandbox.mounts import PERSISTENT
from gemel_sandbox.run import run
from gemel_sandbox.state import write_atomically
from gemel_sandbox.units import parse_duration

BMC_USER = "gemel"
# The time chain of design brief section 4, in node.toml's words.
TIMING = {"heartbeat_ms": 250, "suspicion_ms": 1000, "link_loss_ms": 2000, "lease_ms": 10000, "watchdog_ms": 15000,
          "margin_ms": 5000}
TIMING_KEYS = (*TIMING, "fence_bound_ms")


def store_member(layout, host):
    address = layout.address("control", host)
    return {"name": host, "peer_url": f"https://{address}:{ETCD_PEER_PORT}",
            "client_url": f"https://{address}:{ETCD_CLIENT_PORT}"}


def node_toml(layout, node, ids, timing):
    """One configuration for all daemons of a node. timing: what differs from the product's defaults."""
    member = store_member(layout, node)
    members = ",\n".join('  {{ name = "{name}", peer_url = "{peer_url}", client_url = "{client_url}" }}'
                         .format(**store_member(layout, voter)) for voter in layout.voters())
    text = textwrap.dedent(f"""\
        [cluster]
        id = "{ids['cluster']}"
        name = "{layout.sandbox_id}"

        [node]
        name = "{node}"
        id = "{ids[node]}"

        [paths]
        config_dir = "/etc/gemel"
        state_dir = "/var/lib/gemel"
        run_dir = "/run/gemel"

        [store]
        voter = {"true" if node in layout.voters() else "false"}
        client_url = "{member['client_url']}"
        peer_url = "{member['peer_url']}"
        members = [
        """) + members + "\n]\n\n[control]\n" + f'address = "{layout.address("control", node)}:{CONTROL_PORT}"\n'
    for link in layout.links():
        text += f'\n[[link]]\nname = "{link}"\naddress = "{layout.address(link, node)}:{LINK_PORT}"\n'
    for peer in layout.nodes():
        if peer != node:
            links = ", ".join(f'{link} = "{layout.address(link, peer)}:{LINK_PORT}"' for link in layout.links())
            text += (f'\n[[peer]]\nname = "{peer}"\nid = "{ids[peer]}"\n'
                     f'control = "{layout.address("control", peer)}:{CONTROL_PORT}"\nlinks = {{ {links} }}\n')
    return text + "\n[timing]\n" + "".join(f"{key} = {value}\n" for key, value in {**TIMING, **timing}.items())


def witness_etcd_yaml(layout, cluster_id):
    """The witness is a plain etcd member."""
    member = store_member(layout, WITNESS)
    cluster = ",".join(f"{name}={store_member(layout, name)['peer_url']}" for name in layout.voters())
    security = ("  cert-file: /etc/gemel/pki/node.crt\n  key-file: /etc/gemel/pki/node.key\n"
                "  trusted-ca-file: /etc/gemel/pki/ca.crt\n  client-cert-auth: true\n")
    return (f"name: {WITNESS}\ndata-dir: /var/lib/gemel/store\n"
            f"listen-peer-urls: {member['peer_url']}\ninitial-advertise-peer-urls: {member['peer_url']}\n"
            f"enable-grpc-gateway: true\nlisten-client-urls: {member['client_url']}\nadvertise-client-urls: {member['client_url']}\n"
            f"initial-cluster: {cluster}\ninitial-cluster-token: {cluster_id}\ninitial-cluster-state: new\n"
            "heartbeat-interval: 100\nelection-timeout: 1000\n"
            f"client-transport-security:\n{security}peer-transport-security:\n{security}")


def bootstrap_marker(layout, cluster_id):
    members = [store_member(layout, voter) for voter in layout.voters()]
    return json.dumps({"cluster_id": cluster_id, "members": members}, indent=1) + "\n"


def bmc_addresses(layout, password):
    """What the operator types into `gemel fence set`; options are named as fence_ipmilan's standard input wants them."""
    return json.dumps({node: {"agent": "fence_ipmilan", "options": {
        "ip": layout.address("mgmt", bmc_of(node)), "ipport": "623", "username": BMC_USER, "password": password,
        "lanplus": "1", "cipher": "3", "power_wait": "0"}} for node in layout.nodes()}, indent=1) + "\n"


# See feasibility: security drivers, namespaces and cgroup controllers are not there for a host in namespaces; logs
# go to files, so that no virtlogd is needed.
QEMU_CONF = textwrap.dedent("""\
    security_driver = "none"
    namespaces = []
    cgroup_controllers = []
    stdio_handler = "file"
    user = "root"
    group = "root"
    dynamic_ownership = 0
    remember_owner = 0
    """)


def libvirtd_conf(host_uuid):
    return f'host_uuid = "{host_uuid}"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nunix_sock_rw_perms = "0700"\n'


def make_authority(layout):
    pki = layout.directory / "pki"
    pki.mkdir(mode=0o700)
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "3650", "-subj", f"/CN=gemel sandbox {layout.sandbox_id}", "-keyout", f"{pki}/ca.key", "-out", f"{pki}/ca.crt"])
    return pki


def make_certificate(layout, host, target):
    """node.crt and node.key for one host, for both ends of a TLS connection."""
    pki = layout.directory / "pki"
    target.mkdir(parents=True, exist_ok=True)
    names = ["DNS:localhost", f"DNS:{host}", "IP:127.0.0.1"]
    names += [f"IP:{layout.address(network, host)}" for network in layout.networks_of(host) if network != "guest"]
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "3650", "-CA", f"{pki}/ca.crt", "-CAkey", f"{pki}/ca.key", "-subj", f"/CN={host}",
         "-addext", f"subjectAltName={','.join(names)}", "-addext", "extendedKeyUsage=serverAuth,clientAuth",
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", f"{target}/node.key", "-out", f"{target}/node.crt"])
    os.chmod(target / "node.key", 0o600)
    shutil.copy(pki / "ca.crt", target / "ca.crt")


def write_host(state, host):
    """The disk of one host, as it is before its first boot."""
    layout, ids, disk = state.layout(), state.ids, state.layout().disk_dir(host)
    for name in PERSISTENT.values():
        (disk / name).mkdir(parents=True)
    layout.log_dir(host).mkdir()
    gemel = disk / "etc-gemel"
    make_certificate(layout, host, gemel / "pki")
    if host == WITNESS:
        (gemel / "witness-etcd.yaml").write_text(witness_etcd_yaml(layout, ids["cluster"]))
        (disk / "var-lib-gemel" / "bootstrap-pending").write_text(bootstrap_marker(layout, ids["cluster"]))
        return
    (gemel / "node.toml").write_text(node_toml(layout, host, ids, state.timing))
    write_atomically(gemel / "sandbox-bmc.json", bmc_addresses(layout, state.bmc_password), 0o600)
    write_atomically(gemel / "bmc-password", state.bmc_password, 0o600)
    (disk / "var-lib-gemel" / "pools" / "default").mkdir(parents=True)
    if host in layout.voters():
        (disk / "var-lib-gemel" / "bootstrap-pending").write_text(bootstrap_marker(layout, ids["cluster"]))
    shutil.copytree("/etc/libvirt", disk / "etc-libvirt", dirs_exist_ok=True, symlinks=True)
    (disk / "etc-libvirt" / "qemu.conf").write_text(QEMU_CONF)
    (disk / "etc-libvirt" / "libvirtd.conf").write_text(libvirtd_conf(ids[host]))


def packaged_units(repository):
    places = [Path(repository) / "packaging" / "systemd", Path("/usr/lib/systemd/system"), Path("/lib/systemd/system")]
    packaged = next((place for place in places if (place / "gemel-blockd.service").exists()), None)
    if packaged is None:
        raise SandboxError(f"expected the packaged unit files in one of {', '.join(map(str, places))}; "
                           "install the package gemel, or run from the source tree")
    return packaged


def stop_command(repository):
    """What the packaged unit runs when a host shuts down, and for how long it may: (words, seconds)."""
    found = {}
    for line in (packaged_units(repository) / "gemel-leave.service").read_text().splitlines():
        key, _, value = line.partition("=")
        found[key] = value
    return found["ExecStop"].split(), parse_duration(found["TimeoutStopSec"])


def unit_files(repository, witness):
    """Path -> text of the units a host starts: the packaged ones, and libvirt's, which its own package would bring."""
    packaged = packaged_units(repository)
    if witness:
        paths = [packaged / "gemel-witness.service"]
    else:
        paths = [packaged / f"gemel-{name}.service" for name in ("blockd", "guard", "clusterd")]
        paths.append(Path(__file__).parent.parent / "units" / "libvirtd.service")
    return {str(path): path.read_text() for path in paths}
