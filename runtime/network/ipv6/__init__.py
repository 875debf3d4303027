"""The pods' second address, of IPv6, for a node whose pod CIDR has an IPv6 network.

plan         the network and its addresses as data; pure
requests     rtnetlink requests and queries
stack        set-up, pods, audit and removal: what node.py and audit.py ask
connections  deletes entries of the kernel's connection tracking
outside      the chains of the nftables table: masquerading, host ports, and who may reach pods

IPv6 packets never go from pod to pod on the bridge: the host routes them all, so its forward hooks see each one. A pod
has one address with a prefix of 128 bits, and a default route. Neither pods nor the bridge have a link-local address,
and neighbours are permanent entries on both sides. So there is no neighbour discovery, no router advertisement, no
redirect and no duplicate address detection: nothing that a pod could forge, and nothing to wait for. antispoof.py drops
what a pod sends of them.

Only a node with an IPv6 network imports this package.
"""
