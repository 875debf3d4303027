"""Command lines as a shell reads them, as far as examples in help texts need it."""

from __future__ import annotations

import re
import shlex


def invocations(line: str, program: str) -> list[list[str]]:
    """The arguments of each call of `program` in a line: without redirections, pipes, `sudo` and assignments."""
    words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    words.whitespace_split = True
    commands: list[list[str]] = [[]]
    redirected = False
    for word in words:
        if set(word) <= set("<>"):
            redirected = True
        elif set(word) <= set("|&;<>()"):
            commands.append([])
        elif redirected:
            redirected = False
        else:
            commands[-1].append(word)
    found = []
    for command in commands:
        while command and (command[0] == "sudo" or re.match(r"\w+=", command[0])):
            command.pop(0)
        if command[:1] == [program]:
            found.append(command[1:])
    return found
