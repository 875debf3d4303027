"""Make the first pod start as fast as later ones: run the computations of a start once, for an imaginary pod.

pydantic builds the validator of a model when it is first used (40 ms for a Pod), and a start reads caches that this
fills. Nothing is written or started. The daemon does this while its helper processes start.
"""

from __future__ import annotations

import json
from typing import Any

from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.decide.unsupported import unsupported_fields
from kubelite.node.model.actions import Facts
from kubelite.node.model.cri import (
    ContainerState,
    ObservedContainer,
    ObservedImage,
    ObservedPod,
    ObservedSandbox,
)
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.spec import container_spec, env, hashes, limits, netfiles, users
from kubelite.node.worker.sync_pod import default_masked_paths, sandbox_request, seccomp_profile
from manifests.types.core import Pod, PodStatus
from manifests.yaml.loader import load_text

_IMAGE = "localhost/warm:up"
_MANIFEST = f"""
apiVersion: v1
kind: Pod
metadata: {{name: warm-up, labels: {{a: b}}}}
spec:
  initContainers: [{{name: init, image: "{_IMAGE}", command: [/init]}}]
  containers:
  - name: main
    image: "{_IMAGE}"
    command: [/main]
    env: [{{name: A, value: "$(B)"}}]
    ports: [{{containerPort: 80}}]
    resources: {{limits: {{cpu: 100m, memory: 64Mi}}}}
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, emptyDir: {{}}}}]
"""


def warm_up(config: NodeConfig) -> None:
    """Fill the caches; see the module's docstring."""
    doc: dict[str, Any] = load_text(_MANIFEST, file="warm-up.yaml").documents[0].obj.to_json()
    doc["metadata"] |= {"uid": "warm-up", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
    pod = Pod.parse({**doc, "status": {"phase": "Pending"}})
    image = ObservedImage(f"sha256:{0:064}", _IMAGE)
    facts = Facts(now=0.0, images={_IMAGE: image}, pulls={}, start_failures={}, sandbox_failure=None)
    nothing = ObservedPod("warm-up", None, ())
    compute_pod_actions(pod, nothing, facts, config)
    request = sandbox_request(pod, config)
    sandbox = ObservedSandbox(
        f"{0:064}", True, 1, 0.0, "192.0.2.1", spec_hash=request.spec_hash, cgroup=request.cgroup
    )
    netfiles.hosts_file(pod, ("192.0.2.1",), config, "")
    netfiles.resolv_conf(pod, config, "")
    containers = []
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        variables = env.container_env(pod, container, env.Sources(lambda *_: None, config, ("192.0.2.1",)))
        prepared = container_spec.Prepared(
            image,
            sandbox,
            f"{0:064}",
            users.ResolvedUser(0, 0),
            variables,
            {"/data": container_spec.Source("/data")},
            masked_paths=default_masked_paths(),
            seccomp=seccomp_profile(pod, container, config),
        )
        json.dumps(container_spec.container_spec(pod, container, prepared, config))
        containers.append(_running(container.name, hashes.container_hash(pod, container), sandbox.id))
        hashes.resources_hash(limits.container_limits(pod, container, config))
    observed = ObservedPod("warm-up", sandbox, tuple(containers))
    actions = compute_pod_actions(pod, observed, facts, config)
    PodStatus.parse(compute_pod_status(pod, observed, actions, facts, config).to_json())
    unsupported_fields(pod)


def _running(name: str, spec_hash: str, sandbox_id: str) -> ObservedContainer:
    return ObservedContainer(
        f"{0:064}", name, 0, ContainerState.RUNNING, image=_IMAGE, spec_hash=spec_hash, sandbox_id=sandbox_id
    )
