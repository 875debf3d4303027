"""Services in the kernel: virtual addresses and node ports, as nftables maps.

plan     ports of Services and their endpoints, as data; pure
"""
