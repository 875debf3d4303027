"""Which pods get a token of the API, and that nothing else of them changes (Kubernetes
plugin/pkg/admission/serviceaccount/admission_test.go)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from kubelite.kube.json import Json
from kubelite.kube.objects import Automount
from kubelite.policies.token_volumes import MOUNT, TokenVolumes, token_volumes, uses_api

NAMED, ALL, NONE = Automount.NAMED, Automount.ALL, Automount.NONE


def account(name: str, **more: Any) -> Json:
    return {"metadata": {"namespace": "default", "name": name}, **more}


BOT, SHY, DEFAULT = account("bot"), account("shy", automountServiceAccountToken=False), account("default")
EAGER = account("default", automountServiceAccountToken=True)


def pod(*names: str, **spec: Any) -> Json:
    containers = [{"name": name, "image": "i"} for name in names or ("main",)]
    metadata = {"name": "web", "namespace": "default"}
    return {"kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def rules(mode: Automount = NAMED, *accounts: Json) -> TokenVolumes:
    return token_volumes(mode, accounts or (BOT, SHY))


@pytest.mark.parametrize(
    ("mode", "accounts", "spec", "gets"),
    [
        (NAMED, (), {}, False),
        (NAMED, (), {"serviceAccountName": "bot"}, True),
        (NAMED, (), {"serviceAccountName": "bot", "automountServiceAccountToken": False}, False),
        (NAMED, (), {"serviceAccountName": "shy"}, False),
        (NAMED, (), {"serviceAccountName": "shy", "automountServiceAccountToken": True}, True),
        (NAMED, (), {"serviceAccountName": "nobody"}, False),  # no such account
        (NAMED, (), {"serviceAccountName": "nobody", "automountServiceAccountToken": True}, False),
        (NAMED, (), {"serviceAccountName": "default"}, False),  # as charts write it
        (NAMED, (DEFAULT,), {"serviceAccountName": "default"}, False),
        (NAMED, (EAGER,), {}, True),
        (NAMED, (), {"automountServiceAccountToken": True}, True),
        (ALL, (), {}, True),
        (ALL, (), {"automountServiceAccountToken": False}, False),
        (ALL, (), {"serviceAccountName": "shy"}, False),
        (ALL, (), {"serviceAccountName": "nobody"}, False),
        (NONE, (), {"serviceAccountName": "bot", "automountServiceAccountToken": True}, False),
    ],
)
def test_who_gets_a_token(mode: Automount, accounts: tuple[Json, ...], spec: Json, gets: bool) -> None:
    found = rules(mode, *accounts).added(pod(**spec))
    assert bool(found["spec"].get("volumes")) is gets is uses_api(found)


def test_the_volume_is_that_of_a_cluster() -> None:
    before = pod("a", "b", initContainers=[{"name": "i", "image": "i"}], serviceAccountName="bot")
    found = rules().added(before)["spec"]
    (volume,) = found["volumes"]
    assert volume["name"].startswith("kube-api-access-") and len(volume["name"]) == 21
    assert volume["projected"] == {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }
                    ]
                }
            },
        ],
    }
    mount = {"name": volume["name"], "readOnly": True, "mountPath": MOUNT}
    for container in (*found["containers"], *found["initContainers"]):
        assert container["volumeMounts"] == [mount]
    assert "volumes" not in before["spec"] and "volumeMounts" not in before["spec"]["containers"][0]


def test_a_container_that_mounts_something_there_keeps_it() -> None:
    own = [{"name": "own", "mountPath": MOUNT}]
    wanted = pod("a", "b", serviceAccountName="bot")
    wanted["spec"]["containers"][0]["volumeMounts"] = own
    found = rules().added(wanted)["spec"]
    assert found["containers"][0]["volumeMounts"] == own and len(found["containers"][1]["volumeMounts"]) == 1
    wanted["spec"]["containers"][1]["volumeMounts"] = own
    assert rules().added(wanted) == wanted, "no container needs the volume"


def test_a_pod_that_runs_changes_with_no_setting_and_no_account() -> None:
    for before in (pod(), pod(serviceAccountName="bot"), pod(automountServiceAccountToken=True)):
        for mode in Automount:
            for accounts in ((), (BOT,), (EAGER,), (account("bot", automountServiceAccountToken=False),)):
                stored = rules(mode, *accounts).added(before)
                for other in Automount:
                    for later in (rules(other), token_volumes(other, ()), rules(other, EAGER, BOT)):
                        assert later.kept(stored, before) == stored
                        assert later.kept(before, before) == before, "it ran before tokens were mounted"


def test_an_edit_of_what_decides_counts() -> None:
    plain, named = pod(), pod(serviceAccountName="bot")
    assert uses_api(rules().kept(plain, named))
    assert not uses_api(rules().kept(rules().added(named), plain))
    refused = pod(serviceAccountName="bot", automountServiceAccountToken=False)
    assert not uses_api(rules().kept(rules().added(named), refused))


def test_what_kubectl_shows_can_be_applied() -> None:
    """A manifest from `kubectl get -o yaml` has the volume itself."""
    shown = rules().added(pod(serviceAccountName="bot"))
    assert rules().added(shown) == shown == rules().kept(shown, shown)


def test_random_edits_keep_the_volume_and_nothing_else() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        names = chance.sample("abcdef", chance.randint(1, 5))
        first = pod(*names, serviceAccountName="bot")
        stored = rules().added(first)
        second = pod(*chance.sample("abcdefgh", chance.randint(1, 6)), serviceAccountName="bot")
        if chance.random() < 0.5:
            second["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
        edited = rules(chance.choice(list(Automount))).kept(stored, second)
        assert edited["spec"]["volumes"][-1] == stored["spec"]["volumes"][-1]
        assert rules(NONE).kept(edited, second) == edited, "the next look changes nothing"
        for container in edited["spec"]["containers"]:
            container.pop("volumeMounts")
        edited["spec"]["volumes"].pop()
        assert edited["spec"] | {"volumes": edited["spec"]["volumes"] or None} == {
            "volumes": None,
            **second["spec"],
        }
