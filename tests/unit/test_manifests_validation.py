"""What the API server refuses: a row per rule, each beside what it accepts."""

import base64
from typing import Any

import pytest

from manifests.core import ConfigMap, Pod, Secret
from manifests.defaults import default_pod, default_secret
from manifests.validation import MAX_DATA, validate_config_map, validate_pod, validate_secret


def problems(
    spec: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, **container: Any
) -> list[str]:
    """Of a pod with one container that has these fields, and these fields of spec and metadata beside."""
    containers = [{"name": "c", "image": "nginx", **container}]
    pod = Pod.parse(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", **(meta or {})},
            "spec": {"containers": containers, **(spec or {})},
        }
    )
    return [str(problem) for problem in validate_pod(default_pod(pod))]


def starts(found: list[str], *expected: str) -> None:
    """Those problems, in that order, each beginning so; and no other."""
    assert len(found) == len(expected), found
    for ours, sentence in zip(found, expected, strict=True):
        assert ours.startswith(sentence), found


C = "spec.containers[0]"
MOUNT = {"name": "v", "mountPath": "/v"}
VOLUMES: dict[str, Any] = {"volumes": [{"name": "v", "emptyDir": {}}]}
TCP = {"tcpSocket": {"port": 80}}


def test_a_whole_valid_pod() -> None:
    found = problems(
        {
            **VOLUMES,
            "initContainers": [
                {"name": "i", "image": "x"},
                {"name": "s", "image": "x", "restartPolicy": "Always", "startupProbe": TCP},
            ],
            "restartPolicy": "OnFailure",
            "hostname": "web",
            "dnsPolicy": "None",
            "dnsConfig": {
                "nameservers": ["10.0.0.1", "fd00::1"],
                "searches": ["svc.local.", "_tcp.x"],
                "options": [{"name": "ndots"}],
            },
            "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["a.b"]}],
            "tolerations": [
                {"operator": "Exists"},
                {"key": "a", "effect": "NoExecute", "tolerationSeconds": 1},
            ],
            "securityContext": {
                "runAsUser": 0,
                "fsGroup": 5,
                "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}],
            },
        },
        {"namespace": "prod", "labels": {"a.b/c": "X_1", "d": ""}, "annotations": {"a.b/C": "any thing"}},
        env=[
            {"name": "A.b-c d", "value": ""},
            {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a.b/c']"}}},
            {"name": "R", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        envFrom=[{"prefix": "X_", "configMapRef": {"name": "c"}}],
        ports=[
            {"name": "http", "containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"},
            {"containerPort": 80, "protocol": "UDP"},
        ],
        volumeMounts=[{**MOUNT, "subPath": "a/b", "readOnly": True, "recursiveReadOnly": "IfPossible"}],
        readinessProbe={"httpGet": {"port": "http"}, "successThreshold": 2},
        livenessProbe={"exec": {"command": ["true"]}, "terminationGracePeriodSeconds": 1},
        lifecycle={"preStop": {"sleep": {"seconds": 5}}},
        resources={"limits": {"cpu": "1", "memory": "1Gi", "example.com/gpu": "1"}, "requests": {"cpu": "1"}},
        securityContext={
            "capabilities": {"add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"},
        },
    )
    assert found == []


@pytest.mark.parametrize(
    ("meta", "sentence"),
    [
        (
            {"name": "Web"},
            'metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of',
        ),
        ({"name": "a" * 254}, f'metadata.name: Invalid value: "{"a" * 254}": must be no more than 253 bytes'),
        ({"name": "a.-b"}, 'metadata.name: Invalid value: "a.-b": a lowercase RFC 1123 subdomain'),
        ({"name": None}, "metadata.name: Required value: name or generateName is required"),
        (
            {"namespace": "a.b"},
            'metadata.namespace: Invalid value: "a.b": a lowercase RFC 1123 label must consist of',
        ),
        (
            {"labels": {"a": "x y"}},
            'metadata.labels[a]: Invalid value: "x y": a valid label must be an empty string',
        ),
        (
            {"labels": {"a": "x" * 64}},
            f'metadata.labels[a]: Invalid value: "{"x" * 64}": must be no more than 63 bytes',
        ),
        ({"labels": {"-a": "x"}}, 'metadata.labels[-a]: Invalid value: "-a": name part must consist of'),
        (
            {"labels": {"a/b/c": "x"}},
            'metadata.labels[a/b/c]: Invalid value: "a/b/c": a qualified name must consist of',
        ),
        ({"labels": {"/c": "x"}}, 'metadata.labels[/c]: Invalid value: "/c": prefix part must be non-empty'),
        (
            {"labels": {"A/c": "x"}},
            'metadata.labels[A/c]: Invalid value: "A/c": prefix part a lowercase RFC 1123',
        ),
        (
            {"annotations": {"a b": "x"}},
            'metadata.annotations[a b]: Invalid value: "a b": name part must consist of',
        ),
        (
            {"annotations": {"a": "x" * 262144}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
    ],
)
def test_metadata(meta: dict[str, Any], sentence: str) -> None:
    starts(problems(meta=meta), sentence)


@pytest.mark.parametrize(
    ("container", "sentence"),
    [
        ({"name": "a.b"}, f'{C}.name: Invalid value: "a.b": a lowercase RFC 1123 label'),
        ({"name": ""}, f"{C}.name: Required value"),
        ({"image": None}, f"{C}.image: Required value"),
        (
            {"image": " nginx"},
            f'{C}.image: Invalid value: " nginx": must not have leading or trailing whitespace',
        ),
        (
            {"imagePullPolicy": "never"},
            f'{C}.imagePullPolicy: Unsupported value: "never": supported values: "Always", "IfNotPresent", "Never"',
        ),
        ({"terminationMessagePolicy": "x"}, f'{C}.terminationMessagePolicy: Unsupported value: "x"'),
        ({"restartPolicy": "Sometimes"}, f'{C}.restartPolicy: Unsupported value: "Sometimes"'),
        (
            {"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]},
            f"{C}.restartPolicy: Required value: must specify restartPolicy when restart rules are used",
        ),
        (
            {"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}]},
            f"{C}.restartPolicyRules[0].exitCodes: Required value",
        ),
        ({"ports": [{"containerPort": 0}]}, f"{C}.ports[0].containerPort: Required value"),
        (
            {"ports": [{"containerPort": 65536}]},
            f"{C}.ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            {"ports": [{"containerPort": 1, "hostPort": -1}]},
            f"{C}.ports[0].hostPort: Invalid value: -1: must be between",
        ),
        (
            {"ports": [{"containerPort": 1, "name": "123"}]},
            f'{C}.ports[0].name: Invalid value: "123": must contain at least one letter (a-z)',
        ),
        (
            {"ports": [{"containerPort": 1, "name": "a--b"}]},
            f'{C}.ports[0].name: Invalid value: "a--b": must not contain consecutive hyphens',
        ),
        (
            {"ports": [{"containerPort": 1, "name": "a" * 16}]},
            f'{C}.ports[0].name: Invalid value: "{"a" * 16}": must be no more than 15 bytes',
        ),
        (
            {"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]},
            f'{C}.ports[1].name: Duplicate value: "a"',
        ),
        (
            {"ports": [{"containerPort": 1, "protocol": "tcp"}]},
            f'{C}.ports[0].protocol: Unsupported value: "tcp"',
        ),
        (
            {"ports": [{"containerPort": 1, "hostIP": "localhost"}]},
            f'{C}.ports[0].hostIP: Invalid value: "localhost": must be a valid IP address',
        ),
        (
            {"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]},
            f'{C}.ports[1].hostPort: Duplicate value: "TCP//9"',
        ),
        (
            {"env": [{"name": "a=b"}]},
            f'{C}.env[0].name: Invalid value: "a=b": a valid environment variable name must',
        ),
        ({"env": [{"name": ""}]}, f"{C}.env[0].name: Required value"),
        (
            {"env": [{"name": "A", "valueFrom": {}}]},
            f'{C}.env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`',
        ),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            f'{C}.env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}}]},
            f'{C}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.foo"',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]},
            f'{C}.env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu"',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"key": "k"}}}]},
            f"{C}.env[0].valueFrom.secretKeyRef.name: Required value",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a b"}}}]},
            f'{C}.env[0].valueFrom.configMapKeyRef.key: Invalid value: "a b": a valid config key',
        ),
        (
            {"envFrom": [{}]},
            f'{C}.envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`',
        ),
        ({"envFrom": [{"secretRef": {}}]}, f"{C}.envFrom[0].secretRef.name: Required value"),
        ({"volumeMounts": [{"name": "w", "mountPath": "/v"}]}, f'{C}.volumeMounts[0].name: Not found: "w"'),
        (
            {"volumeMounts": [{"name": "v", "mountPath": ""}]},
            f"{C}.volumeMounts[0].mountPath: Required value",
        ),
        (
            {"volumeMounts": [MOUNT, MOUNT]},
            f'{C}.volumeMounts[1].mountPath: Invalid value: "/v": must be unique',
        ),
        (
            {"volumeMounts": [{**MOUNT, "subPath": "/a"}]},
            f'{C}.volumeMounts[0].subPath: Invalid value: "/a": must be a relative path',
        ),
        (
            {"volumeMounts": [{**MOUNT, "subPath": "a/../b"}]},
            f"{C}.volumeMounts[0].subPath: Invalid value: \"a/../b\": must not contain '..'",
        ),
        (
            {"volumeMounts": [{**MOUNT, "subPath": "a", "subPathExpr": "b"}]},
            f'{C}.volumeMounts[0].subPathExpr: Invalid value: "b": subPathExpr and subPath are mutually exclusive',
        ),
        (
            {"volumeMounts": [{**MOUNT, "mountPropagation": "Bidirectional"}]},
            f"{C}.volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation",
        ),
        (
            {"volumeMounts": [{**MOUNT, "recursiveReadOnly": "Enabled"}]},
            f"{C}.volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
        ),
        (
            {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]},
            f'{C}.volumeDevices[0].name: Invalid value: "v": can only use volume source type',
        ),
        ({"livenessProbe": {}}, f"{C}.livenessProbe: Required value: must specify a handler type"),
        (
            {"livenessProbe": {**TCP, "grpc": {"port": 1}}},
            f"{C}.livenessProbe.grpc: Forbidden: may not specify more than 1 handler type",
        ),
        (
            {"livenessProbe": {**TCP, "successThreshold": 2}},
            f"{C}.livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            {"livenessProbe": {**TCP, "periodSeconds": -1}},
            f"{C}.livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        ({"startupProbe": {"exec": {}}}, f"{C}.startupProbe.exec.command: Required value"),
        (
            {"readinessProbe": {**TCP, "terminationGracePeriodSeconds": 1}},
            f"{C}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ),
        (
            {"readinessProbe": {"httpGet": {"port": 0}}},
            f"{C}.readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535",
        ),
        (
            {"readinessProbe": {"httpGet": {"port": 1, "scheme": "http"}}},
            f'{C}.readinessProbe.httpGet.scheme: Unsupported value: "http"',
        ),
        (
            {"readinessProbe": {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": "x"}]}}},
            f'{C}.readinessProbe.httpGet.httpHeaders[0]: Invalid value: "a b": a valid HTTP header',
        ),
        (
            {"lifecycle": {"postStart": {}}},
            f"{C}.lifecycle.postStart: Required value: must specify a handler type",
        ),
        (
            {"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}},
            f"{C}.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than",
        ),
        (
            {"lifecycle": {"stopSignal": "SIGUSR1"}},
            f"{C}.lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
        ),
        (
            {"resources": {"limits": {"cpu": "-1"}}},
            f'{C}.resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0',
        ),
        (
            {"resources": {"limits": {"gpu": "1"}}},
            f'{C}.resources.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers',
        ),
        (
            {"resources": {"limits": {"a.b/gpu": "0.5"}}},
            f'{C}.resources.limits[a.b/gpu]: Invalid value: "500m": must be an integer',
        ),
        (
            {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}},
            f'{C}.resources.requests[cpu]: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (
            {"resources": {"requests": {"a.b/gpu": "1"}}},
            f"{C}.resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            {"resources": {"limits": {"hugepages-2Mi": "2Mi"}}},
            f"{C}.resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            {"securityContext": {"runAsUser": -1}},
            f"{C}.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            {"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}},
            f'{C}.securityContext: Invalid value: "": cannot set `allowPrivilegeEscalation` to false',
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
            f"{C}.securityContext.seccompProfile.localhostProfile: Required value",
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Default"}}},
            f'{C}.securityContext.seccompProfile.type: Unsupported value: "Default"',
        ),
        (
            {"securityContext": {"procMount": "Unmasked"}},
            f'{C}.securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false',
        ),
    ],
)
def test_containers(container: dict[str, Any], sentence: str) -> None:
    starts(problems(VOLUMES, **container), sentence)


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
            {"dnsConfig": {"nameservers": ["1.1.1.1"] * 4}},
            'spec.dnsConfig.nameservers: Invalid value: "1.1.1.1, 1.1.1.1, 1.1.1.1, 1.1.1.1": must not',
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
