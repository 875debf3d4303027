"""Every command accepts the names that `images` prints, with the aliases of registries.conf; images built here run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.build_support import FROM, build, context, identity
from tests.e2e.manifests import container, pod
from tests.e2e.node import IMAGE, Node


def _aliases(node: Node, **aliases: str) -> None:
    lines = ["[aliases]", *(f'"{name}" = "{target}"' for name, target in aliases.items())]
    (node.base / "no-registries.conf").write_text("\n".join(lines) + "\n")
    node.restart()


def _printed(node: Node) -> dict[str, str]:
    """Each name that `images` prints, with its id."""
    rows = [line.split() for line in node.cli("images", "--no-headers").out.splitlines()]
    return {f"{repository}:{tag}": image for repository, tag, image, *_ in rows}


def _means_what_it_says(node: Node) -> None:
    for name, short in _printed(node).items():
        assert identity(node, name).removeprefix("sha256:").startswith(short), name


def test_names_are_understood_alike(node: Node, tmp_path: Path) -> None:
    _aliases(node, hello="quay.io/me/hello")
    place = context(tmp_path / "context", FROM + "RUN echo one > /one\n")
    _, out = build(node, "-t", "hello:1", place)
    assert out == "Built quay.io/me/hello:1\n"
    assert set(_printed(node)) == {"localhost/kubelite/busybox:latest", "quay.io/me/hello:1"}
    node.apply("p.yaml", pod("p", container(image="hello:1")))
    node.wait_status("p", "Running")
    node.cli("tag", IMAGE, "hello:2")
    node.cli("tag", IMAGE, "docker.io/library/other:1")
    node.cli("image", "pack", "/usr/bin/env", "-t", "hello:3")
    expected = {"quay.io/me/hello:1", "quay.io/me/hello:2", "quay.io/me/hello:3", "other:1"}
    assert expected <= set(_printed(node))
    _means_what_it_says(node)
    # a later alias takes the short name away from an image
    _aliases(node, hello="quay.io/me/hello", other="quay.io/me/hello")
    assert "docker.io/library/other:1" in _printed(node)
    _means_what_it_says(node)


def test_an_image_of_this_node_needs_no_pull(node: Node, tmp_path: Path) -> None:
    place = context(tmp_path / "context", FROM + "RUN echo one > /one\n")
    build(node, "-t", "localhost/web", place)
    built = container(image="localhost/web")
    del built["imagePullPolicy"]
    node.apply("p.yaml", pod("p", built))
    node.wait_status("p", "Running")
    assert node.pod("p")["spec"]["containers"][0]["imagePullPolicy"] == "Always", "the default stays visible"
    assert not node.events("Pulling")
    said = 'Container image "localhost/web" already present on machine and can be accessed by the pod'
    assert said in [event["message"] for event in node.events("Pulled")]

    missing = container(image="localhost/other")
    del missing["imagePullPolicy"]
    node.apply("q.yaml", pod("q", missing))
    node.wait(lambda: node.events("Failed"), "the pull to fail")
    (message,) = {e["message"] for e in node.events("Failed") if "localhost/other" in e["message"]}
    assert message.endswith(
        "; names below localhost/ are for images of this node: kubelite build -t localhost/other"
    )


def test_a_build_says_that_its_pods_will_ask_a_registry(node: Node, tmp_path: Path) -> None:
    place = context(tmp_path / "context", FROM + "RUN echo one > /one\n")
    said = node.cli("build", "-t", "hello", "-t", "hello:1", "-t", "localhost/hello", place, timeout=60).err
    assert [line for line in said.splitlines() if line.startswith("note: ")] == [
        "note: a pod with the image hello asks docker.io for a newer one first, unless its imagePullPolicy is "
        "IfNotPresent; with localhost/hello it does not"
    ]


def test_a_pull_in_vain_says_that_the_image_is_here(node: Node, tmp_path: Path) -> None:
    place = context(tmp_path / "context", FROM + "RUN echo one > /one\n")
    build(node, "-t", "127.0.0.1:1/hello", place)
    built = container(image="127.0.0.1:1/hello")
    del built["imagePullPolicy"]
    node.apply("p.yaml", pod("p", built))
    node.wait_status("p", "ErrImagePull", "ImagePullBackOff")
    hint = "the image is on this node, but imagePullPolicy is Always (the default for the tag latest or none): add"
    assert hint in node.container("p")["state"]["waiting"]["message"]
    assert any(hint in event["message"] for event in node.events("Failed"))
    assert "set it to IfNotPresent" in json.loads(node.cli("why", "p", "-o", "json").out)["advice"][0]
