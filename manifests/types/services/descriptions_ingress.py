"""Descriptions of the fields of Ingress and IngressClass (see `manifests.types.descriptions`)."""

INGRESS = """
Ingress
  spec  Hosts and paths, and the Services behind them.
  status  The address; written by the node, ignored in a manifest.
IngressSpec
  defaultBackend  The Service for requests that no rule matches.
  ingressClassName  Class of the Ingress. This node serves `kubelite`, and IngressClasses with its controller.
  rules  Hosts, with paths and their Services.
  tls  Certificates.
IngressRule
  host  Host name, or `*.` and a domain for names with one label more. None: every host.
  http  Paths.
HTTPIngressRuleValue
  paths  Paths. The longest one that matches a request decides, an exact one before a prefix.
HTTPIngressPath
  backend  Where requests go.
  path  Path, which begins with a slash.
  pathType  Exact, Prefix (whole elements of the path) or ImplementationSpecific (here: Prefix).
IngressBackend
  resource  An object other than a Service; refused.
  service  Service of the Ingress's namespace.
IngressResource
  apiGroup  API group of the object.
  kind  Kind of the object.
  name  Name of the object.
IngressServiceBackend
  name  Name of the Service.
  port  Port of the Service.
ServiceBackendPort
  name  Name of the port.
  number  Number of the port.
IngressTLS
  hosts  Hosts for which the certificate is used. None: those that it names.
  secretName  Secret with `tls.crt` and `tls.key`. None: the node's default certificate.
IngressStatus
  loadBalancer  Addresses of the Ingress.
IngressLoadBalancerStatus
  ingress  Addresses.
IngressLoadBalancerIngress
  hostname  Name of the address, if it has one.
  ip  Address.
  ports  State of the ports.
IngressPortStatus
  error  Why the port cannot be used.
  port  Port.
  protocol  TCP, UDP or SCTP.
IngressClass
  spec  Who serves Ingresses of the class.
IngressClassSpec
  controller  Name of the controller that serves the class: `kubelite.io/ingress` for this node.
  parameters  Ignored by this node.
IngressClassParametersReference
  apiGroup  API group of the object.
  kind  Kind of the object.
  name  Name of the object.
  namespace  Namespace of the object.
  scope  Cluster or Namespace.
"""

#: kind → what it is for
INGRESS_KINDS = {
    "Ingress": "HTTP and HTTPS from outside, by host name and path, to Services.",
    "IngressClass": "Who serves the Ingresses of a class.",
}
