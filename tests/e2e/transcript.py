"""Checks that ```console blocks of documents are true: each `$ command` is run, and its output is compared with the
text.

The text has real output. Values that differ between runs are recognized by their form. Pod uids, container ids,
addresses, inodes of namespaces and the like must be equal (or different) in the output exactly where they are in the
document; times, ages and sizes may have any value. Other numbers that vary (pids, interface indexes) are listed in an
invisible comment: `<!-- varies: 4711 4712 -->`. `…` stands for anything within a line; alone on a line, for any lines.

Words after ```console are requirements of the block (`v1`, `v2`, `nat`); a block whose requirements are not met is
skipped.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ANY_LINES = "\0"

#: Equal values must be equal in the output, different ones different.
IDENTITIES = {
    "uid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "digest": r"\b[0-9a-f]{64}\b",
    "short": r"\b(?!0{8})(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{12,16}\b",
    "mac": r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b",
    "address": r"\b10\.88\.(?!0\.[01]\b)\d+\.\d+\b",
    "interface": r"\bkl[0-9a-f]{13}\b",
    "inode": r"(?<=\[)4\d{9}(?=\])",  # 0xF0000000 and higher
}
#: Any value of this form.
FREE = {
    "time": r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
    "date": r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? [\w ]+ \d\d:\d\d:\d\d (?:\+0000|UTC)(?: \d{4})?",
    "epoch": r"\b1[5-9]\d{8}\.\d+\b",
    "duration": r"\+?\b\d+(?:\.\d+)?(?:ms|µs|us| ms| µs)(?=\s|$|,)|\b(?:\d+[dhms])+(?=\s|$|\)| )",
    "size": r"\b\d+(?:\.\d+)? ?(?:[KMG]i?B|kB|bytes)\b",
    "port": r"(?<=]:)\d{4,5}\b",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A command of a document and its expected output."""

    line: int
    command: str
    expected: str
    needs: frozenset[str]
    span: tuple[int, int]  # the position of the output in the text


def steps(text: str) -> Iterator[Step]:
    """The commands of a Markdown text, in order. A backslash at the end of a line continues a command."""
    for block in re.finditer(r"^```console([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        needs = frozenset(block[1].split())
        first = text.count("\n", 0, block.start(2)) + 1
        for found in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block[2], re.MULTILINE):
            span = (block.start(2) + found.start(2), block.start(2) + found.end(2))
            yield Step(first + block[2].count("\n", 0, found.start()), found[1], found[2], needs, span)


@dataclass(slots=True)
class Matcher:
    """Compares outputs with a document and remembers which value of the document corresponds to which real value."""

    varies: Collection[str] = ()
    known: dict[tuple[str, str], str] = field(default_factory=dict)  # (form, value in the text) → real value

    @classmethod
    def of(cls, text: str) -> Matcher:
        return cls(tuple(" ".join(re.findall(r"<!-- varies:(.*?)-->", text, re.DOTALL)).split()))

    def mismatch(self, expected: str, actual: str) -> str:
        """Return the first difference from the text, or ""."""
        pattern, names = self._pattern(expected.rstrip("\n"))
        found = re.fullmatch(pattern, "\n".join(line.rstrip() for line in actual.rstrip("\n").split("\n")))
        if found is None:
            return "the output is another"
        for group, (form, written) in names.items():
            value = found[group]
            for (other_form, other), real in self.known.items():
                if other_form == form and real == value and other != written:
                    return f"{written} and {other} are both {value}"
            self.known[form, written] = value
        return ""

    def _pattern(self, expected: str) -> tuple[str, dict[str, tuple[str, str]]]:
        forms = {**FREE, **IDENTITIES}
        if self.varies:
            forms["varying"] = "|".join(rf"(?<![\d.]){re.escape(v)}(?![\d.])" for v in self.varies)
        token = re.compile("|".join(f"(?P<{name}>{form})" for name, form in forms.items()))
        names: dict[str, tuple[str, str]] = {}
        made: list[str] = []
        for line in expected.split("\n"):
            if line.strip() == "…":
                made.append(ANY_LINES)
                continue
            parts, at = [], len(line) - len(line.lstrip(" "))
            for found in token.finditer(line):
                parts += [_literal(line[at : found.start()]), self._token(found, names)]
                at = found.end()
            made.append(r"[ \t]*" + "".join([*parts, _literal(line[at:].rstrip())]))
        joined = "\n".join(made)
        joined = joined.replace(f"\n{ANY_LINES}\n", r"\n(?:.*\n)*?")
        joined = joined.replace(f"\n{ANY_LINES}", r"(?:\n.*)*").replace(f"{ANY_LINES}\n", r"(?:.*\n)*?")
        return joined.replace(ANY_LINES, r"(?:.*\n?)*"), names

    def _token(self, found: re.Match[str], names: dict[str, tuple[str, str]]) -> str:
        form, written = str(found.lastgroup), found[0]
        if form in FREE:
            return f"(?:{FREE[form]})"
        if (form, written) in self.known:
            return re.escape(self.known[form, written])
        for group, name in names.items():
            if name == (form, written):
                return f"(?P={group})"
        group = f"g{len(names)}"
        names[group] = (form, written)
        return f"(?P<{group}>{IDENTITIES.get(form, '[0-9]+')})"


def _literal(text: str) -> str:
    """A pattern for literal text; columns may be wider or narrower."""
    parts = re.split(r"( +|…)", text)
    return "".join(
        ".*?" if part == "…" else r"[ \t]+" if part.startswith(" ") else re.escape(part) for part in parts
    )


class Shell:
    """A bash that runs one command after another and keeps variables between them."""

    def __init__(self, command: list[str], *, cwd: Path, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [*command, "bash", "--norc", "--noprofile"],
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def run(self, command: str) -> str:
        """Run a command. Return its output, including standard error."""
        assert self._process.stdin is not None and self._process.stdout is not None
        mark = "\1end\1"
        self._process.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '%s\\n' '{mark}'\n")
        self._process.stdin.flush()
        said = ""
        for line in self._process.stdout:
            said += line
            if said.endswith(f"{mark}\n"):
                return said.removesuffix(f"{mark}\n")
        raise AssertionError(f"the shell ended at: {command}\n{said}")

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(10)
