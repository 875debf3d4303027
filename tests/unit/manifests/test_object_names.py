"""Names of objects that have only `generateName`: they follow from the file and the place in it."""

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from manifests.yaml.document import YamlDocument, read_documents
from manifests.yaml.loader import load_text
from manifests.yaml.object_names import ALPHABET, GeneratedNames, may_define, objects_in, random_name

JOB = """\
apiVersion: batch/v1
kind: Job
metadata: {generateName: sum-}
spec:
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}}
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: sum-}\n"


def names(text: str, file: str = "/m/jobs.yaml") -> list[str]:
    loaded = load_text(text, file=file)
    assert not loaded.errors
    return [document.name for document in loaded.documents]


def test_an_edit_keeps_the_name_and_the_form_is_that_of_kubernetes() -> None:
    (first,) = names(JOB)
    assert re.fullmatch(f"sum-[{ALPHABET}]{{5}}", first)
    assert names(JOB.replace("busybox", "alpine")) == [first] == names(f"# a comment\n---\n{JOB}")
    (document,) = load_text(JOB, file="/m/jobs.yaml").documents
    assert document.obj.to_json()["metadata"]["generateName"] == "sum-"


def test_the_name_is_that_of_the_release_that_first_had_it() -> None:
    """A node that is upgraded must not run Jobs again."""
    assert names(JOB + "---\n" + JOB) == ["sum-bcctj", "sum-l44wn"]


def test_another_file_and_another_place_have_other_objects() -> None:
    one, two = names(f"{JOB}---\n{JOB}")
    (elsewhere,) = names(JOB, "/m/more/jobs.yaml")
    assert len({one, two, elsewhere}) == 3
    # Objects of another kind or prefix do not move it, nor do those with a name.
    named = JOB.replace("generateName: sum-", "name: a")
    assert names("---\n".join((CONFIG, JOB.replace("sum-", "mean-"), named, JOB)))[-1] == one


def test_a_name_has_at_most_63_characters() -> None:
    (name,) = names(JOB.replace("sum-", "s" * 60))
    assert len(name) == 63 and name.startswith("s" * 58)
    assert len(random_name("s" * 60)) == 63


def test_a_prefix_that_makes_no_name_is_an_error_of_that_line() -> None:
    (error,) = load_text(JOB.replace("sum-", "Sum-"), file="/m/jobs.yaml").errors
    assert (
        error.line == 3 and error.field == "metadata.generateName" and "lowercase RFC 1123" in error.message
    )


def test_items_of_lists_have_names_too_also_of_a_list_in_a_list() -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "sum-"}}
    inner = {"apiVersion": "v1", "kind": "List", "items": [item, item]}
    found = names(json.dumps({"apiVersion": "v1", "kind": "List", "items": [inner, item]}))
    assert len(set(found)) == 3 and found[:1] == names(CONFIG)


@given(st.lists(st.sampled_from(("a-", "b-")), max_size=40), st.text(max_size=20))
def test_no_two_objects_of_a_file_have_the_same_name(prefixes: list[str], file: str) -> None:
    given_names = GeneratedNames(file)
    metadata = [{"generateName": prefix} for prefix in prefixes]
    found = [given_names.named({"kind": "Job", "metadata": one})["metadata"]["name"] for one in metadata]
    assert len(set(found)) == len(prefixes)
    assert all(may_define(f"generateName: {name[:2]}", name) for name in found)


def test_a_collision_in_a_file_gives_the_next_name() -> None:
    """With this file and prefix, the first hashes of objects 87 and 2215 are the same."""
    given_names = GeneratedNames("/m/jobs.yaml")
    job = {"kind": "Job", "metadata": {"generateName": "s0-"}}
    found = [given_names.named(job)["metadata"]["name"] for _ in range(2300)]
    assert len(set(found)) == len(found)


def test_empty_lists_have_no_objects() -> None:
    for text in (
        "kind: PodList\nitems: []\n",
        "kind: PodList\nitems:\n",
        "kind: List\n",
        "kind: List\nitems: null\n",
    ):
        (read,) = read_documents(text)
        assert isinstance(read, YamlDocument) and not list(objects_in(read.data)), text
    # A custom resource whose kind ends in List is an object.
    assert len(list(objects_in({"kind": "AllowList", "spec": {}}))) == 1
