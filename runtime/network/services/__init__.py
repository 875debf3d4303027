"""Services in the kernel: virtual addresses and node ports, as nftables maps.

plan       ports of Services and their endpoints, as data
arrange    slots of endpoints, and the elements of sets and maps that a port needs
rules      the rules of the tables
routing    desired state, changes, audit
tables     the tables over netlink     conntrack   UDP flows to endpoints that are gone
route      the route to the cluster IPs
"""
