"""Parsing Containerfiles: lines, directives, flags, here-documents, forms, variables, and errors with their places."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.builder.errors import BuildError, Place
from runtime.builder.language import instructions, lexer
from runtime.builder.language.instructions import Command, Copy, From, HealthCheck, Mount, OnBuild, Pairs, Run
from runtime.builder.language.lexer import Containerfile, Heredoc
from runtime.builder.language.words import WordError, expand


def parsed(text: str) -> Containerfile:
    return lexer.parse(text, "Containerfile")


def only(text: str) -> Any:
    """The value of the only instruction."""
    found = parsed(text)
    (raw,) = found.instructions
    return instructions.read(raw, found.escape).what


def refusal(text: str) -> str:
    with pytest.raises(BuildError) as caught:
        found = parsed(text)
        for raw in found.instructions:
            instructions.read(raw, found.escape)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "names_and_rests"),
    [
        ("FROM a\nRUN b", [("FROM", "a"), ("RUN", "b")]),
        ("from a\n\n# no\n  run  b  ", [("FROM", "a"), ("RUN", "b")]),
        ("RUN a \\\n  b", [("RUN", "a   b")]),
        ("RUN a \\\n# comment\n\n  b\nUSER c", [("RUN", "a   b"), ("USER", "c")]),
        ("RUN a \\  \n b", [("RUN", "a  b")]),
        ("RUN a \\\\\nUSER b", [("RUN", "a \\\\"), ("USER", "b")]),
        ("RUN a\r\nUSER b\r\n", [("RUN", "a"), ("USER", "b")]),
        ("\ufeffRUN a", [("RUN", "a")]),
        ("ENV\tA=b", [("ENV", "A=b")]),
        ("RUN echo '# no comment'", [("RUN", "echo '# no comment'")]),
        ("# escape=`\nRUN a `\n b\nRUN c \\\nUSER d", [("RUN", "a  b"), ("RUN", "c \\"), ("USER", "d")]),
    ],
)
def test_lines(text: str, names_and_rests: list[tuple[str, str]]) -> None:
    assert [(raw.name, raw.rest) for raw in parsed(text).instructions] == names_and_rests


@pytest.mark.parametrize(
    ("text", "directives"),
    [
        ("# syntax=docker/dockerfile:1\n# escape=`\nFROM a", {"syntax": "docker/dockerfile:1", "escape": "`"}),
        ("#syntax = docker.io/docker/dockerfile:1.7-labs\nFROM a", {"syntax": "docker.io/docker/dockerfile:1.7-labs"}),
        ("# comment\n# escape=`\nFROM a", {}),
        ("\n# escape=`\nFROM a", {}),
        ("FROM a\n# escape=`", {}),
        ("# unknown=1\n# escape=`\nFROM a", {}),
        ("# check=skip=all\nFROM a", {"check": "skip=all"}),
    ],
)  # fmt: skip
def test_directives_come_first_or_are_comments(text: str, directives: dict[str, str]) -> None:
    assert parsed(text).directives == directives


@pytest.mark.parametrize(
    ("text", "heredocs"),
    [
        ("RUN <<E\na\n\n# b\nE\n", [Heredoc("E", "a\n\n# b\n", True)]),
        ("RUN <<'E'\n$a\nE", [Heredoc("E", "$a\n", False)]),
        ('RUN <<"E"\nE', [Heredoc("E", "", False)]),
        ("RUN <<-E\n\t\ta\n\tE", [Heredoc("E", "a\n", True, "", True)]),
        ("RUN cat <<A 3<<B >x\n1\nA\n2\nB", [Heredoc("A", "1\n", True), Heredoc("B", "2\n", True, "3")]),
        ("COPY <<a.txt <<b.txt /\nx\na.txt\ny\nb.txt", [Heredoc("a.txt", "x\n", True), Heredoc("b.txt", "y\n", True)]),
        ("RUN echo $((1<<2)) '<<E' a<<E <<<E", []),
        ("ENV A=<<E", []),
        ("ONBUILD RUN <<E\na\nE", [Heredoc("E", "a\n", True)]),
    ],
)  # fmt: skip
def test_heredocs(text: str, heredocs: list[Heredoc]) -> None:
    assert list(parsed(text).instructions[0].heredocs) == heredocs


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("FROM a", From("a")),
        ("FROM --platform=linux/amd64 a:1 As Name", From("a:1", "name", "linux/amd64")),
        ("RUN a  b", Run(Command(("a  b",), True))),
        ('RUN ["a", "b c"]', Run(Command(("a", "b c"), False))),
        ("RUN ['a']", Run(Command(("['a']",), True))),
        ("RUN [ -e /x ] && y", Run(Command(("[ -e /x ] && y",), True))),
        (
            "RUN --mount=type=cache,target=/c,sharing=locked --network=none x",
            Run(
                Command(("x",), True),
                (Mount("cache", {"type": "cache", "target": "/c", "sharing": "locked"}),),
                "none",
            ),
        ),
        (
            "RUN --mount=dst=/a,src=b,readwrite x",
            Run(Command(("x",), True), (Mount("bind", {"target": "/a", "source": "b", "rw": "true"}),)),
        ),
        (
            "COPY --from=s --chown=a:b --chmod=644 --link x y /z/",
            Copy(("x", "y"), "/z/", False, "s", "a:b", "644"),
        ),
        ('ADD ["a b", "/c d"]', Copy(("a b",), "/c d", True)),
        ("COPY --exclude=*.md --exclude=x --parents a /",
         Copy(("a",), "/", False, parents=True, excludes=("*.md", "x"))),
        ("ENV A=1 B='x y'", Pairs("ENV", (("A", "1"), ("B", "'x y'")))),
        ("ENV A the rest=x", Pairs("ENV", (("A", "the rest=x"),))),
        ("ARG A B=2", Pairs("ARG", (("A", None), ("B", "2")))),
        ("HEALTHCHECK NONE", HealthCheck(None)),
        (
            "HEALTHCHECK --interval=1m30s --retries=2 CMD [\"x\"]",
            HealthCheck(Command(("x",), False), interval=90 * 10**9, retries=2),
        ),
        ("ONBUILD RUN <<E\na\nE", OnBuild("RUN <<E\na\nE")),
    ],
)  # fmt: skip
def test_instructions(text: str, what: Any) -> None:
    assert only(text) == what


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FRM a", "Containerfile:1: unknown instruction FRM (did you mean FROM?)\n    FRM a"),
        ("\n# x\nFROM a b", "Containerfile:3: FROM: write FROM IMAGE or FROM IMAGE AS NAME\n    FROM a b"),
        (
            "FROM a\nRUN x \\\n y\nCOPY a",
            "Containerfile:4: COPY: it needs at least one source and a destination",
        ),
        (
            "RUN --moun=x y",
            "Containerfile:1: RUN: unknown flag --moun; the flags are --mount, --network, --security",
        ),
        ("RUN --mount=type=ssh,sharing=x y", 'RUN: --mount=type=ssh has no field "sharing"'),
        ("RUN --mount=type=cache,traget=/x y", '--mount=type=cache has no field "traget"'),
        ("RUN --mount=type=cache y", "--mount=type=cache needs a target"),
        ("RUN --security=insecure x", "--security=insecure is not supported"),
        ("RUN --network=bridge x", "--network must be default, none or host, not bridge"),
        ("COPY <<E /x\nno end", 'Containerfile:1: the here-document "E" has no end'),
        ("COPY --from=${S} a /", "--from=${S}: variables are not allowed"),
        ("RUN --mount=from=$S,target=/x y", "--mount: from=$S: variables are not allowed"),
        ("ENV A", "A needs a value"),
        ("ENV A=1 B", '"B" is not NAME=VALUE'),
        ("EXPOSE", "EXPOSE needs an argument"),
        ("SHELL sh -c", "it needs a JSON list"),
        ("HEALTHCHECK --interval=5 CMD x", '--interval: "5" is not a duration such as 30s'),
        ("HEALTHCHECK sleep 1", "write CMD and a command, or NONE"),
        ("ONBUILD FROM x", "FROM is not allowed as a trigger"),
        ("# syntax=example.org/other:1\nFROM a", "the syntax example.org/other:1 needs another builder"),
        ("# escape=x\nFROM a", "the escape character must be"),
        ("# escape=`\n# escape=`\nFROM a", "Containerfile:2: the directive escape is given twice"),
        ("# nothing", "has no instructions"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    assert message in refusal(text)


def test_a_position_spans_continuations_and_heredocs() -> None:
    first, second = parsed("RUN a \\\n  b\nRUN <<E\nx\nE\n").instructions
    assert (first.place, second.place) == (
        Place("Containerfile", 1, 2, "RUN a \\"),
        Place("Containerfile", 3, 5, "RUN <<E"),
    )


ENV = {"a": "x.tar.gz", "empty": "", "path": "/usr/local/bin", "b": "b"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$a", "x.tar.gz"),
        ("${a}b$b", "x.tar.gzbb"),
        ("$a-$none.", "x.tar.gz-."),
        ("${none:-d}${empty:-d}${empty-d}${none-d}", "ddd"),
        ("${a:+y}${none:+y}${empty:+y}${empty+y}", "yy"),
        ("${none:-${a}}", "x.tar.gz"),
        ("${none:-'a b'}", "a b"),
        ("${a%.*}", "x.tar"),
        ("${a%%.*}", "x"),
        ("${a#*.}", "tar.gz"),
        ("${a##*.}", "gz"),
        ("${a/./-}", "x-tar.gz"),
        ("${a//./-}", "x-tar-gz"),
        ("${path/\\/usr/}", "/local/bin"),
        ("'$a'", "$a"),
        ('"$a"', "x.tar.gz"),
        ('"\\$a \\" \\\\ \\n"', '$a " \\ \\n'),
        ("\\$a", "$a"),
        ("a\\ b", "a b"),
        ("$", "$"),
        ("$$b", "$b"),
        ("cost $ 5", "cost $ 5"),
        ("$1$@", ""),
        ("end\\", "end\\"),
    ],
)
def test_words(text: str, result: str) -> None:
    assert expand(text, ENV) == result


def test_heredoc_words_keep_their_quotes() -> None:
    assert expand("\"$b\" '$b' \\$b \\d", ENV, quotes=False) == "\"b\" 'b' $b \\d"


@pytest.mark.parametrize(
    "text", ["${", "${a", "${a:", "${a:=x}", "${!a}", "'a", '"a', "${none:?must be set}", "${none?}"]
)
def test_invalid_words(text: str) -> None:
    with pytest.raises(WordError):
        expand(text, ENV)


def test_another_escape_character() -> None:
    assert expand("C:\\dir`$a ${b}", ENV, "`") == "C:\\dir$a b"


@given(st.text(alphabet="ab $\\'\"{}:-+?#%/", max_size=20))
def test_any_word_is_parsed_or_rejected(text: str) -> None:
    with contextlib.suppress(WordError):
        expand(text, ENV)


@given(st.text(alphabet="RUNCOPYFM abE<>-'\"\\\n#=[]", max_size=60))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    with contextlib.suppress(BuildError):
        found = parsed("FROM a\n" + text)
        for raw in found.instructions:
            instructions.read(raw, found.escape)
            assert raw.place.line <= raw.place.end
