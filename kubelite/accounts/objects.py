"""The objects by which pods find the node's API, as every cluster has them. Pure.

Source: Kubernetes pkg/controlplane/controller/kubernetesservice (the Service and its endpoints),
pkg/controlplane/reconcilers (names and labels), pkg/controller/certificates/rootcacertpublisher (the ConfigMap).
"""

from __future__ import annotations

from kubelite.kube.json import Json
from kubelite.kube.objects import AUTHORITY, AUTHORITY_KEY

NAME = ("default", "kubernetes")  # namespace and name of the Service
PORT = 443  # of the Service
#: The labels by which the node knows its own objects; it removes them when no pod needs them any more. The Service is
#: the last one to be written and to be removed.
LABELS = {
    "EndpointSlice": {"kubernetes.io/service-name": NAME[1]},
    "Endpoints": {"endpointslice.kubernetes.io/skip-mirror": "true"},
    "Service": {"component": "apiserver", "provider": "kubernetes"},
}


def service(address: str, port: int) -> Json:
    """Return the Service. `address`: its clusterIP, "" if it is to be chosen; `port`: that of the API."""
    spec: Json = {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"name": "https", "protocol": "TCP", "port": PORT, "targetPort": port}],
    }
    if address:
        spec |= {"clusterIP": address, "clusterIPs": [address]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(LABELS["Service"]),
        "spec": spec,
        "status": {"loadBalancer": {}},
    }


def endpoint_slice(address: str, port: int) -> Json:
    """Return the EndpointSlice: where the API listens for pods."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": _metadata(LABELS["EndpointSlice"]),
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": port}],
    }


def endpoints(address: str, port: int) -> Json:
    subset = {"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": _metadata(LABELS["Endpoints"]),
        "subsets": [subset],
    }


def authority_map(namespace: str, certificate: str) -> Json:
    """Return the ConfigMap of a namespace that says whom clients of the API trust."""
    words = (
        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints."
    )
    metadata = {
        "name": AUTHORITY,
        "namespace": namespace,
        "annotations": {"kubernetes.io/description": words},
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {AUTHORITY_KEY: certificate},
    }


def _metadata(labels: Json) -> Json:
    return {"namespace": NAME[0], "name": NAME[1], "labels": dict(labels)}
