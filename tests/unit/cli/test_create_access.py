"""`kubelite create role` and the other commands about access: what they write, beside what the real kubectl writes."""

from __future__ import annotations

import json

import pytest

from kubelite.cli.create import access_documents as documents
from manifests.yaml.loader import load_text
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server
from tests.unit.cli.test_create import DRY, kubectl

__all__ = ["server"]

CREATED = [
    ("role", "reader", "--verb=get,list,watch", "--verb=get", "--resource=pods,po/log,deploy", "-n", "prod"),
    (
        "role",
        "one",
        "--verb=update",
        "--resource=deployments.apps/scale",
        "--resource-name=web",
        "--resource-name=web",
    ),
    ("role", "all", "--verb=get,*", "--resource=pods,*"),
    ("role", "act", "--verb=impersonate", "--resource=users,groups,serviceaccounts"),
    ("clusterrole", "reader", "--verb=get", "--resource=pods,sts,jobs", "--resource=cm"),
    ("clusterrole", "scrape", "--verb=get", "--non-resource-url=/metrics,/metrics/*"),
    ("clusterrole", "both", "--verb=get", "--resource=nodes", "--non-resource-url=*"),
    ("clusterrole", "grant", "--verb=bind,escalate", "--resource=clusterroles"),
    ("clusterrole", "joined", "--aggregation-rule=a=b,c=d"),
    ("rolebinding", "admin", "--clusterrole=admin", "--user=ann", "--user=bo", "--group=ops"),
    ("rolebinding", "robot", "--role=reader", "--serviceaccount=prod:robot", "-n", "prod"),
    ("rolebinding", "nobody", "--role=reader"),
    ("clusterrolebinding", "viewers", "--clusterrole=view", "--group=staff", "--serviceaccount=a:b"),
    ("serviceaccount", "robot", "-n", "prod"),
    ("sa", "robot"),
]


@pytest.mark.parametrize("arguments", CREATED, ids=" ".join)
def test_create_makes_the_object_that_kubectl_makes(server: Served, arguments: tuple[str, ...]) -> None:
    ours = json.loads(ok(server, "create", *arguments, *DRY))
    assert ours == kubectl(server, "create", *arguments, *DRY)


def test_create_writes_manifests_that_the_node_accepts(server: Served) -> None:
    for arguments in CREATED:
        loaded = load_text(ok(server, "create", *arguments, "--dry-run=client", "-o", "yaml"), file="x.yaml")
        assert len(loaded.documents) == 1 and not loaded.errors, arguments
    said = ok(server, "create", "role", "reader", "--verb=get", "--resource=pods")
    assert said == "role.rbac.authorization.k8s.io/reader created\n"
    assert ok(server, "create", "ns", "prod") == "namespace/prod created\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("role", "a", "--resource=pods"), "at least one --verb is required"),
        (("role", "a", "--verb=get"), "at least one --resource is required"),
        (("role", "a", "--verb=get", "--resource=/log"), 'invalid resource "/log"'),
        (("role", "a", "--verb=get", "--resource=widgets"), 'doesn\'t have a resource type "widgets"'),
        (("role", "a", "--verb=bind", "--resource=pods"), 'the verb "bind" has no meaning for pods'),
        (("clusterrole", "a", "--verb=get"), "--resource or --non-resource-url is required"),
        (("clusterrole", "a", "--verb=list", "--non-resource-url=/x"), 'invalid verb "list"'),
        (("clusterrole", "a", "--verb=get", "--non-resource-url=/a*/b"), "may have * at its end only"),
        (("clusterrole", "a", "--verb=get", "--aggregation-rule=a=b"), "cannot be combined with rules"),
        (("rolebinding", "a", "--user=x"), "exactly one of --clusterrole and --role is required"),
        (("rolebinding", "a", "--role=x", "--clusterrole=y"), "exactly one of --clusterrole and --role"),
        (("rolebinding", "a", "--role=x", "--serviceaccount=robot"), "expected NAMESPACE:NAME"),
        (("clusterrolebinding", "a", "--user=x"), "--clusterrole is required"),
        (("token", "a", "--duration=soon"), "--duration:"),
        (("token", "a", "--bound-object-kind=Pod"), "belong together"),
    ],
)
def test_create_says_what_is_wrong(server: Served, arguments: tuple[str, ...], words: str) -> None:
    done = kubelite(server, "create", *arguments)
    assert done.returncode in (1, 2) and words in done.stderr


def test_what_is_asked_of_a_token() -> None:
    """Like kubectl pkg/cmd/create/create_token.go, without fields that are not given."""
    options = {
        "audience": ("a", "b"),
        "duration": "10m",
        "bound_object_kind": "Pod",
        "bound_object_name": "web",
    }
    assert documents.token_request({**options, "bound_object_uid": ""})["spec"] == {
        "audiences": ["a", "b"], "expirationSeconds": 600,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"},
    }  # fmt: skip
