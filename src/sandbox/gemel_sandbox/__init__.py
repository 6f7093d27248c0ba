"""gemel sandbox: real clusters on one machine.

What it is and why it is built this way: docs/design/0007-sandbox.md. The package only orchestrates
outside tools (ip, nft, nsenter, unshare, openssl, ipmi_sim); the daemons inside are the product's own.
"""
