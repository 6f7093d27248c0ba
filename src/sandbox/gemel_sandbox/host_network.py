"""What the operator of a real host would have configured: addresses, the guest bridge, link rates."""
from gemel_sandbox.layout import WITNESS
from gemel_sandbox.run import run
from gemel_sandbox.switch import QUIET_SETTINGS

GUEST_BRIDGE = "br-guest"


def interfaces_of(layout, host):
    """network -> interface name inside the host."""
    return {network: "guest0" if network == "guest" else network for network in layout.networks_of(host)}


def configure(layout, host, pid, link_rate):
    """Addresses and rates inside the namespace of pid; tbf sits at the sender, where it slows instead of dropping."""
    batch = ["link set lo up"]
    for network, name in interfaces_of(layout, host).items():
        if network == "guest":
            batch += [f"link add {GUEST_BRIDGE} up type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                      f"link set {name} master {GUEST_BRIDGE}"]
        else:
            batch.append(f"addr add {layout.address(network, host)}/24 dev {name}")
        batch.append(f"link set {name} up")
    enter = ["nsenter", "-t", str(pid), "-n"]
    run([*enter, "sh", "-c", QUIET_SETTINGS])
    run([*enter, "ip", "-batch", "-"], input_text="\n".join(batch) + "\n")
    if link_rate and host != WITNESS:
        rates = "".join(f"qdisc replace dev {link} root tbf rate {link_rate} burst 256kb latency 50ms\n"
                        for link in layout.links())
        run([*enter, "tc", "-batch", "-"], input_text=rates)
