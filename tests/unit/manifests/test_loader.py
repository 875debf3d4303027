"""A file → objects and errors that name file, line and field."""

from pathlib import Path

import pytest

from manifests.types.core import ConfigMap, Pod, Secret
from manifests.yaml.loader import MAX_FILE, ErrorKind, Loaded, load_file, load_text

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: a
    image: nginx
"""


def load(text: str) -> Loaded:
    return load_text(text, file="web.yaml")


def errors(text: str) -> list[str]:
    return [str(error) for error in load(text).errors]


def test_a_pod_is_typed_and_has_its_defaults() -> None:
    (document,) = load(POD).documents
    assert isinstance(document.obj, Pod)
    assert document.key == ("Pod", "default", "web")
    assert (document.api_version, document.line, document.file) == ("v1", 1, "web.yaml")
    assert document.obj.metadata.namespace == "default"
    assert document.obj.spec.restart_policy == "Always"


def test_an_unknown_field_is_told_as_promised() -> None:
    assert errors(POD.replace("image: nginx", "imagee: nginx")) == [
        'web.yaml:8: spec.containers[0].imagee: unknown field, did you mean "image"?'
    ]


def test_all_errors_of_a_document_are_told_at_once_by_line() -> None:
    """Errors of structure and of validation together."""
    text = """\
apiVersion: v1
kind: Pod
metadata:
  name: Web
spec:
  restartPolicy: always
  containers:
  - name: a
    image: nginx
    args: [1]
    env:
    - name: X
      value: 1
      valu: 2
    ports:
    - containerPort: 99999
  - image: nginx
    name: a
  terminationGracePeriodSeconds: "5"
"""
    found = errors(text)
    assert [line.split(":")[1] for line in found] == ["4", "6", "10", "13", "14", "16", "18", "19"]
    assert found[1] == (
        'web.yaml:6: spec.restartPolicy: Unsupported value: "always": supported values: "Always", "Never", '
        '"OnFailure", did you mean "Always"?'
    )
    assert (
        found[3]
        == 'web.yaml:13: spec.containers[0].env[0].value: must be a string: put it in quotes, like "1"'
    )
    assert found[6] == 'web.yaml:18: spec.containers[1].name: Duplicate value: "a"'
    assert (
        found[7]
        == "web.yaml:19: spec.terminationGracePeriodSeconds: must be an integer: remove the quotes around 5"
    )


def test_rules_say_nothing_about_what_the_shape_already_lacks() -> None:
    text = POD.replace(
        "    image: nginx\n", "    image: 5\n    volumeMounts: [{name: v, mountPath: /v}]\n"
    ) + ("  volumes: [{name: 7, emptyDir: {}}, {name: w, emptyDir: {}, hostPath: {path: /}}]\n")
    assert errors(text) == [
        'web.yaml:8: spec.containers[0].image: must be a string: put it in quotes, like "5"',
        'web.yaml:10: spec.volumes[0].name: must be a string: put it in quotes, like "7"',
        "web.yaml:10: spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
    ]


def test_a_missing_field_is_told_at_what_it_is_missing_from() -> None:
    assert errors(POD.replace("  - name: a\n    image", "  - image")) == [
        "web.yaml:7: spec.containers[0].name: Required value"
    ]
    assert errors("apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {}\n") == [
        "web.yaml:1: spec: Required value",
        "web.yaml:3: metadata.name: Required value: name or generateName is required",
    ]


def test_a_bad_document_hides_no_good_one() -> None:
    misspelt = POD.replace("web", "two").replace("image", "imag")
    text = f"{POD}---\na: b: c\n---\n{misspelt}---\n{POD.replace('web', 'three')}"
    loaded = load(text)
    assert [document.name for document in loaded.documents] == ["web", "three"]
    assert [(error.kind, error.line) for error in loaded.errors] == [
        (ErrorKind.SYNTAX, 10),
        (ErrorKind.INVALID, 19),
    ]
    assert loaded.documents[1].line == 21


def test_duplicate_keys_are_errors() -> None:
    found = errors(POD + "    image: other\n")
    assert found == ["web.yaml:9: spec.containers[0].image: duplicate key, first set on line 8"]


def test_one_object_twice_in_a_file_is_an_error_for_the_second() -> None:
    loaded = load(f"{POD}---\n{POD.replace('nginx', 'other')}")
    (document,) = loaded.documents
    assert document.line == 1
    (error,) = loaded.errors
    assert (
        str(error) == "web.yaml:13: metadata.name: Pod default/web is already defined on line 1 of this file"
    )


def test_the_same_name_in_another_namespace_or_kind_is_another_object() -> None:
    other = POD.replace("name: web", "name: web\n  namespace: prod")
    config = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n"
    loaded = load(f"{POD}---\n{other}{config}")
    assert not loaded.errors
    assert {document.key for document in loaded.documents} == {
        ("Pod", "default", "web"),
        ("Pod", "prod", "web"),
        ("ConfigMap", "default", "web"),
    }


def test_lists_are_expanded_and_their_errors_name_the_item() -> None:
    text = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: b}
  data: {x: 1}
- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}]}
"""
    loaded = load(text)
    assert [(document.name, document.line) for document in loaded.documents] == [("a", 4), ("c", 9)]
    assert [str(error) for error in loaded.errors] == [
        'web.yaml:8: items[1].data[x]: must be a string: put it in quotes, like "1"'
    ]
    assert loaded.errors[0].object == "ConfigMap default/b"


def test_a_list_of_nothing_and_one_that_is_none() -> None:
    assert load("apiVersion: v1\nkind: List\n") == Loaded((), ())
    assert load("apiVersion: v1\nkind: List\nitems: []\n") == Loaded((), ())
    assert errors("apiVersion: v1\nkind: List\nitems: {}\n") == ["web.yaml:3: items: must be a list"]


def test_a_typed_list_gives_its_items_their_kind() -> None:
    loaded = load("apiVersion: v1\nkind: ConfigMapList\nmetadata: {}\nitems: [{metadata: {name: a}}]\n")
    assert [document.key for document in loaded.documents] == [("ConfigMap", "default", "a")]


def test_a_secret_takes_plain_text() -> None:
    (document,) = load(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: hi}\ndata: {b: aGk=}\n"
    ).documents
    assert isinstance(document.obj, Secret)
    assert document.obj.data == {"a": "aGk=", "b": "aGk="}
    assert document.obj.type == "Opaque"


@pytest.mark.parametrize(
    ("head", "kind", "sentence"),
    [
        (
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest",
            ErrorKind.UNSUPPORTED,
            "2: kind: kubelite does not run CertificateSigningRequest objects yet",
        ),
        (
            "apiVersion: v1\nkind: CertificateSigningRequest",
            ErrorKind.UNSUPPORTED,
            '1: apiVersion: no kind "CertificateSigningRequest" in "v1": it is served in "certificates.k8s.io/v1"',
        ),
        (
            "apiVersion: example.com/v1\nkind: Widget",
            ErrorKind.UNSUPPORTED,
            "custom resources are not supported",
        ),
        ("apiVersion: apps/v1\nkind: Deploymnet", ErrorKind.INVALID, 'did you mean "Deployment"?'),
        (
            "apiVersion: v1\nkind: pod",
            ErrorKind.INVALID,
            '2: kind: no kind "pod" in "v1", did you mean "Pod"?',
        ),
        (
            "apiVersion: apps/v1\nkind: Pod",
            ErrorKind.INVALID,
            '1: apiVersion: Pod is served in "v1", not in "apps/v1"',
        ),
        ("kind: Pod", ErrorKind.INVALID, "apiVersion: Required value"),
        ("apiVersion: v1", ErrorKind.INVALID, "kind: Required value"),
        ("apiVersion: v1\nkind: [Pod]", ErrorKind.INVALID, "2: kind: must be a string"),
        ("- a", ErrorKind.INVALID, "1: must be a Kubernetes object"),
        ("just text", ErrorKind.INVALID, "1: must be a Kubernetes object"),
    ],
)
def test_what_kind_of_thing_it_is(head: str, kind: ErrorKind, sentence: str) -> None:
    loaded = load(f"{head}\n")
    assert not loaded.documents
    (error,) = loaded.errors
    assert error.kind is kind
    assert sentence in str(error)


def test_an_unsupported_kind_is_an_error_for_that_document_only() -> None:
    loaded = load(
        f"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: s}}\n---\n{POD}"
    )
    assert [document.name for document in loaded.documents] == ["web"]
    assert [error.kind for error in loaded.errors] == [ErrorKind.UNSUPPORTED]
    assert loaded.errors[0].object == "Gateway default/s"


@pytest.mark.parametrize(
    ("version", "kind", "said"),
    [
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "no webhook is called"),
        ("apiregistration.k8s.io/v1", "APIService", "serves no API of another server"),
        ("flowcontrol.apiserver.k8s.io/v1beta2", "FlowSchema", "have no priority levels"),
    ],
)
def test_what_configures_an_api_server_is_ignored_and_no_error(version: str, kind: str, said: str) -> None:
    loaded = load(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: s}}\n---\n{POD}")
    assert [document.name for document in loaded.documents] == ["web"] and not loaded.errors
    (ignored,) = loaded.ignored
    assert ignored.line == 2 and said in ignored.message
    (error,) = load(f"apiVersion: example.com/v1\nkind: {kind}\nmetadata: {{name: s}}\n").errors
    assert error.kind is ErrorKind.UNSUPPORTED and "is ignored" not in error.message


def test_a_removed_kind_names_what_replaced_it() -> None:
    (error,) = load("apiVersion: policy/v1beta1\nkind: PodSecurityPolicy\nmetadata: {name: p}\n").errors
    assert error.kind is ErrorKind.UNSUPPORTED and "pod-security.kubernetes.io/enforce" in error.message


def test_what_kubectl_writes_is_read() -> None:
    """`kubectl get pod -o yaml`: status, managedFields, nulls and all."""
    text = POD.replace(
        "  name: web\n",
        "  name: web\n  creationTimestamp: null\n  managedFields: [{manager: x, fieldsV1: {f:a: {}}}]\n",
    )
    loaded = load(text + "status:\n  phase: Running\n  podIPs: [{ip: 10.0.0.1}]\n")
    assert not loaded.errors
    assert load(POD + "status: {}\n").documents[0].obj.to_json().get("status") is None


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + POD.encode())
    assert [document.file for document in load_file(path).documents] == [str(path)]
    path.write_bytes(POD.encode() + b"# \xff\n")
    assert [str(error) for error in load_file(path, file="a.yaml").errors] == [
        "a.yaml:9: not UTF-8 text (byte 0xff)"
    ]
    path.write_bytes(b"# " + b"x" * MAX_FILE)
    (error,) = load_file(path, file="a.yaml").errors
    assert str(error) == "a.yaml: larger than 10 MiB"
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "none.yaml")


def test_json_is_read_too() -> None:
    text = '{\n  "apiVersion": "v1",\n  "kind": "ConfigMap",\n  "metadata": {"name": "a"},\n  "dta": {}\n}\n'
    assert errors(text) == ['web.yaml:5: dta: unknown field, did you mean "data"?']
    (document,) = load(text.replace("dta", "data")).documents
    assert isinstance(document.obj, ConfigMap)
