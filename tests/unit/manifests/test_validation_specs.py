"""Pod specs, volumes, ConfigMaps and Secrets that the API server rejects: a row for each rule."""

import base64
from typing import Any

import pytest

from manifests.types.core import ConfigMap, Secret
from manifests.types.defaults import default_secret
from manifests.validation.objects import MAX_DATA, validate_config_map, validate_secret
from tests.unit.manifests.validation_kit import TCP, C, problems, starts


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", **source}]}


V = "spec.volumes[0]"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        (
            {"ephemeralContainers": [{"name": "e", "image": "i"}]},
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            {"initContainers": [{"name": "c", "image": "i"}]},
            'spec.initContainers[0].name: Duplicate value: "c"',
        ),
        (
            {"initContainers": [{"name": "i", "image": "i", "livenessProbe": TCP}]},
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers",
        ),
        ({"restartPolicy": "always"}, 'spec.restartPolicy: Unsupported value: "always"'),
        ({"dnsPolicy": "none"}, 'spec.dnsPolicy: Unsupported value: "none"'),
        ({"dnsPolicy": "None"}, "spec.dnsConfig: Required value"),
        (
            {"dnsPolicy": "None", "dnsConfig": {}},
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver",
        ),
        (
            {"dnsConfig": {"nameservers": ["a"]}},
            'spec.dnsConfig.nameservers[0]: Invalid value: "a": must be a valid IP address',
        ),
        (
            {"dnsConfig": {"nameservers": ["fe80::1%eth0"]}},
            'spec.dnsConfig.nameservers[0]: Invalid value: "fe80::1%eth0": must be a valid IP address',
        ),
        (
            {"dnsConfig": {"nameservers": ["1.1.1.1"] * 4}},
            'spec.dnsConfig.nameservers: Invalid value: "1.1.1.1, 1.1.1.1, 1.1.1.1, 1.1.1.1": must not',
        ),
        (
            {"dnsConfig": {"searches": ["Foo_bar"]}},
            'spec.dnsConfig.searches[0]: Invalid value: "Foo_bar": a lower',
        ),
        (
            {"terminationGracePeriodSeconds": -1},
            "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"activeDeadlineSeconds": 0},
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647",
        ),
        ({"hostname": "a.b"}, 'spec.hostname: Invalid value: "a.b": a lowercase RFC 1123 label'),
        (
            {"hostAliases": [{"ip": "x", "hostnames": []}]},
            'spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP',
        ),
        ({"nodeSelector": {"a": "x y"}}, 'spec.nodeSelector[a]: Invalid value: "x y": a valid label'),
        (
            {"tolerations": [{"operator": "Equal"}]},
            'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty',
        ),
        (
            {"tolerations": [{"key": "a", "tolerationSeconds": 1}]},
            "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute'",
        ),
        (
            {"shareProcessNamespace": True, "hostPID": True},
            "spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID",
        ),
        ({"os": {"name": "plan9"}}, 'spec.os.name: Unsupported value: "plan9"'),
        ({"resources": {"limits": {"pids": "5"}}}, 'spec.resources.limits[pids]: Unsupported value: "pids"'),
        (
            {"securityContext": {"supplementalGroups": [-1]}},
            "spec.securityContext.supplementalGroups[0]: Invalid value: -1",
        ),
        (
            {"securityContext": {"sysctls": [{"name": "A", "value": ""}]}},
            'spec.securityContext.sysctls[0].name: Invalid value: "A": must have',
        ),
        (
            {"hostNetwork": True, "securityContext": {"sysctls": [{"name": "net.a", "value": ""}]}},
            'spec.securityContext.sysctls[0].name: Invalid value: "net.a": sysctl not allowed when hostNetwork',
        ),
        (
            {
                "topologySpreadConstraints": [
                    {"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}
                ]
            },
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}
                    }
                }
            },
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelector",
        ),
        (
            {"schedulingGates": [{"name": "a"}, {"name": "a"}]},
            'spec.schedulingGates[1]: Duplicate value: "a"',
        ),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, 'spec.volumes[1].name: Duplicate value: "v"'),
        ({"volumes": [{"name": "V"}]}, f'{V}.name: Invalid value: "V": a lowercase RFC 1123 label'),
        (
            volume(emptyDir={}, hostPath={"path": "/"}),
            f"{V}.hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            volume(emptyDir={"sizeLimit": "-1"}),
            f"{V}.emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
        ),
        (volume(hostPath={"path": ""}), f"{V}.hostPath.path: Required value"),
        (
            volume(hostPath={"path": "/a/../b"}),
            f"{V}.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            volume(hostPath={"path": "/", "type": "directory"}),
            f'{V}.hostPath.type: Unsupported value: "directory"',
        ),
        (volume(configMap={}), f"{V}.configMap.name: Required value"),
        (
            volume(configMap={"name": "a", "defaultMode": 0o1000}),
            f"{V}.configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777",
        ),
        (
            volume(configMap={"name": "a", "items": [{"key": "k", "path": "../x"}]}),
            f"{V}.configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
        ),
        (volume(secret={}), f"{V}.secret.secretName: Required value"),
        (
            volume(secret={"secretName": "a", "items": [{"key": "k", "path": "..x"}]}),
            f"{V}.secret.items[0].path: Invalid value: \"..x\": must not start with '..'",
        ),
        (
            volume(downwardAPI={"items": [{"path": "a"}]}),
            f"{V}.downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef",
        ),
        (
            volume(downwardAPI={"items": [{"path": "a", "fieldRef": {"fieldPath": "status.podIP"}}]}),
            f'{V}.downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: "status.podIP"',
        ),
        (
            volume(projected={"sources": [{}]}),
            f"{V}.projected.sources[0]: Required value: must specify a projection type",
        ),
        (
            volume(projected={"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}),
            f"{V}.projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not",
        ),
        (
            volume(
                projected={
                    "sources": [{"secret": {"name": n, "items": [{"key": "k", "path": "p"}]}} for n in "ab"]
                }
            ),
            f'{V}.projected.sources[1].secret.path: Invalid value: "p": conflicting duplicate paths',
        ),
        (
            volume(persistentVolumeClaim={"claimName": ""}),
            f"{V}.persistentVolumeClaim.claimName: Required value",
        ),
        (volume(image={}), f"{V}.image.reference: Required value"),
        (
            volume(nfs={"server": "a", "path": "b"}),
            f'{V}.nfs.path: Invalid value: "b": must be an absolute path',
        ),
    ],
)
def test_specs(spec: dict[str, Any], sentence: str) -> None:
    starts(problems(spec), sentence)


def test_two_containers_cannot_have_one_port_of_the_host() -> None:
    ports = [{"containerPort": 80, "hostPort": 80}]
    both = [{"name": name, "image": "i", "ports": ports} for name in "ab"]
    starts(problems({"containers": both}), 'spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"')
    other = [{**both[0]}, {**both[1], "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "UDP"}]}]
    starts(problems({"containers": other}))


def test_ports_of_a_pod_on_the_hosts_network() -> None:
    ports = [{"containerPort": 80, "hostPort": 81}]
    starts(
        problems({"hostNetwork": True}, ports=ports),
        f"{C}.ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is set to true",
    )


def config_map(**fields: Any) -> list[str]:
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, **fields}
    return [str(problem) for problem in validate_config_map(ConfigMap.parse(data))]


def test_config_maps() -> None:
    starts(config_map(data={"a.b-C_d": "x"}, binaryData={"b": "aGk="}))
    starts(
        config_map(data={"a/b": "x"}), 'data[a/b]: Invalid value: "a/b": a valid config key must consist of'
    )
    starts(config_map(data={"..": "x"}), "data[..]: Invalid value: \"..\": must not be '..'")
    starts(
        config_map(data={"a": "x"}, binaryData={"a": ""}),
        'data[a]: Invalid value: "a": duplicate of key present in binaryData',
    )
    starts(config_map(data={"a": "x" * (MAX_DATA + 1)}), f"Too long: may not be more than {MAX_DATA} bytes")


def secret(kind: str | None = None, **data: str) -> list[str]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    doc = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}, "data": encoded, "type": kind}
    return [str(problem) for problem in validate_secret(default_secret(Secret.parse(doc)))]


def test_secrets() -> None:
    starts(secret(a="x"))
    starts(secret("example.com/mine", a="x"))
    starts(secret("kubernetes.io/tls", **{"tls.crt": "x"}), "data[tls.key]: Required value")
    starts(secret("kubernetes.io/dockerconfigjson", **{".dockerconfigjson": "{}"}))
    starts(
        secret("kubernetes.io/dockerconfigjson", **{".dockerconfigjson": "hunter2{"}),
        'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>"',
    )
    starts(secret("kubernetes.io/basic-auth", password="x"))
    starts(
        secret("kubernetes.io/basic-auth"), "data[username]: Required value", "data[password]: Required value"
    )
    starts(
        secret("kubernetes.io/service-account-token"),
        "metadata.annotations[kubernetes.io/service-account.name]: Required",
    )
    starts(secret(a="x" * (MAX_DATA + 1)), f"data: Too long: may not be more than {MAX_DATA} bytes")
