"""Services, Endpoints and EndpointSlices: defaults, rules, and what an edit must not change.

Rows follow Kubernetes 1.36: pkg/apis/core/v1/defaults_test.go (TestSetDefaultService…),
pkg/apis/core/validation/validation_test.go (TestValidateServiceCreate, TestValidateServiceUpdate,
TestValidateEndpoints) and pkg/apis/discovery/validation/validation_test.go (TestValidateEndpointSlice).
"""

from __future__ import annotations

from typing import Any

import pytest

from manifests.validation.workloads.kinds import workload_update_problems
from tests.unit.manifests.workloads.kit import Doc, altered, defaulted, document, one, problems, read


def service(**spec: Any) -> Doc:
    return document("Service", {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec})


def endpoints(*subsets: Doc) -> Doc:
    return {**document("Endpoints", None), "subsets": list(subsets)}


def endpoint_slice(*items: Doc, **fields: Any) -> Doc:
    ports = [{"name": "http", "port": 80}]
    return {
        **document("EndpointSlice", None),
        "addressType": "IPv4",
        "endpoints": list(items),
        "ports": ports,
        **fields,
    }


def test_defaults_of_a_service() -> None:
    assert defaulted(service())["spec"] == {
        "type": "ClusterIP",
        "selector": {"app": "web"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
    }


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"type": "NodePort"}, "externalTrafficPolicy", "Cluster"),
        ({"externalIPs": ["203.0.113.1"]}, "externalTrafficPolicy", "Cluster"),
        ({}, "externalTrafficPolicy", None),
        ({"type": "LoadBalancer"}, "allocateLoadBalancerNodePorts", True),
        (
            {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False},
            "allocateLoadBalancerNodePorts",
            False,
        ),
        ({"sessionAffinity": "ClientIP"}, "sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 10800}}),
        ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}, "sessionAffinityConfig", None),
        ({"ports": [{"port": 80, "targetPort": "http"}]}, "ports", "http"),
        ({"ports": [{"port": 80, "targetPort": 0}]}, "ports", 80),
    ],
)
def test_fields_that_depend_on_others(given: Doc, field: str, value: object) -> None:
    found = defaulted(service(**given))["spec"].get(field)
    assert (found[0]["targetPort"] if field == "ports" else found) == value


def test_an_external_name_has_neither_address_nor_family() -> None:
    done = defaulted(
        document("Service", {"type": "ExternalName", "externalName": "db.example.org.", "selector": None})
    )
    assert done["spec"] == {
        "type": "ExternalName",
        "externalName": "db.example.org.",
        "sessionAffinity": "None",
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"type": "Cluster"}, 'spec.type: Unsupported value: "Cluster"'),
        (
            {"ports": [{"port": 0, "targetPort": 8080}]},
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535",
        ),
        ({"ports": [{"port": 80}, {"port": 81, "name": "b"}]}, "spec.ports[0].name: Required value"),
        (
            {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]},
            'spec.ports[1].name: Duplicate value: "a"',
        ),
        (
            {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]},
            "spec.ports[1]: Duplicate value:",
        ),
        (
            {"ports": [{"port": 80, "protocol": "ICMP"}]},
            'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
        ),
        (
            {"ports": [{"port": 80, "targetPort": "web_1"}]},
            'spec.ports[0].targetPort: Invalid value: "web_1": must contain only alphanumeric characters',
        ),
        (
            {"ports": [{"port": 80, "nodePort": 30000}]},
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            {
                "type": "NodePort",
                "ports": [
                    {"port": 80, "name": "a", "nodePort": 30000},
                    {"port": 81, "name": "b", "nodePort": 30000},
                ],
            },
            "spec.ports[1].nodePort: Duplicate value: 30000",
        ),
        ({"selector": {"a b": "c"}}, 'spec.selector.a b: Invalid value: "a b": name part must consist of'),
        ({"sessionAffinity": "Cookie"}, 'spec.sessionAffinity: Unsupported value: "Cookie"'),
        (
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}},
            },
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0",
        ),
        (
            {"clusterIP": "10.89.0.300"},
            'spec.clusterIPs[0]: Invalid value: "10.89.0.300": must be a valid IP',
        ),
        ({"clusterIPs": ["10.89.0.3"]}, "spec.clusterIPs: Invalid value:"),
        (
            {"clusterIP": "None", "type": "NodePort"},
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            {"clusterIP": "fd00::1", "ipFamilies": ["IPv4"]},
            'spec.clusterIPs[0]: Invalid value: "fd00::1": expected an IPv4 value as indicated by `ipFamilies[0]`',
        ),
        (
            {"clusterIP": "10.89.0.3", "clusterIPs": ["10.89.0.3", "10.89.0.4"]},
            'spec.clusterIPs: Invalid value: ["10.89.0.3","10.89.0.4"]: may specify no more than one IP for each',
        ),
        (
            {"clusterIP": "10.89.0.3", "clusterIPs": ["10.89.0.3", "fd00::1", "fd00::2"]},
            "spec.clusterIPs: Invalid value:",
        ),
        ({"ipFamilies": ["IPv5"]}, 'spec.ipFamilies[0]: Unsupported value: "IPv5"'),
        ({"ipFamilies": ["IPv6", "IPv6"]}, 'spec.ipFamilies[1]: Duplicate value: "IPv6"'),
        ({"ipFamilyPolicy": "Both"}, 'spec.ipFamilyPolicy: Unsupported value: "Both"'),
        (
            {"externalIPs": ["127.0.0.1"]},
            'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the',
        ),
        ({"externalIPs": ["host"]}, 'spec.externalIPs[0]: Invalid value: "host": must be a valid IP address'),
        (
            {"loadBalancerSourceRanges": ["10.0.0.0/8"]},
            "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]},
            'spec.loadBalancerSourceRanges[0]: Invalid value: "10.0.0.1": must be a valid CIDR value',
        ),
        (
            {"loadBalancerClass": "example.com/x"},
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            {"externalTrafficPolicy": "Local"},
            'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible',
        ),
        ({"internalTrafficPolicy": "Near"}, 'spec.internalTrafficPolicy: Unsupported value: "Near"'),
        (
            {"healthCheckNodePort": 30100},
            "spec.healthCheckNodePort: Invalid value: 30100: may only be set when `type` is 'LoadBalancer'",
        ),
        ({"trafficDistribution": "Nearest"}, 'spec.trafficDistribution: Unsupported value: "Nearest"'),
        ({"type": "ExternalName"}, "spec.externalName: Required value"),
        (
            {"type": "ExternalName", "externalName": "x", "clusterIP": "10.89.0.3"},
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
        ),
        ({"type": "ExternalName", "externalName": "-x"}, 'spec.externalName: Invalid value: "-x"'),
    ],
)
def test_what_a_service_must_not_have(given: Doc, sentence: str) -> None:
    one(problems(service(**given)), sentence)


def test_the_name_of_a_service_is_a_dns_1035_label() -> None:
    one(
        problems(altered(service(), {"metadata.name": "1web"})),
        'metadata.name: Invalid value: "1web": a DNS-1035',
    )


BOTH: Doc = {
    "clusterIP": "10.89.0.3",
    "clusterIPs": ["10.89.0.3", "fd00::3"],
    "ipFamilyPolicy": "RequireDualStack",
    "ipFamilies": ["IPv4", "IPv6"],
}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ({"clusterIP": "10.89.0.3"}, {"clusterIP": "10.89.0.4"}, "spec.clusterIPs[0]: Invalid value"),
        ({"clusterIP": "None"}, {"clusterIP": "10.89.0.4"}, "spec.clusterIPs[0]: Invalid value"),
        ({"clusterIP": "10.89.0.3"}, {"type": "ExternalName", "externalName": "x"}, ""),
        (BOTH, {"clusterIP": "10.89.0.3"}, "spec.ipFamilyPolicy: Invalid value"),
        (BOTH, {"clusterIP": "10.89.0.3", "ipFamilyPolicy": "SingleStack"}, ""),
        (BOTH, {**BOTH, "clusterIPs": ["10.89.0.3", "fd00::4"]}, "spec.clusterIPs[1]: Invalid value"),
        ({"clusterIP": "10.89.0.3"}, BOTH, ""),
        (BOTH, {**BOTH, "ipFamilies": ["IPv6", "IPv4"]}, "spec.ipFamilies[0]: Invalid value"),
        ({"clusterIP": "10.89.0.3"}, {"clusterIP": "10.89.0.3", "type": "NodePort"}, ""),
        ({}, {"clusterIP": "10.89.0.4"}, ""),
    ],
)
def test_which_edits_of_a_service_are_refused(old: Doc, new: Doc, sentence: str) -> None:
    before, after = read(service(**old))[0], read(service(**new))[0]
    assert before is not None and after is not None
    found = [str(problem) for problem in workload_update_problems(before, after)]
    if sentence:
        one(found, sentence)
    else:
        assert not found


ADDRESS = {"ip": "192.0.2.1"}


@pytest.mark.parametrize(
    ("subset", "sentence"),
    [
        ({"addresses": [ADDRESS], "ports": [{"port": 80}]}, ""),
        ({"ports": [{"port": 80}]}, "subsets[0]: Required value: must specify `addresses` or"),
        (
            {"addresses": [{"ip": "169.254.169.254"}]},
            'subsets[0].addresses[0].ip: Invalid value: "169.254.169.254": may not',
        ),
        (
            {"notReadyAddresses": [{"ip": "0.0.0.0"}]},
            'subsets[0].notReadyAddresses[0].ip: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)',
        ),
        (
            {"addresses": [ADDRESS], "ports": [{"port": 80}, {"port": 81, "name": "b"}]},
            "subsets[0].ports[0].name: Required value",
        ),
        ({"addresses": [ADDRESS], "ports": [{"port": 0}]}, "subsets[0].ports[0].port: Invalid value: 0"),
    ],
)
def test_endpoints(subset: Doc, sentence: str) -> None:
    found = problems(endpoints(subset))
    if sentence:
        one(found, sentence)
    else:
        assert not found


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        (endpoint_slice({"addresses": ["192.0.2.1"], "conditions": {"ready": False}}), ""),
        (endpoint_slice({"addresses": ["db.example.org"]}, addressType="FQDN"), ""),
        (endpoint_slice(addressType="IPX"), 'addressType: Unsupported value: "IPX"'),
        (
            endpoint_slice({"addresses": []}),
            "endpoints[0].addresses: Required value: must contain at least 1",
        ),
        (
            endpoint_slice({"addresses": ["fd00::1"]}),
            'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an',
        ),
        (
            endpoint_slice(*({"addresses": ["192.0.2.1"]},) * 1001),
            "endpoints: Too many: 1001: must have at most 1000",
        ),
        (endpoint_slice(ports=[{"port": 80, "protocol": "X"}]), 'ports[0].protocol: Unsupported value: "X"'),
    ],
)
def test_endpoint_slices(doc: Doc, sentence: str) -> None:
    found = problems(doc)
    if sentence:
        one(found, sentence)
    else:
        assert not found


def test_the_type_of_a_slice_must_not_change() -> None:
    old, new = read(endpoint_slice())[0], read(endpoint_slice(addressType="FQDN"))[0]
    assert old is not None and new is not None
    found = [str(problem) for problem in workload_update_problems(old, new)]
    one(found, 'addressType: Invalid value: "FQDN": field is immutable')


def test_conditions_that_are_false_are_kept() -> None:
    done = defaulted(endpoint_slice({"addresses": ["192.0.2.1"], "conditions": {"ready": False}}))
    assert done["endpoints"] == [{"addresses": ["192.0.2.1"], "conditions": {"ready": False}}]
