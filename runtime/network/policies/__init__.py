"""NetworkPolicies in the kernel: which connections pods may have, as nftables sets and chains.

plan       policies, and what each pod has to do with them, as data
verdict    whether they allow a connection
"""
