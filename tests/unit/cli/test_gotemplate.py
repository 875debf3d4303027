"""Go templates: what works, beside the real kubectl's, and what says that it does not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.output.gotemplate import FUNCTIONS, render
from tests.programs import missing

DOCUMENT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "web", "labels": {"tier": "front", "app": "web"}, "finalizers": ["a/b", "c/d"]},
    "data": {"a": "one", "b": "two words", "x.conf": "dotted", "code": "c2VjcmV0"},
}
SAME = [
    "{{.metadata.name}}",
    "{{ .metadata.name }} {{$.kind}}\n",
    "{{.metadata.labels}} {{.metadata.finalizers}}",
    "{{.data.nothing}}|{{.nothing}}",
    '{{index .data "x.conf"}} {{index .metadata.finalizers 1}} {{(index .metadata.finalizers 0)}}',
    "{{range .metadata.finalizers}}<{{.}}>{{end}}",
    "{{range $k, $v := .data}}{{$k}}={{$v}};{{end}}",
    "{{range $v := .metadata.labels}}{{$v}},{{end}}{{range .none}}x{{else}}none{{end}}",
    "{{if .data.a}}yes{{else}}no{{end}}{{if .data.z}}yes{{else if .data.b}}b{{else}}no{{end}}",
    "{{if and .data.a (not .data.z)}}A{{end}}{{if or .data.z .data.b}}B{{end}}",
    '{{if eq .data.a "two" "one"}}eq{{end}}{{if ne .data.a "one"}}ne{{end}}{{if lt 1 2}}lt{{end}}',
    "{{with .metadata}}{{.name}}{{$.kind}}{{end}}{{with .none}}x{{else}}none{{end}}",
    "a {{- .kind -}} b{{/* a comment */}}c",
    '{{len .data}} {{len .data.a}} {{.data.a | len}} {{.data.a | printf "%s-%q-%5s|%-4s|" "x" "y" "z"}}',
    '{{print 1 2 "a" "b" 3}}{{println "x" 1 true}}{{printf "%d %v %05.1f %% %s" 3 true 1.5 "s"}}',
    "{{$name := .metadata.name}}{{$name}}{{range .metadata.finalizers}}{{$name}}{{end}}",
    '{{true}} {{1}} {{"quoted \\"text\\"\\n"}}{{`raw \\n`}}',
    '{{.data.code | base64decode}} {{if exists .data "a"}}there{{end}}{{if exists .data "z"}}not{{end}}',
]


@pytest.mark.parametrize("template", SAME)
def test_it_says_what_kubectl_says(template: str, tmp_path: Path) -> None:
    if missing("kubectl"):
        pytest.skip("needs kubectl (kubernetes-client)")
    manifest = tmp_path / "cm.json"
    manifest.write_text(json.dumps(DOCUMENT))
    command = ["kubectl", "annotate", "--local", "-f", str(manifest), "x-", "-o", f"go-template={template}"]
    environ = {**os.environ, "KUBECONFIG": "/dev/null", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert render(template)(DOCUMENT) == done.stdout


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{json .metadata.labels}}", '{"tier":"front","app":"web"}'),
        ('{{join .metadata.finalizers "+"}} {{upper .kind}} {{lower .kind}}', "a/b+c/d CONFIGMAP configmap"),
        (
            "{{(index .list 0).name}} {{.number}} {{.half}} {{.null}} {{.list}}",
            "n 7 0.5 <no value> [map[name:n]]",
        ),
    ],
)
def test_dockers_functions_and_other_values(template: str, words: str) -> None:
    document = {**DOCUMENT, "number": 7.0, "half": 0.5, "null": None, "list": [{"name": "n"}]}
    assert render(template)(document) == words


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ('{{define "x"}}a{{end}}', "{{define}} is not supported"),
        ('{{template "x"}}', "{{template}} is not supported"),
        ("{{range .data}}{{break}}{{end}}", "{{break}} is not supported"),
        ("{{nix .data}}", 'function "nix" not defined; kubelite has and, base64decode'),
        ("{{if .a}}b", "{{if}} without {{end}}"),
        ("a{{end}}", "unexpected {{end}}"),
        ("{{if .a}}b{{else}}c{{else}}d{{end}}", "{{if}} without {{end}}"),
        ("{{if .a}}b{{else print .kind}}c{{end}}", "unexpected 'print' in {{else print .kind}}"),
        ("{{lower .metadata}}", "error calling lower"),
        (r'{{"\x41"}}', r'invalid string "\x41"'),
        ("{{.a", "unclosed action"),
        ("{{.none.name}}", "nil pointer evaluating .name"),
        ("{{.kind.name}}", "can't evaluate field name in ConfigMap"),
        ("{{index .metadata.finalizers 9}}", "error calling index: index out of range: 9"),
        ("{{range .kind}}{{end}}", "range can't iterate over ConfigMap"),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{(.kind}}", "unclosed parenthesis"),
        ("{{.kind .kind}}", "can't give argument to non-function"),
        ("{{len}}", "error calling len"),
        ("{{?}}", "unexpected '?'"),
        ("{{}}", "missing value for command"),
    ],
)
def test_what_does_not_work_is_said(template: str, words: str) -> None:
    with pytest.raises(CliError) as caught:
        render(template)(DOCUMENT)
    assert words in str(caught.value)
    assert caught.value.code == 2


def test_every_function_is_tried() -> None:
    said = " ".join([*SAME, "json join upper lower"])
    assert not [name for name in FUNCTIONS if name not in said and name not in ("ge", "gt", "le")]
    assert render("{{ge 2 1}}{{gt 1 1}}{{le 1 1}}")({}) == "truefalsetrue"
