"""Format the text of `describe pod` from documents and `now`. Pure.

Layout, order and wording are kubectl's (kubectl pkg/describe/describe.go describePod).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kubelite.cli.describe.parts import annotation_lines, date, label_lines, truth, with_events
from kubelite.cli.describe.volumes import describe_volumes
from kubelite.kube.durations import age_of

if TYPE_CHECKING:
    from kubelite.kube.json import Json


def describe_pod(pod: Json, events: Sequence[Json] | None, now: float) -> str:
    return with_events(_pod_lines(pod, now), events, now)


def _pod_lines(pod: Json, now: float) -> list[str]:
    spec, status = pod.get("spec", {}), pod.get("status") or {}
    out = _head(pod, now)
    if spec.get("initContainers"):
        out += container_lines(
            "Init Containers", spec["initContainers"], status.get("initContainerStatuses"), pod
        )
    out += container_lines("Containers", spec.get("containers") or [], status.get("containerStatuses"), pod)
    if spec.get("ephemeralContainers"):
        ephemeral = status.get("ephemeralContainerStatuses")
        out += container_lines("Ephemeral Containers", spec["ephemeralContainers"], ephemeral, pod)
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    if spec.get("readinessGates"):
        out += ["Readiness Gates:", "  Type\tStatus"]
        out += [
            f"  {g['conditionType']} \t{conditions.get(g['conditionType'], '<none>')} "
            for g in spec["readinessGates"]
        ]
    if conditions:
        out += ["Conditions:", "  Type\tStatus"]
        out += [f"  {kind} \t{value} " for kind, value in conditions.items()]
    out += describe_volumes(spec.get("volumes") or [])
    out.append(f"QoS Class:\t{status.get('qosClass') or _qos(spec)}")
    out += label_lines("Node-Selectors", spec.get("nodeSelector") or {})
    out += toleration_lines(spec.get("tolerations") or [])
    return out


def _head(pod: Json, now: float) -> list[str]:
    spec, status, metadata = pod.get("spec", {}), pod.get("status") or {}, pod["metadata"]
    out = [f"Name:\t{metadata['name']}", f"Namespace:\t{metadata.get('namespace', '')}"]
    for key, title in (
        ("priority", "Priority"),
        ("priorityClassName", "Priority Class Name"),
        ("runtimeClassName", "Runtime Class Name"),
        ("serviceAccountName", "Service Account"),
    ):
        if spec.get(key) not in (None, ""):
            out.append(f"{title}:\t{spec[key]}")
    node = spec.get("nodeName")
    out.append(f"Node:\t{node}/{status.get('hostIP', '')}" if node else "Node:\t<none>")
    if status.get("startTime"):
        out.append(f"Start Time:\t{date(status['startTime'])}")
    out += label_lines("Labels", metadata.get("labels") or {})
    out += annotation_lines(metadata.get("annotations") or {})
    out += _phase(status, metadata, now)
    profile = (spec.get("securityContext") or {}).get("seccompProfile")
    if profile:
        out += _seccomp(profile, "")
    out.append(f"IP:\t{status.get('podIP', '')}")
    addresses = status.get("podIPs") or []
    out += ["IPs:", *(f"  IP:\t{a.get('ip', '')}" for a in addresses)] if addresses else ["IPs:\t<none>"]
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    if owner:
        out.append(f"Controlled By:\t{owner['kind']}/{owner['name']}")
    return out


def _phase(status: Json, metadata: Json, now: float) -> list[str]:
    phase = status.get("phase") or "Pending"
    if metadata.get("deletionTimestamp") and phase not in ("Failed", "Succeeded"):
        out = [
            f"Status:\tTerminating (lasts {age_of(metadata['deletionTimestamp'], now)})",
            f"Termination Grace Period:\t{metadata.get('deletionGracePeriodSeconds', 0)}s",
        ]
    else:
        out = [f"Status:\t{phase}"]
    return out + [f"{key.capitalize()}:\t{status[key]}" for key in ("reason", "message") if status.get(key)]


def container_lines(title: str, containers: list[Json], statuses: list[Json] | None, pod: Json) -> list[str]:
    """Return the lines of containers under their title. `pod`: the document from which environment variables get
    fields; a pod template has none."""
    by_name = {s.get("name"): s for s in statuses or ()}
    out = [f"{title}:"]
    for container in containers:
        out += _container(container, by_name.get(container["name"]), pod)
    return out


def _container(container: Json, status: Json | None, pod: Json) -> list[str]:
    out = [f"  {container['name']}:"]
    if status is not None:
        out.append(f"    Container ID:\t{status.get('containerID', '')}")
    out.append(f"    Image:\t{container.get('image', '')}")
    if status is not None:
        out.append(f"    Image ID:\t{status.get('imageID', '')}")
    out += _ports(container.get("ports") or [])
    profile = (container.get("securityContext") or {}).get("seccompProfile")
    if profile:
        out += _seccomp(profile, "    ")
    for key, title in (("command", "Command"), ("args", "Args")):
        if container.get(key):
            out.append(f"    {title}:")
            out += [f"      {line}" for word in container[key] for line in str(word).split("\n")]
    if status is not None:
        out += _state("State", status.get("state") or {})
        if (status.get("lastState") or {}).get("terminated"):
            out += _state("Last State", status["lastState"])
        out.append(f"    Ready:\t{bool(status.get('ready'))}")
        out.append(f"    Restart Count:\t{status.get('restartCount', 0)}")
    out += _resources(container.get("resources") or {})
    for key, title in (
        ("livenessProbe", "Liveness"),
        ("readinessProbe", "Readiness"),
        ("startupProbe", "Startup"),
    ):
        if container.get(key):
            out.append(f"    {title}:\t{_probe(container[key])}")
    out += _environment(container, pod)
    return out + _mounts(container)


def _ports(ports: list[Json]) -> list[str]:
    many = "s" if len(ports) > 1 else ""
    inside = ", ".join(f"{p.get('containerPort')}/{p.get('protocol', 'TCP')}" for p in ports)
    outside = ", ".join(f"{p.get('hostPort', 0)}/{p.get('protocol', 'TCP')}" for p in ports)
    return [f"    Port{many}:\t{inside or '<none>'}", f"    Host Port{many}:\t{outside or '<none>'}"]


def _seccomp(profile: Json, indent: str) -> list[str]:
    out = [f"{indent}SeccompProfile:\t{profile.get('type', '')}"]
    if profile.get("type") == "Localhost":
        out.append(f"{indent}LocalhostProfile:\t{profile.get('localhostProfile', '')}")
    return out


def _state(title: str, state: Json) -> list[str]:
    if "running" in state:
        return [f"    {title}:\tRunning", f"      Started:\t{date(state['running'].get('startedAt'))}"]
    ended = state.get("terminated")
    if ended is None:
        reason = (state.get("waiting") or {}).get("reason")
        return [f"    {title}:\tWaiting", *([f"      Reason:\t{reason}"] if reason else [])]
    out = [f"    {title}:\tTerminated"]
    out += [f"      {key.capitalize()}:\t{ended[key]}" for key in ("reason", "message") if ended.get(key)]
    out.append(f"      Exit Code:\t{ended.get('exitCode', 0)}")
    if ended.get("signal"):
        out.append(f"      Signal:\t{ended['signal']}")
    out.append(f"      Started:\t{date(ended.get('startedAt'))}")
    out.append(f"      Finished:\t{date(ended.get('finishedAt'))}")
    return out


def _resources(resources: Json) -> list[str]:
    out = []
    for key, title in (("limits", "Limits"), ("requests", "Requests")):
        if resources.get(key):
            out.append(f"    {title}:")
            out += [f"      {name}:\t{amount}" for name, amount in sorted(resources[key].items())]
    return out


def _probe(probe: Json) -> str:
    attributes = (
        f"delay={probe.get('initialDelaySeconds', 0)}s timeout={probe.get('timeoutSeconds', 1)}s "
        f"period={probe.get('periodSeconds', 10)}s #success={probe.get('successThreshold', 1)} "
        f"#failure={probe.get('failureThreshold', 3)}"
    )
    if exec_ := probe.get("exec"):
        return f"exec [{' '.join(exec_.get('command') or ())}] {attributes}"
    if get := probe.get("httpGet"):
        scheme = str(get.get("scheme") or "HTTP").lower()
        path = str(get.get("path") or "")
        path = path if path.startswith("/") or not path else f"/{path}"
        return f"http-get {scheme}://{get.get('host', '')}:{get.get('port')}{path} {attributes}"
    if tcp := probe.get("tcpSocket"):
        return f"tcp-socket {tcp.get('host', '')}:{tcp.get('port')} {attributes}"
    if grpc := probe.get("grpc"):
        return f"grpc <pod>:{grpc.get('port')} {grpc.get('service') or ''} {attributes}"
    return f"unknown {attributes}"


def _environment(container: Json, pod: Json) -> list[str]:
    out = []
    if container.get("envFrom"):
        out.append("    Environment Variables from:")
        out += [f"      {_env_source(source)}" for source in container["envFrom"]]
    if not container.get("env"):
        return [*out, "    Environment:\t<none>"]
    out.append("    Environment:")
    for entry in container["env"]:
        source = entry.get("valueFrom")
        if source:
            out.append(f"      {entry['name']}:\t{_env_reference(source, pod)}")
            continue
        first, *more = str(entry.get("value", "")).split("\n")
        out += [f"      {entry['name']}:\t{first}", *(f"      \t{line}" for line in more)]
    return out


def _env_source(source: Json) -> str:
    kind = "ConfigMap" if source.get("configMapRef") else "Secret"
    reference = source.get("configMapRef") or source.get("secretRef") or {}
    prefix = f" with prefix '{source['prefix']}'" if source.get("prefix") else ""
    return f"{reference.get('name', '')}\t{kind}{prefix}\tOptional: {truth(reference.get('optional'))}"


def _env_reference(source: Json, pod: Json) -> str:
    if key := source.get("secretKeyRef"):
        optional = truth(key.get("optional"))
        return f"<set to the key '{key['key']}' in secret '{key['name']}'>\tOptional: {optional}"
    if key := source.get("configMapKeyRef"):
        optional = truth(key.get("optional"))
        return f"<set to the key '{key['key']}' of config map '{key['name']}'>\tOptional: {optional}"
    if field := source.get("fieldRef"):
        path = field.get("fieldPath", "")
        return f"{_pod_field(pod, path)} ({field.get('apiVersion', 'v1')}:{path})"
    if resource := source.get("resourceFieldRef"):
        return f" ({resource.get('resource', '')})"
    return ""


def _pod_field(pod: Json, path: str) -> str:
    """Resolve the fields that kubectl resolves for describe: only metadata.*; others are empty."""
    found: Any = pod
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return str(found) if path.startswith("metadata.") and isinstance(found, str) else ""


def _mounts(container: Json) -> list[str]:
    mounts = sorted(container.get("volumeMounts") or (), key=lambda m: str(m.get("mountPath", "")))
    if not mounts:
        return ["    Mounts:\t<none>"]
    out = ["    Mounts:"]
    for mount in mounts:
        flags = "ro" if mount.get("readOnly") else "rw"
        if mount.get("subPath"):
            flags += f',path="{mount["subPath"]}"'
        out.append(f"      {mount.get('mountPath')} from {mount.get('name')} ({flags})")
    return out


def toleration_lines(tolerations: list[Json]) -> list[str]:
    if not tolerations:
        return ["Tolerations:\t<none>"]
    texts = []
    for entry in sorted(tolerations, key=lambda t: str(t.get("key", ""))):
        text = str(entry.get("key", ""))
        if entry.get("value"):
            text += f"={entry['value']}"
        if entry.get("effect"):
            text += f":{entry['effect']}"
        if entry.get("operator") == "Exists" and not entry.get("value"):
            text += " op=Exists" if text else "op=Exists"
        if entry.get("tolerationSeconds") is not None:
            text += f" for {entry['tolerationSeconds']}s"
        texts.append(text)
    return [f"Tolerations:\t{texts[0]}", *(f"\t{text}" for text in texts[1:])]


def _qos(spec: Json) -> str:
    """Return the QoS class of a pod whose status does not have it yet (only cpu and memory count)."""
    limits: set[str] = set()
    requests: set[str] = set()
    everyone = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    guaranteed = bool(everyone)
    for container in everyone:
        resources = container.get("resources") or {}
        limit = {k: v for k, v in (resources.get("limits") or {}).items() if k in ("cpu", "memory")}
        request = {k: v for k, v in (resources.get("requests") or {}).items() if k in ("cpu", "memory")}
        limits |= limit.keys()
        requests |= request.keys()
        guaranteed = guaranteed and len(limit) == 2 and all(request.get(k, v) == v for k, v in limit.items())
    if not limits and not requests:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
