"""Documents whose ```console blocks are true: each `$ command` is run, and what it says is compared with the text.

The text holds real output. What differs from run to run is recognised by its form: a pod's uid, a container's id, an
address, a namespace's inode and the like must stay the same (or different!) *throughout the document*; times, ages and
sizes may be any. Numbers that only the author knows to vary (pids, interface indexes) are named in the text, in a
comment that nobody sees: `<!-- varies: 4711 4712 -->`. `…` stands for anything within a line, and alone for any lines.

Words after ```console name what the block needs (`v1`, `v2`, `nat`); a block whose needs are not there is left out.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ANY_LINES = "\0"

#: Always the same thing when written the same, and another when written otherwise.
IDENTITIES = {
    "uid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "digest": r"\b[0-9a-f]{64}\b",
    "short": r"\b(?!0{8})(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{12,16}\b",
    "mac": r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b",
    "address": r"\b10\.88\.(?!0\.[01]\b)\d+\.\d+\b",
    "interface": r"\bkl[0-9a-f]{13}\b",
    "inode": r"(?<=\[)4\d{9}(?=\])",  # 0xF0000000 and up: the more namespaces a machine has, the higher
}
#: Any of the form.
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
    """One command of a document and what the document says it prints."""

    line: int
    command: str
    expected: str
    needs: frozenset[str]
    span: tuple[int, int]  # where in the text the output stands


def steps(text: str) -> Iterator[Step]:
    """The commands of a Markdown text, in order. A command goes on over lines that end with a backslash."""
    for block in re.finditer(r"^```console([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        needs = frozenset(block[1].split())
        first = text.count("\n", 0, block.start(2)) + 1
        for found in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", block[2], re.MULTILINE):
            span = (block.start(2) + found.start(2), block.start(2) + found.end(2))
            yield Step(first + block[2].count("\n", 0, found.start()), found[1], found[2], needs, span)


@dataclass(slots=True)
class Matcher:
    """Compares outputs with a document's, and remembers which of its values stands for which."""

    varies: Collection[str] = ()
    known: dict[tuple[str, str], str] = field(default_factory=dict)  # (form, in the text) → what it really is

    @classmethod
    def of(cls, text: str) -> Matcher:
        return cls(tuple(" ".join(re.findall(r"<!-- varies:(.*?)-->", text, re.DOTALL)).split()))

    def mismatch(self, expected: str, actual: str) -> str:
        """What is not as the text says; "" when all is."""
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
    """Text as it stands; columns may be wider or narrower."""
    parts = re.split(r"( +|…)", text)
    return "".join(
        ".*?" if part == "…" else r"[ \t]+" if part.startswith(" ") else re.escape(part) for part in parts
    )


class Shell:
    """A bash that is told one command after another, and keeps variables between them."""

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
        """What the command prints, standard error included."""
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
