"""What `helm template` writes: hooks, empty documents and Lists, and what joined files and Windows leave in a text."""

import pytest

from manifests.yaml.helm_hooks import at_install, passed_over
from manifests.yaml.loader import load_text

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"
HOOK = 'apiVersion: v1\nkind: Pod\nmetadata: {name: t, annotations: {"helm.sh/hook": "%s"}}\nspec: {containers: %s}\n'


@pytest.mark.parametrize(
    ("events", "said"),
    [
        # What Helm creates at `helm install` (pkg/action/install.go) is an object like any other.
        ("pre-install", ""),
        ("post-install, post-upgrade", ""),
        ("Pre-Install,pre-delete", ""),
        ("post-install,test", ""),
        ("", ""),
        ("test", "Helm creates this object only for `helm test`: this document is ignored"),
        ("test-success", "Helm creates this object only for `helm test`: this document is ignored"),
        ("pre-delete", "Helm creates this object only for `helm uninstall`: this document is ignored"),
        (
            "pre-upgrade,post-rollback",
            "Helm creates this object only for `helm rollback` and `helm upgrade`: this document is ignored",
        ),
        # pkg/releaseutil/manifest_sorter.go: an object with an unknown hook is not created.
        (
            "crd-install",
            "Helm has no hook crd-install, and does not create this object: this document is ignored",
        ),
        ("pre-install,x", "Helm has no hook x, and does not create this object: this document is ignored"),
    ],
)
def test_which_hooks_are_part_of_an_installation(events: str, said: str) -> None:
    assert passed_over({"kind": "Job", "metadata": {"annotations": {"helm.sh/hook": events}}}) == said


def test_a_hook_that_is_run_says_how() -> None:
    metadata = {"annotations": {"helm.sh/hook": "pre-install,pre-upgrade"}}
    assert at_install({"kind": "Job", "metadata": metadata}).startswith(
        "its Helm hook pre-install is run once"
    )
    assert not at_install({"kind": "ConfigMap", "metadata": metadata})
    assert not at_install({"kind": "Job", "metadata": {}})


@pytest.mark.parametrize(
    "data", [None, 1, [], {}, {"metadata": None}, {"metadata": {"annotations": {"helm.sh/hook": 1}}}]
)
def test_other_data_has_no_hooks(data: object) -> None:
    assert passed_over(data) == ""


def test_a_test_is_no_object_and_hides_no_other() -> None:
    """Not even an invalid one: nobody runs it."""
    loaded = load_text(f"{CONFIG % 'a'}---\n{HOOK % ('test', 1)}---\n{CONFIG % 'b'}", file="all.yaml")
    assert [document.name for document in loaded.documents] == ["a", "b"] and not loaded.errors
    (ignored,) = loaded.ignored
    assert (ignored.line, ignored.object) == (7, "Pod default/t")
    assert ignored.field == "metadata.annotations[helm.sh/hook]"


@pytest.mark.parametrize(
    "text",
    [
        "---\n# Source: chart/templates/a.yaml\n{a}---\n# Source: chart/templates/none.yaml\n---\n# Source: b\n{b}",
        "{a}--- # Source: chart/templates/b.yaml\n{b}---\n",
        "{a}---\n\n---\nnull\n---\n{b}...\n",
        "\ufeff---\n{a}---\n\ufeff{b}",  # a file that begins with a byte order mark, in front of and between others
        "{a}\ufeff---\n{b}",
        "{a}---\napiVersion: v1\nkind: PodList\nitems: []\n---\n{b}---\nkind: List\napiVersion: v1\nitems:\n",
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_is_between_documents_is_nothing(text: str, newline: str) -> None:
    whole = text.format(a=CONFIG % "a", b=CONFIG % "b").replace("\n", newline)
    loaded = load_text(whole, file="all.yaml")
    assert [document.name for document in loaded.documents] == ["a", "b"], loaded.errors
    assert not loaded.errors and not loaded.ignored
