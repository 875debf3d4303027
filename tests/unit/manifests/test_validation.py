"""Metadata and containers that the API server rejects: a row for each rule, with valid values beside it."""

from typing import Any

import pytest

from manifests.types.annotations import APPARMOR, DELETION_COST, SECCOMP, SECCOMP_POD
from tests.unit.manifests.validation_kit import MOUNT, TCP, VOLUMES, C, problems, starts


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
        (
            {"annotations": {f"{APPARMOR}d": "unconfined"}},
            f'metadata.annotations[{APPARMOR}d]: Invalid value: "d": container not found',
        ),
        (
            {"annotations": {f"{APPARMOR}c": "mine"}},
            f'metadata.annotations[{APPARMOR}c]: Invalid value: "mine": invalid AppArmor profile name: "mine"',
        ),
        (
            {"annotations": {SECCOMP_POD: "mine"}},
            f'metadata.annotations[{SECCOMP_POD}]: Invalid value: "mine": must be a valid seccomp profile',
        ),
        (
            {"annotations": {f"{SECCOMP}c": "localhost/../x"}},
            f"""metadata.annotations[{SECCOMP}c]: Invalid value: "../x": must not contain '..'""",
        ),
        (
            {"annotations": {DELETION_COST: "+1"}},
            f'metadata.annotations[{DELETION_COST}]: Invalid value: "+1": must be a 32bit integer',
        ),
        (
            {"annotations": {DELETION_COST: "2147483648"}},
            f'metadata.annotations[{DELETION_COST}]: Invalid value: "2147483648": must be a 32bit integer',
        ),
    ],
)
def test_metadata(meta: dict[str, Any], sentence: str) -> None:
    starts(problems(meta=meta), sentence)


def test_annotations_that_are_well_formed() -> None:
    good = {
        f"{APPARMOR}c": "localhost/x",
        SECCOMP_POD: "runtime/default",
        f"{SECCOMP}gone": "docker/default",
        DELETION_COST: "-7",
    }
    assert problems(meta={"annotations": good}) == []


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
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}},
                    }
                ]
            },
            f'{C}.env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": '
            "only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "requests.hugepages-"}}}]},
            f'{C}.env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "requests.hugepages-"',
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
