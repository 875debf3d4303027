"""NetworkPolicies: which connections they allow between pods, and with other addresses.

compiled   the documents of policies as rules                    pure
pods       what the rules mean for a pod                         pure
decide     policies, pods and namespaces → the rules of a node   pure
"""
