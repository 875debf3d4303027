"""The pure parts of a build: stages, ignored files, keys, an image's config, a layer's tar headers."""

from __future__ import annotations

import io
import tarfile
import time
from typing import Any

import pytest

from runtime.builder import config, keys
from runtime.builder.config import State
from runtime.builder.copy.copying import CopyError, parse_mode
from runtime.builder.diff import TarWriter
from runtime.builder.errors import BuildError
from runtime.builder.language import graph, ignore, lexer
from runtime.builder.language.graph import Graph
from runtime.builder.output import Output
from runtime.builder.output import parse as parse_output
from runtime.images.layers.tarstream import Entry

PLATFORM = {"TARGETPLATFORM": "linux/amd64", "TARGETARCH": "amd64"}


def planned(text: str, *, target: str = "", **args: str) -> Graph:
    return graph.plan(lexer.parse(text, "C"), target=target, args=args, platform_args=PLATFORM)


STAGES = """\
ARG BASE=debian
FROM ${BASE}:${TAG:-13} AS one
FROM one AS two
FROM busybox AS alone
FROM scratch AS three
COPY --from=two /a /
RUN --mount=type=bind,from=0,target=/x y
FROM other
COPY --from=elsewhere.example/image /a /
"""


@pytest.mark.parametrize(
    ("target", "needed"),
    [("", {4}), ("three", {0, 1, 3}), ("TWO", {0, 1}), ("one", {0}), ("alone", {2}), ("3", {0, 1, 3})],
)
def test_only_needed_stages(target: str, needed: set[int]) -> None:
    assert planned(STAGES, target=target).needed == needed


def test_stages_know_their_bases() -> None:
    found = planned(STAGES, BASE="alpine")
    assert [(s.base, s.base_stage) for s in found.stages] == [
        ("alpine:13", -1), ("one", 0), ("busybox", -1), ("scratch", -1), ("other", -1),
    ]  # fmt: skip
    assert found.find("two", before=3) == 1
    assert found.find("two", before=1) == -1
    assert found.find("nowhere", before=4) == -1
    assert planned("FROM a-$TARGETARCH").stages[0].base == "a-amd64"


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("RUN x\nFROM a", "", "C:1: RUN is not allowed before the first FROM; only ARG is"),
        ("ARG A", "", "there is no FROM"),
        ("FROM $NONE", "", 'the base name "$NONE" is empty'),
        ("FROM a AS x\nFROM b AS X", "", "C:2: another stage has the name x already"),
        ("FROM a AS x", "y", 'there is no stage "y"; the stages are x'),
        ("FROM a\nCOPY --from=1 a b", "", "C:2: stage 1 does not come before this one"),
        ("ARG A=${\nFROM a", "", "C:1: ARG:"),
    ],
)
def test_invalid_graphs(text: str, target: str, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        planned(text, target=target)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        ("*.md", ["a.md"], ["x/a.md", "a.mdx"]),
        ("**/*.md", ["a.md", "x/a.md", "x/y/a.md"], ["a.txt"]),
        ("*/temp*", ["a/temp", "a/temporary/x"], ["temp", "a/b/temp"]),
        ("temp?", ["tempa"], ["temp", "tempab"]),
        ("dir", ["dir", "dir/x", "dir/y/z"], ["dirx", "x/dir"]),
        ("/dir/", ["dir/x"], ["x/dir"]),
        ("dir/*", ["dir/x", "dir/x/y"], ["dir"]),
        ("dir/**", ["dir/x", "dir/x/y"], ["dir"]),
        ("**/dir", ["dir", "a/dir/x", "a/b/dir"], ["a/dirx"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z"]),
        ("*.md\n!README.md", ["a.md"], ["README.md"]),
        ("!README.md\n*.md", ["README.md"], []),
        ("*\n!src", ["x", "y/z"], ["src", "src/a/b"]),
        ("src\n!src/keep\nsrc/keep/not", ["src/a", "src/keep/not"], ["src/keep", "src/keep/b"]),
        ("# comment\n\n  spaced  ", ["spaced"], ["# comment"]),
        ("[a-c].txt", ["b.txt"], ["d.txt"]),
        ("[^a].txt", ["b.txt"], ["a.txt"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("./x/../y", ["y"], ["x"]),
        (".", [], ["a", "b/c"]),
    ],
)
def test_ignored(patterns: str, ignored: list[str], kept: list[str]) -> None:
    found = ignore.read(patterns)
    assert [path for path in ignored if not found.matches(path)] == []
    assert [path for path in kept if found.matches(path)] == []


@pytest.mark.parametrize(
    ("pattern", "ignored", "kept"),
    [
        ("*" * 60 + "/x", "a/b/c/x", "a/b/c/y"),
        ("**/" * 30 + "x", "x", "y"),
        ("a***", "ab/c", "b/a"),
        ("*" * 31 + "b", "a/a/b", "a" * 200),
        ("[[a&&b]", "&", "c"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_rows_of_stars_take_no_time(pattern: str, ignored: str, kept: str) -> None:
    """re would try every way to divide a path among them."""
    began = time.process_time()
    found = ignore.read(pattern)
    assert found.matches(ignored) and not found.matches(kept)
    assert not ignore.read(f"{pattern}-").matches("a/" * 60 + "b")
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("text", ["[a", "!"])
def test_invalid_patterns(text: str) -> None:
    with pytest.raises(ignore.PatternError):
        ignore.read(text)


RUN: dict[str, Any] = {
    "user": "", "workdir": "/", "network": "default", "mounts": (), "hidden": graph.PREDEFINED, "epoch": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ({}, False),
        ({"env": {"A": "1", "HTTP_PROXY": "x"}}, False),  # proxies are not part of the key
        ({"args": ["sh", "-c", "y"]}, True),
        ({"env": {"A": "2"}}, True),
        ({"user": "app"}, True),
        ({"workdir": "/w"}, True),
        ({"network": "none"}, True),
        ({"mounts": ({"type": "bind", "digest": "1"},)}, True),
        ({"epoch": 0}, True),
        ({"parent": "sha256:other"}, True),
    ],
)
def test_the_cache_key_of_a_run(change: dict[str, Any], other: bool) -> None:
    base: dict[str, Any] = {"parent": "sha256:below", "args": ["sh", "-c", "x"], "env": {"A": "1"}, **RUN}

    def key(values: dict[str, Any]) -> str:
        rest = dict(values)
        parent, args, env = rest.pop("parent"), rest.pop("args"), rest.pop("env")
        return keys.step_key("run", parent, keys.run_inputs(args, env, **rest))

    assert (key({**base, **change}) != key(base)) == other


def test_the_cache_keys_of_a_copy_and_an_image() -> None:
    def key(digest: str = "d", **change: Any) -> str:
        values: dict[str, Any] = {"owner": "", "mode": "", "flags": (), "epoch": None, **change}
        return keys.step_key("copy", "", keys.copy_inputs([("name", digest)], "/to", **values))

    assert len({key(), key("e"), key(owner="1"), key(mode="644"), key(epoch=1)}) == 5
    history = [{"created": "now", "created_by": "x"}]
    later = [{"created": "later", "created_by": "x"}]
    assert keys.image_key("top", {"A": 1}, history) == keys.image_key("top", {"A": 1}, later)
    assert keys.image_key("top", {"A": 1}, history) != keys.image_key("top", {"A": 2}, history)


def changed(*lines: str, state: State | None = None) -> State:
    found = state or config.scratch()
    for raw in lexer.parse("\n".join(lines), "C").instructions:
        from runtime.builder.language.instructions import read

        found = config.change(found, read(raw, "\\"), lambda text: text)
    return found


def test_a_config_step_by_step() -> None:
    found = changed("ENV A=1", "ENV A=2 B=3", "LABEL x=y", "EXPOSE 80 53/UDP 90-91", "VOLUME /v", "USER me",
                    "WORKDIR a", "WORKDIR ../b", "STOPSIGNAL SIGUSR1")  # fmt: skip
    assert found.config == {
        "Env": [f"PATH={config.PATH}", "A=2", "B=3"],
        "Labels": {"x": "y"},
        "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "90/tcp": {}, "91/tcp": {}},
        "Volumes": {"/v": {}},
        "User": "me",
        "WorkingDir": "/b",
        "StopSignal": "SIGUSR1",
    }
    assert [entry["created_by"] for entry in found.history][:2] == ["ENV A=1", "ENV A=2 B=3"]
    assert all(entry["empty_layer"] for entry in found.history)


def test_entrypoint_removes_the_command_of_the_base() -> None:
    base, _ = config.from_image({"config": {"Cmd": ["sh"], "Entrypoint": ["x"]}})
    assert "Cmd" not in changed('ENTRYPOINT ["a"]', state=base).config
    assert changed("CMD b", 'ENTRYPOINT ["a"]', state=base).config["Cmd"] == ["/bin/sh", "-c", "b"]
    assert changed('SHELL ["/bin/ash", "-ec"]', "CMD b").config["Cmd"] == ["/bin/ash", "-ec", "b"]


def test_triggers_leave_the_config() -> None:
    state, triggers = config.from_image({"config": {"OnBuild": ["RUN x"], "Env": ["A=1"]}})
    assert triggers == ("RUN x",) and state.config == {"Env": [f"PATH={config.PATH}", "A=1"]}


@pytest.mark.parametrize(
    "line", ["EXPOSE http", "EXPOSE 0", "EXPOSE 9-8", "EXPOSE 70000", "STOPSIGNAL SIGNONE", "STOPSIGNAL 99"]
)
def test_invalid_values(line: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        changed(line)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("0640", 0o777, 0o640),
        ("4755", 0o644, 0o4755),
        ("u+x", 0o644, 0o744),
        ("go-rwx", 0o777, 0o700),
        ("a=r", 0o755, 0o444),
        ("+X", 0o644, 0o644),
        ("+X", 0o744, 0o755),
        ("u=rwx,g=rx,o=", 0o644, 0o750),
        ("u+s,o+t", 0o755, 0o5755),
    ],
)
def test_chmod(text: str, before: int, after: int) -> None:
    assert parse_mode(text)(before) == after


def test_invalid_chmod() -> None:
    with pytest.raises(CopyError):
        parse_mode("rwx")


@pytest.mark.parametrize(
    "member",
    [
        Entry(b"a", b"0", 0o4755, 1, 2, 3, 1_700_000_000_123_456_789),
        Entry(b"d/" * 60 + b"name", b"0", 0o644),
        Entry(b"x" * 200, b"2", 0o777, link=b"y" * 300),
        Entry("ünï".encode(), b"5", 0o1777, 3_000_000, 4_000_000_000),
        Entry(b"cap", b"0", xattrs={b"security.capability": b"\x00\n=\xff" * 30}),
        Entry(b"dev", b"3", 0o600, major=5, minor=7),
        Entry(b"old", b"0", mtime_ns=-1_500_000_000),
        Entry(b"z" * 100, b"0", mtime_ns=1_500_000_000),
    ],
)
def test_headers_are_read_back(member: Entry) -> None:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    writer.add(member)
    writer.put(bytes(-member.size % 512 + member.size if member.size else 0))
    diff = writer.finish()
    assert diff.size == len(out.getvalue()) and diff.size % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        (read,) = archive.getmembers()
    assert (read.name.encode(errors="surrogateescape"), read.mode) == (member.name.rstrip(b"/"), member.mode)
    assert (read.uid, read.gid, read.size) == (member.uid, member.gid, member.size)
    assert read.linkname.encode() == member.link
    assert abs(read.mtime - member.mtime_ns / 1e9) < 1e-6
    for key, value in member.xattrs.items():
        shown = read.pax_headers[f"SCHILY.xattr.{key.decode()}"]
        assert shown.encode("utf-8", "surrogateescape") == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("out", Output("local", "out")),
        ("-", Output("tar", "-")),
        ("type=local,dest=x", Output("local", "x")),
        ("type=oci-archive,dest=x.tar", Output("oci", "x.tar")),
        ("type=docker,dest=-", Output("docker", "-")),
        ("type=image", Output()),
    ],
)
def test_outputs(text: str, found: Output) -> None:
    assert parse_output(text) == found


@pytest.mark.parametrize(
    "text", ["type=x", "type=local", "type=local,dest=-", "type=image,push=true", "type=tar,x"]
)
def test_invalid_outputs(text: str) -> None:
    with pytest.raises(ValueError, match="--output"):
        parse_output(text)
