"""Descriptions of the fields of NetworkPolicies (see `manifests.types.descriptions`)."""

NETWORK_POLICIES = """
NetworkPolicy
  spec  Which pods, and what may connect to them and to what they may connect.
NetworkPolicySpec
  egress  What the pods may connect to. A connection is allowed if one rule of one policy allows it.
  ingress  What may connect to the pods. A connection is allowed if one rule of one policy allows it.
  podSelector  The pods of the namespace to which the policy applies. Empty: all of them.
  policyTypes  Ingress, Egress or both: the directions that it restricts. Default: Ingress, and Egress if it has egress.
NetworkPolicyIngressRule
  from  Where connections may come from. Empty: from anywhere.
  ports  Ports of the pods. Empty: all ports and protocols.
NetworkPolicyEgressRule
  ports  Ports of the destination. Empty: all ports and protocols.
  to  Where connections may go. Empty: anywhere.
NetworkPolicyPeer
  ipBlock  A network. Not together with a selector.
  namespaceSelector  Labels of namespaces. Empty: all. Without podSelector, all of their pods.
  podSelector  Labels of pods, in the namespaces of namespaceSelector, or in the policy's own one.
NetworkPolicyPort
  endPort  Last port of a range that begins with port.
  port  Number, or the name of a container's port. Default: all ports of the protocol.
  protocol  TCP, UDP or SCTP. Default: TCP.
IPBlock
  cidr  The network, such as 192.0.2.0/24.
  except  Parts of the network that are not meant.
"""

NETWORK_POLICY_KIND = {
    "NetworkPolicy": "Which connections pods may have. A pod that no policy selects may have all.",
}
