"""The list of families in docs/reference/metrics.md is current. `TEST_RECORD=1` writes it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kubelite.telemetry.metrics import agent_page, meters, probe_meter, services_page
from kubelite.telemetry.metrics.cadvisor import families
from kubelite.telemetry.metrics.cadvisor import page as cadvisor
from kubelite.telemetry.metrics.kubestate import claims, pods, services, volumes, workloads
from kubelite.telemetry.metrics.kubestate import page as kubestate
from kubelite.telemetry.sampling import volume_stats

DOC = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
MARK = "<!-- families: kept by tests/unit/telemetry/test_metrics_doc.py -->\n"
MODULES = (
    ("container_", (families, cadvisor)),
    ("machine_", (cadvisor,)),
    ("kubelet_", (agent_page, meters, volume_stats)),
    ("prober_", (probe_meter,)),
    ("kubelite_", (agent_page, meters, services_page)),
)


def listing() -> str:
    """Every family in the code, by page."""
    found = []
    for prefix, modules in MODULES:
        texts = "".join(Path(m.__file__ or "").read_text() for m in modules)
        names = set(re.findall(rf'"({prefix}[a-z0-9_]+)"', texts))
        if prefix == "container_":
            names |= {f.name for g in families.GROUPS for f in (c.family for c in g.columns)}
            names |= {f.name for table in (families.NETWORK, families.COSTS) for f, _ in table}
        found.append(_paragraph(prefix, names))
    page = kubestate.Table()
    pods._pods(page, [], "n")
    pods._tolerations(page, [])
    for word in ("kube_pod_container", "kube_pod_init_container"):
        pods._containers(page, word, [], "n")
    claims._claims(page, [])
    claims._mounts(page, [])
    volumes._volumes(page, [])
    volumes._classes(page, [])
    for write in workloads.WRITERS.values():
        write(page, [])
    for write in (services.add_services, services.add_endpoint_slices):
        write(page, [])
    for kind in ("configmap", "secret"):
        kubestate._named(page, kind, [])
    names = set(page._families)
    text = Path(kubestate.__file__ or "").read_text()
    names |= set(re.findall(r'"(kube_(?:node|namespace)_[a-z_]+)"', text))
    names |= {f"kube_node_status_{word}" for word in ("capacity", "allocatable")}
    found.append(_paragraph("kube_", names))
    return "\n".join(found)


def _paragraph(prefix: str, names: set[str]) -> str:
    short = ", ".join(f"`{name.removeprefix(prefix)}`" for name in sorted(names))
    return f"**`{prefix}*`**: {short}.\n"


def test_the_list_is_current() -> None:
    text = DOC.read_text()
    head, mark, listed = text.partition(MARK)
    assert mark
    if os.environ.get("TEST_RECORD"):
        DOC.write_text(f"{head}{mark}\n{listing()}")
    else:
        assert listed == f"\n{listing()}", "run TEST_RECORD=1 pytest tests/unit/telemetry/test_metrics_doc.py"
