"""Format the text of `describe` for all objects but pods and the node, from documents and `now`. Pure.

Layout, order and wording are kubectl's (kubectl pkg/describe/describe.go, a function per kind).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kubelite.api.kube.printers import DEFAULT_CLASS, access_modes
from kubelite.cli.describe.parts import annotation_lines, date, label_lines, with_events
from kubelite.cli.describe.volumes import describe_source
from kubelite.kube.durations import age_of
from kubelite.kube.label_selectors import selector_text

if TYPE_CHECKING:
    from kubelite.kube.json import Json

Events = Sequence["Json"] | None


def describe_config_map(doc: Json, events: Events, now: float) -> str:
    """Show the values unchanged: tabs in them do not start columns."""
    out = ["", "Data", "===="]
    for key, value in sorted((doc.get("data") or {}).items()):
        out += [f"{key}:", "----", value, ""]
    out += ["", "BinaryData", "===="]
    out += [f"{key}: {_size(value)} bytes" for key, value in sorted((doc.get("binaryData") or {}).items())]
    return with_events(_head(doc), None, now) + "\n".join(out) + "\n\n" + with_events((), events, now)


def describe_secret(doc: Json, _: Events, now: float) -> str:
    """Show the keys and the sizes of their values, but not the values."""
    out = [*_head(doc), "", f"Type:\t{doc.get('type') or 'Opaque'}", "", "Data", "===="]
    out += [f"{key}:\t{_size(value)} bytes" for key, value in sorted((doc.get("data") or {}).items())]
    return with_events(out, None, now)


def describe_claim(doc: Json, events: Events, now: float, users: Sequence[str] = ()) -> str:
    """`users`: the names of the pods that use the claim."""
    metadata, spec, status = doc["metadata"], doc.get("spec") or {}, doc.get("status") or {}
    bound = bool(spec.get("volumeName"))
    out = [
        f"Name:\t{metadata['name']}",
        f"Namespace:\t{metadata.get('namespace', '')}",
        f"StorageClass:\t{spec.get('storageClassName', '')}",
        f"Status:\t{_phase(doc, now)}",
        f"Volume:\t{spec.get('volumeName', '')}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
        f"Finalizers:\t[{' '.join(metadata.get('finalizers') or ())}]",
        f"Capacity:\t{(status.get('capacity') or {}).get('storage', '0') if bound else ''}",
        f"Access Modes:\t{access_modes(status.get('accessModes')) if bound else ''}",
    ]
    if spec.get("volumeMode"):
        out.append(f"VolumeMode:\t{spec['volumeMode']}")
    if source := spec.get("dataSource"):
        out.append("DataSource:")
        for key, title in (("apiGroup", "APIGroup"), ("kind", "Kind"), ("name", "Name")):
            out += [f"  {title}:\t{source[key]}"] if source.get(key) else []
    first, *more = users or ("<none>",)
    out += [f"Used By:\t{first}", *(f"\t{name}" for name in more)]
    if conditions := status.get("conditions"):
        out += ["Conditions:", "  Type\tStatus\tLastProbeTime\tLastTransitionTime\tReason\tMessage"]
        out.append("  ----\t------\t-----------------\t------------------\t------\t-------")
        out += [condition_line(condition, "lastProbeTime") for condition in conditions]
    return with_events(out, events, now)


def describe_persistent_volume(doc: Json, events: Events, now: float) -> str:
    metadata, spec, claim = doc["metadata"], doc.get("spec") or {}, doc["spec"].get("claimRef") or {}
    out = [
        f"Name:\t{metadata['name']}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
        f"Finalizers:\t[{' '.join(metadata.get('finalizers') or ())}]",
        f"StorageClass:\t{spec.get('storageClassName', '')}",
        f"Status:\t{_phase(doc, now)}",
        f"Claim:\t{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "Claim:\t",
        f"Reclaim Policy:\t{spec.get('persistentVolumeReclaimPolicy', '')}",
        f"Access Modes:\t{access_modes(spec.get('accessModes'))}",
    ]
    if spec.get("volumeMode"):
        out.append(f"VolumeMode:\t{spec['volumeMode']}")
    out.append(f"Capacity:\t{(spec.get('capacity') or {}).get('storage', '0')}")
    out += _node_affinity(((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms"))
    out.append(f"Message:\t{(doc.get('status') or {}).get('message', '')}")
    return with_events([*out, *describe_source(spec)], events, now)


def _node_affinity(terms: list[Json] | None) -> list[str]:
    if terms is None:
        return ["Node Affinity:\t<none>"]
    out = ["Node Affinity:\t", "  Required Terms:\t" + ("" if terms else "<none>")]
    for number, term in enumerate(terms):
        requirements = [
            f"{r['key']} {str(r['operator']).lower()}"
            + (f" [{', '.join(r['values'])}]" if r.get("values") else "")
            for r in term.get("matchExpressions") or ()
        ]
        first, *more = requirements or ("<none>",)
        out += [f"    Term {number}:\t{first}", *(f"    \t{text}" for text in more)]
    return out


def describe_storage_class(doc: Json, events: Events, now: float) -> str:
    annotations, expansion = doc["metadata"].get("annotations") or {}, doc.get("allowVolumeExpansion")
    options = doc.get("mountOptions")
    out = [
        f"Name:\t{doc['metadata']['name']}",
        f"IsDefaultClass:\t{'Yes' if annotations.get(DEFAULT_CLASS) == 'true' else 'No'}",
        f"Annotations:\t{_pairs(annotations)}",
        f"Provisioner:\t{doc.get('provisioner', '')}",
        f"Parameters:\t{_pairs(doc.get('parameters') or {})}",
        f"AllowVolumeExpansion:\t{'<unset>' if expansion is None else bool(expansion)}",
        *(
            ["MountOptions:", *(f"  {option}" for option in options)]
            if options
            else ["MountOptions:\t<none>"]
        ),
        f"ReclaimPolicy:\t{doc.get('reclaimPolicy') or 'Delete'}",
        f"VolumeBindingMode:\t{doc.get('volumeBindingMode') or 'Immediate'}",
    ]
    return with_events(out, events, now)


def describe_priority_class(doc: Json, events: Events, now: float) -> str:
    out = [
        f"Name:\t{doc['metadata']['name']}",
        f"Value:\t{doc.get('value', 0)}",
        f"GlobalDefault:\t{str(bool(doc.get('globalDefault'))).lower()}",
        f"PreemptionPolicy:\t{doc.get('preemptionPolicy') or 'PreemptLowerPriority'}",
        f"Description:\t{doc.get('description', '')}",
        f"Annotations:\t{_pairs(doc['metadata'].get('annotations') or {})}",
    ]
    return with_events(out, events, now)


def describe_trust_bundle(doc: Json, events: Events, now: float) -> str:
    """Show only the number of trust anchors."""
    metadata, spec = doc["metadata"], doc["spec"]
    out = [
        f"Name:\t{metadata['name']}",
        f"Labels:\t{_pairs(metadata.get('labels') or {})}",
        f"Annotations:\t{_pairs(metadata.get('annotations') or {})}",
        f"Signer Name:\t{spec.get('signerName') or '<none>'}",
        f"Trust Anchors:\t{spec['trustBundle'].count('-----BEGIN CERTIFICATE-----')}",
    ]
    return with_events(out, events, now)


def describe_namespace(doc: Json, _: Events, now: float) -> str:
    metadata = doc["metadata"]
    out = [
        f"Name:\t{metadata['name']}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
        f"Status:\t{(doc.get('status') or {}).get('phase', '')}",
        *_namespace_conditions(doc),
    ]
    return with_events(out, None, now)


def _namespace_conditions(doc: Json) -> list[str]:
    found = (doc.get("status") or {}).get("conditions") or ()
    if not found:
        return []
    head = ("Type", "Status", "LastTransitionTime", "Reason", "Message")
    rows = [head, tuple("-" * len(word) for word in head)]
    rows += [
        (one["type"], one["status"], date(one["lastTransitionTime"]), one["reason"], one["message"])
        for one in found
    ]
    return ["Conditions:", *("  " + "\t".join(row) for row in rows)]


def describe_budget(doc: Json, events: Events, now: float) -> str:
    spec, status = doc["spec"], doc.get("status") or {}
    out = [f"Name:\t{doc['metadata']['name']}", f"Namespace:\t{doc['metadata'].get('namespace', '')}"]
    if "minAvailable" in spec:
        out.append(f"Min available:\t{spec['minAvailable']}")
    elif "maxUnavailable" in spec:
        out.append(f"Max unavailable:\t{spec['maxUnavailable']}")
    selector = spec.get("selector")
    out += [f"Selector:\t{'<unset>' if selector is None else selector_text(selector) or '<none>'}", "Status:"]
    counts = {
        "Allowed disruptions": "disruptionsAllowed",
        "Current": "currentHealthy",
        "Desired": "desiredHealthy",
        "Total": "expectedPods",
    }
    out += [f"    {title}:\t{status.get(key, 0)}" for title, key in counts.items()]
    return with_events(out, events, now)


def describe_any(doc: Json, events: Events, now: float) -> str:
    """Describe an object of an unknown kind: each field under its name, split into words."""
    metadata = {k: v for k, v in doc["metadata"].items() if k not in _SHOWN_ABOVE}
    return with_events([*_head(doc), *_fields({**doc, "metadata": metadata}, "")], events, now)


_SHOWN_ABOVE = ("name", "namespace", "labels", "annotations", "managedFields")


def _fields(content: Json, indent: str) -> list[str]:
    out: list[str] = []
    for key, value in sorted(content.items()):
        title = _title(key)
        if isinstance(value, dict):
            out += [f"{indent}{title}:", *_fields(value, indent + "  ")]
        elif isinstance(value, list):
            out.append(f"{indent}{title}:")
            for item in value:
                out += _fields(item, indent + "  ") if isinstance(item, dict) else [f"{indent}  {item}"]
        else:
            out.append(f"{indent}{title}:\t{str(value).lower() if isinstance(value, bool) else value}")
    return out


def _title(key: str) -> str:
    """Convert `apiVersion` to `API Version`. Keep a key that is not an identifier."""
    if not key.replace("-", "").isalpha():
        return key
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", key)
    return " ".join(w.upper() if w.upper() in _ACRONYMS else w[:1].upper() + w[1:] for w in words)


_ACRONYMS = ("API", "URL", "UID", "OSB", "GUID")


def condition_line(condition: Json, seen: str) -> str:
    """Format a row of conditions. `seen`: the field with the time of the last check."""
    times = f"{date(condition.get(seen))} \t{date(condition.get('lastTransitionTime'))}"
    words = f"{condition.get('reason', '')} \t{condition.get('message', '')}"
    return f"  {condition.get('type', '')} \t{condition.get('status', '')} \t{times} \t{words}"


def _head(doc: Json) -> list[str]:
    metadata = doc["metadata"]
    return [
        f"Name:\t{metadata['name']}",
        f"Namespace:\t{metadata.get('namespace', '')}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
    ]


def _phase(doc: Json, now: float) -> str:
    if ending := doc["metadata"].get("deletionTimestamp"):
        return f"Terminating (lasts {age_of(ending, now)})"
    return str((doc.get("status") or {}).get("phase", ""))


def _pairs(given: Json) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(given.items())) or "<none>"


def _size(encoded: str) -> int:
    return len(base64.b64decode(encoded))


DESCRIBERS: dict[str, Callable[[Json, Events, float], str]] = {
    "configmaps": describe_config_map,
    "secrets": describe_secret,
    "persistentvolumes": describe_persistent_volume,
    "storageclasses": describe_storage_class,
    "priorityclasses": describe_priority_class,
    "clustertrustbundles": describe_trust_bundle,
    "namespaces": describe_namespace,
    "poddisruptionbudgets": describe_budget,
}
