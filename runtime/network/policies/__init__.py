"""NetworkPolicies in the kernel: which connections pods may have, as nftables sets and chains.

plan       policies, and what each pod has to do with them, as data
verdict    whether they allow a connection
arrange    the sets, chains and elements that they need
rules      the rules of the chains
enforcement  desired state, changes, audit
watch      other programs' changes of the tables
tables     the tables over netlink     conntrack   connections of an address's earlier pod
"""
