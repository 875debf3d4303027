"""Descriptions of the fields of Services, Endpoints and EndpointSlices (see `manifests.types.descriptions`)."""

SERVICES = """
Service
  spec  Which pods, and where they can be reached.
  status  The current state; written by the node, ignored in a manifest.
ServiceSpec
  allocateLoadBalancerNodePorts  false: a LoadBalancer gets no node ports, only those that its ports name.
  clusterIP  The Service's address. Default: a free one of the range for Services. None: no address (headless).
  clusterIPs  The addresses of a Service, one of each of its families. The first one is clusterIP.
  externalIPs  Further addresses at which this node accepts the Service's traffic.
  externalName  The DNS name that a Service of type ExternalName stands for.
  externalTrafficPolicy  Cluster, or Local: keep the client's address. On one node all pods are local.
  healthCheckNodePort  Accepted, without effect: no load balancer asks for this node's health.
  internalTrafficPolicy  Cluster or Local. On one node all pods are local.
  ipFamilies  IPv4, IPv6 or both; the first one is that of clusterIP. Default: the policy decides, IPv4 first.
  ipFamilyPolicy  SingleStack, PreferDualStack (both families, if the node has them) or RequireDualStack.
  loadBalancerClass  A LoadBalancer of a class is left to others and gets no address.
  loadBalancerIP  Ignored: the address of a LoadBalancer is the node's.
  loadBalancerSourceRanges  Networks whose clients may use a LoadBalancer.
  ports  Ports of the Service.
  publishNotReadyAddresses  true: pods that are not ready get traffic, too.
  selector  Labels of the pods. None: Endpoints or EndpointSlices of the same name say where traffic goes.
  sessionAffinity  None, or ClientIP: connections of one client go to one pod.
  sessionAffinityConfig  How long ClientIP lasts.
  trafficDistribution  Ignored: there is one node.
  type  ClusterIP, NodePort, LoadBalancer or ExternalName.
ServicePort
  appProtocol  The protocol above TCP or UDP, for proxies.
  name  Name of the port, if there are several.
  nodePort  Port on the node's addresses. Default: a free one of the range for node ports.
  port  Port of the Service.
  protocol  TCP, UDP or SCTP.
  targetPort  Port of the pods, by number or by the name of a container's port. Default: port.
SessionAffinityConfig
  clientIP  Time.
ClientIPConfig
  timeoutSeconds  Seconds without a connection after which a client may get another pod.
ServiceStatus
  conditions  Conditions of the Service.
  loadBalancer  Addresses of a LoadBalancer.
LoadBalancerStatus
  ingress  Addresses.
LoadBalancerIngress
  hostname  Name of the address, if it has one.
  ip  Address.
  ipMode  VIP: traffic arrives with this address as its destination.
  ports  State of the ports.
PortStatus
  error  Why the port cannot be used.
  port  Port.
  protocol  TCP, UDP or SCTP.
ServiceCondition
  lastTransitionTime  When status last changed.
  message  Details, for people.
  observedGeneration  Generation of the object that the condition is about.
  reason  Reason for the last change, as one word.
  status  True, False or Unknown.
  type  Type of the condition.
Endpoints
  subsets  Addresses and ports. Each address of a subset has each port of it.
EndpointSubset
  addresses  Addresses that are ready.
  notReadyAddresses  Addresses that are not ready.
  ports  Ports.
EndpointAddress
  hostname  Host name of the address.
  ip  Address.
  nodeName  Node of the address.
  targetRef  The pod of the address.
EndpointsPort
  appProtocol  The protocol above TCP or UDP, for proxies.
  name  Name of the Service's port.
  port  Port.
  protocol  TCP, UDP or SCTP.
EndpointSlice
  addressType  IPv4 or IPv6. Slices of type FQDN are stored and have no effect on this node.
  endpoints  Endpoints.
  ports  Ports. Each endpoint has each of them.
Endpoint
  addresses  Addresses; the first one gets traffic.
  conditions  Whether it gets traffic.
  deprecatedTopology  Ignored.
  hints  Ignored: there is one node.
  hostname  Host name of the endpoint.
  nodeName  Node of the endpoint.
  targetRef  The pod.
  zone  Ignored.
EndpointConditions
  ready  Gets traffic. Default: true.
  serving  Ready, or would be if it did not terminate. Default: ready.
  terminating  The pod terminates.
EndpointHints
  forNodes  Ignored.
  forZones  Ignored.
ForNode
  name  Name of the node.
ForZone
  name  Name of the zone.
EndpointPort
  appProtocol  The protocol above TCP or UDP, for proxies.
  name  Name of the Service's port.
  port  Port.
  protocol  TCP, UDP or SCTP.
"""

#: kind → what it is for
SERVICE_KINDS = {
    "Endpoints": "Addresses behind a Service, in Kubernetes' older form. The node writes them for a Service that has a "
    "selector.",
    "EndpointSlice": "Addresses behind a Service. The node writes them for a Service that has a selector.",
    "Service": "An address and a name for pods, which come and go.",
}
