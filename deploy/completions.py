"""Completion scripts: `python -m deploy.completions DIRECTORY` writes them with their installed paths below share/.

The scripts of `kubelite` are click's and call the command; those of kubelite-oci are generated from its table of
commands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from kubelite.cli.node.completion import script
from runtime.oci.cli import help as oci
from runtime.oci.cli.options import COMMANDS, GLOBAL, SWITCH, Flags

#: shell → directory of its scripts below $PREFIX/share, and the name of a command's script
PLACES: Final = {
    "bash": ("bash-completion/completions", "{}"),
    "zsh": ("zsh/site-functions", "_{}"),
    "fish": ("fish/vendor_completions.d", "{}.fish"),
}
#: Commands whose first argument is an existing container.
_OF_CONTAINERS: Final = tuple(
    name for name, one in COMMANDS.items() if one.least == 1 and name not in ("create", "run")
)
_LIST: Final = "kubelite-oci list -q 2>/dev/null"


def bash() -> str:
    valued = "|".join(f"--{name}" for name, kind in GLOBAL.items() if kind is not SWITCH)
    cases = [f"        {name}) flags='{_words(one.flags)}' ;;" for name, one in COMMANDS.items()]
    return "\n".join(
        [
            "_kubelite_oci() {",
            "    local cur=${COMP_WORDS[COMP_CWORD]} command='' flags='' words='' i",
            "    for ((i = 1; i < COMP_CWORD; i++)); do",
            "        case ${COMP_WORDS[i]} in",
            f"        {valued}) ((i++)) ;;",
            "        -*) ;;",
            "        *) command=${COMP_WORDS[i]}; break ;;",
            "        esac",
            "    done",
            "    case $command in",
            f"        '') flags='{_words(GLOBAL)}' words='{' '.join(COMMANDS)}' ;;",
            *cases,
            "    esac",
            "    case $command in",
            f"        {'|'.join(_OF_CONTAINERS)}) words=$({_LIST}) ;;",
            "    esac",
            "    [[ $cur == -* ]] && words=$flags",
            '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")',
            "}",
            "complete -o default -F _kubelite_oci kubelite-oci",
            "",
        ]
    )


def zsh() -> str:
    lines = [
        "#compdef kubelite-oci",
        "",
        "_kubelite_oci() {",
        "    local -a commands containers",
        "    commands=(",
    ]
    lines += [f"        {_quoted(f'{name}:{one.help}')}" for name, one in COMMANDS.items()]
    lines += [
        "    )",
        "    local curcontext=$curcontext state line",
        "    typeset -A opt_args",
        "    _arguments -C \\",
    ]
    lines += [f"        {spec} \\" for spec in _specs("", GLOBAL)]
    lines += ["        '1:command:->command' '*::argument:->argument'", "    case $state in"]
    lines += ["    command) _describe command commands ;;", "    argument)", "        case $words[1] in"]
    for name, one in COMMANDS.items():
        ids = "'1:container:->container' " if name in _OF_CONTAINERS else ""
        specs = " ".join(_specs(name, one.flags))
        lines.append(f"        {name}) _arguments {specs} {ids}'*:argument:_files' ;;")
    lines += ["        esac", "        ;;", "    esac", "    if [[ $state == container ]]; then"]
    lines += [
        f'        containers=(${{(f)"$({_LIST})"}})',
        "        compadd -a containers",
        "    fi",
        "}",
        "",
    ]
    # autoloaded from fpath, this file is the function; sourced, it registers itself
    lines += ["if [[ $zsh_eval_context[-1] == loadautofunc ]]; then", '    _kubelite_oci "$@"']
    lines += ["else", "    compdef _kubelite_oci kubelite-oci", "fi", ""]
    return "\n".join(lines)


def fish() -> str:
    lines = []
    for name, kind in GLOBAL.items():
        lines.append(_fish("__fish_use_subcommand", "", name, kind, oci.GLOBAL_FLAGS[name].text))
    for name, one in COMMANDS.items():
        lines.append(
            f"complete -c kubelite-oci -n __fish_use_subcommand -f -a {name} -d {_quoted_fish(one.help)}"
        )
        seen = f"'__fish_seen_subcommand_from {name}'"
        lines += [_fish(seen, name, flag, kind, oci.FLAGS[flag].text) for flag, kind in one.flags.items()]
    of_containers = f"'__fish_seen_subcommand_from {' '.join(_OF_CONTAINERS)}'"
    lines.append(f"complete -c kubelite-oci -n {of_containers} -f -a '({_LIST})'")
    return "\n".join([*lines, ""])


def _words(flags: Flags) -> str:
    return " ".join(f"--{name}" for name in sorted(flags))


def _specs(command: str, flags: Flags) -> list[str]:
    """Flags as zsh's _arguments takes them."""
    about = oci.FLAGS if command else oci.GLOBAL_FLAGS
    found = []
    for name, kind in sorted(flags.items()):
        text = about[name].text
        for sign in "\\:[]":
            text = text.replace(sign, f"\\{sign}")
        value = "" if kind is SWITCH else f":{about[name].value}:_files"
        short = oci.short_of(command, name)
        found.append(_quoted(f"--{name}[{text}]{value}"))
        if short:
            found.append(_quoted(f"-{short}[{text}]{value}"))
    return found


def _fish(condition: str, command: str, name: str, kind: type, text: str) -> str:
    short = oci.short_of(command, name)
    flags = f"-l {name}{f' -s {short}' if short else ''}{'' if kind is SWITCH else ' -r'}"
    return f"complete -c kubelite-oci -n {condition} {flags} -d {_quoted_fish(text)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _quoted_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def scripts() -> dict[str, str]:
    """Path below share/ → script."""
    found = {}
    for shell, write in (("bash", bash), ("zsh", zsh), ("fish", fish)):
        place, name = PLACES[shell]
        found[f"{place}/{name.format('kubelite')}"] = script(shell).strip() + "\n"
        found[f"{place}/{name.format('kubelite-oci')}"] = write()
    return found


def main() -> None:
    for path, text in scripts().items():
        target = Path(sys.argv[1], path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
