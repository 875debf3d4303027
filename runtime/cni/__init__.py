"""Pods' networks by CNI plugins, to version 1.1 of the Container Network Interface specification.

conflist   network configurations: grammar, and the version that a network and its plugins agree on      pure
requests   what a plugin is given: configuration on its stdin, environment                              pure
results    what a plugin answers: addresses, versions, errors in libcni's words                          pure
execution  runs a plugin, until its deadline
records    what is attached, as files that outlive the daemon and the machine
calls      a network's plugins, one after the other: add, delete, check, gc, status
network    the node's network: every pod's attachment, and whether there is a network

A node that does not use CNI imports nothing of this.
"""
