"""docs/reference/clients.md: which clients were tried, and with which calls. tests/clients writes the results."""

from __future__ import annotations

from typing import Final

from deploy.docs.tables import table, titled
from tests.clients import results
from tests.clients.operations import OPERATIONS

NOTES: Final = (
    "`kr8s`: its `exec` takes no input. It offers the protocol `v4.channel.k8s.io`, and refuses input with that. Its "
    "lists have pages of the size that it chooses.",
    "`lightkube`: its `deletecollection` takes no selector, so that it deletes the objects of a whole namespace.",
    "`pykube-ng`: its `patch` and `update` are merge patches; `update`, `scale` and `cordon` send the whole object.",
    "`kubectl`: `delete --all` and `delete -l` delete one object after the other; the verb `deletecollection` is of "
    "client libraries. `evict` is `kubectl drain`.",
)


#: Programs that are built on clients, and what was tried; {what}: the results.
PROGRAMS: Final = {
    "Helm": "with server-side apply, its default: {what}.",
    "Prometheus": "`kubernetes_sd_configs` with the roles {what}. The node has no port of a kubelet, so the address of "
    "a target with the role `node` has none either.",
    "kubernetes.core": "the collection of Ansible: a playbook with the modules {what}.",
    "kopf": "an operator with the handlers {what}. Handlers of `on.delete` are not called: the node deletes an object "
    "at once, also if it has a finalizer.",
}
COMMANDS: Final = "kubectl: commands"


def _listed(lines: list[results.Line], client: str) -> str:
    return ", ".join(f"`{line.what}`" for line in lines if line.client == client)


def page() -> str:
    lines = results.read()
    clients = [*dict.fromkeys((line.client, line.version) for line in lines if line.what in OPERATIONS)]
    works = {(line.client, line.what) for line in lines}
    rows = [
        (f"{name}: {meaning}", *("✓" if (client, name) in works else "–" for client, _ in clients))
        for name, meaning in OPERATIONS.items()
    ]
    heads = ("operation", *(f"`{client.partition(' ')[0]}` {version}" for client, version in clients))
    commands = [line.what for line in lines if line.client == COMMANDS]
    everywhere = [
        one for one in commands if (f"kubectl (newest){COMMANDS.removeprefix('kubectl')}", one) in works
    ]
    programs = [client for client in dict.fromkeys(line.client for line in lines) if client in PROGRAMS]
    versions = {line.client: line.version for line in lines}
    tried = "\n".join(
        f"- {client} {versions[client]}, {PROGRAMS[client].format(what=_listed(lines, client))}"
        for client in programs
    )
    notes = "\n".join(f"- {note}" for note in NOTES)
    return titled(f"""\
# Clients of the API

Programs that use the Kubernetes API work with the [API of the node](../how-to/kubectl.md) unchanged. Each of the
following was run against a node, over TLS, with the kubeconfig that `kubelite kubeconfig` prints. `make clients`
repeats it; tests compare what works with this page.

✓: it works. –: the client has no such call of its own.

{table(heads, rows)}
{notes}

## Other programs

{tried}

k9s and stern were not tried, because no registry that CI reaches has them as a program.

## Commands of kubectl

These commands were run with both versions of kubectl:

{", ".join(f"`{name}`" for name in everywhere)}.

[Access the node with kubectl](../how-to/kubectl.md#what-works) says what differs from a cluster.
""")
