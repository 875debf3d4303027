"""The pods' network: bridge, addresses, NAT, host ports, anti-spoofing.

client      the daemon's side; starts the helper and sends it requests
helper      the helper process: its request loop
deleter     its second thread, which deletes interfaces
node        one node's network: set-up, add, delete, check, repair
plan        names, addresses and port mappings as data; pure
ipam        address leases, a file per pod
port_sockets   sockets that reserve published ports
bridge      the bridge and its sysctls
nat         masquerading and host ports      antispoof   the table that drops spoofed frames
ipv6        the second address of pods
services    virtual addresses and node ports of Services
nft_messages   nftables over netlink         netlink     sockets and rtnetlink requests
"""
