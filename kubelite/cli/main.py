"""The command line: its commands by name, loaded when they are run, and how every command ends.

`kubelite` is a thin client: what it prints comes from the daemon over its socket. Nothing heavy is imported at the
start; a command's module is imported when that command is called.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

import click

from kubelite.cli.errors import CliError, Exit
from kubelite.cli.groups import plain_flags

DEFAULT_SOCKET = "/run/kubelite/kubelite.sock"

# name -> (module, attribute, one line of help); the help stands here so that `kubelite --help` loads no module
COMMANDS = {
    "get": (
        "objects.get",
        "get",
        "Show pods, events, configmaps, secrets, claims (pvc), namespaces, nodes, manifests",
    ),
    "describe": (
        "describe.command",
        "describe",
        "Show everything about a pod, the node, a claim, …, events at the end",
    ),
    "logs": ("containers.logs", "logs", "Print a container's log; -f follows over restarts and rotation"),
    "exec": ("containers.exec", "execute", "Run a command in a container"),
    "attach": ("containers.attach", "attach", "Follow a running container's output, and feed its stdin"),
    "cp": ("containers.cp", "copy", "Copy files into a container or out of it"),
    "port-forward": (
        "containers.port_forward",
        "port_forward",
        "Let ports of this machine lead to ports of a pod",
    ),
    "wait": ("objects.wait", "wait", "Wait until pods are Ready, gone, or as a JSONPath says"),
    "debug": ("containers.debug", "debug", "Add a container to a running pod, to look at it"),
    "apply": ("objects.apply", "apply", "Put manifests into the manifests directory"),
    "delete": ("objects.delete", "delete", "Take manifests out of the directory, or end a pod"),
    "edit": (
        "objects.edit",
        "edit",
        "Open a manifest in an editor, and put it back when nothing is wrong in it",
    ),
    "diff": ("objects.diff", "diff", "Say what applying a manifest would do, before it does"),
    "why": ("diagnosis.why", "why", "Say what was last seen of a pod, what was decided, and why"),
    "events": ("objects.events", "events", "Show what happened, in order"),
    "history": (
        "diagnosis.history",
        "history",
        "Show what became of a pod: status changes, events, decisions",
    ),
    "rollout": (
        "objects.rollout",
        "rollout",
        "Restart a manifest's pods, wait for them; its versions, and the way back to one",
    ),
    "trace": ("diagnosis.trace", "trace", "Show the start of a pod step by step, with times"),
    "inspect": (
        "diagnosis.inspect",
        "inspect",
        "Show all that is known of a container, pod or image as JSON",
    ),
    "top": ("containers.top", "top", "Show what pods, containers and the node use now"),
    "ui": ("node.ui", "ui", "Look at pods, containers and processes, live, in the whole terminal"),
    "stats": ("containers.stats", "stats", "Show what containers use, live"),
    "support-bundle": (
        "diagnosis.support_bundle",
        "support_bundle",
        "Gather what is needed to help into an archive",
    ),
    "doctor": ("diagnosis.doctor", "doctor", "Check the node: what is left over, missing or wrong"),
    "build": ("build.build", "build", "Build an image from a Containerfile (Dockerfile)"),
    "images": ("images.images", "images", "List the images on this node"),
    "pull": ("images.pull", "pull", "Get an image from its registry"),
    "login": ("images.login", "login", "Log in to a registry"),
    "logout": ("images.logout", "logout", "Forget a registry's login"),
    "load": ("images.load", "load", "Load an image from an archive (docker save, OCI) or an OCI layout"),
    "push": ("images.push", "push", "Send an image to a registry"),
    "save": ("images.save", "save", "Write images to an archive or an OCI layout"),
    "tag": ("images.tag", "tag", "Give an image one more name"),
    "rmi": ("images.rmi", "rmi", "Remove images that no container uses"),
    "image": (
        "images.image",
        "image",
        "Work with images: inspect, history, prune, mount, pack and all of the above",
    ),
    "df": ("images.df", "df", "Show what takes the disk's space"),
    "node": ("node.node", "node", "Give this node labels and taints, or keep new pods away (cordon)"),
    "serve": ("node.serve", "serve", "Run the node"),
    "reset": ("node.reset", "reset", "End the node: daemon, pods, network"),
    "api-resources": (
        "objects.api_resources",
        "api_resources",
        "List the types that `get` knows, as the API has them",
    ),
    "explain": ("objects.explain", "explain", "Show the fields that a manifest may have, and what they do"),
    "version": ("node.version", "version", "Print the version"),
    "completion": (
        "node.completion",
        "completion",
        "Print the shell's completion script: bash, zsh or fish",
    ),
}


class LazyGroup(click.Group):
    """Subcommands by name from COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"kubelite.cli.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"]:  # `help get`, as git and kubectl have it
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would leave with 1 itself
            raise Exit(_reader_gone()) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from kubelite.cli.unknown_commands import unknown_command

            raise click.UsageError(unknown_command(args[0], COMMANDS), ctx)
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, plain_flags(command, rest) if command is not None else rest


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--socket",
    envvar="KUBELITE_SOCKET",
    metavar="PATH",
    help=f"The daemon's socket (KUBELITE_SOCKET) [default: {DEFAULT_SOCKET}]",
)
@click.option("--version", "show_version", is_flag=True, is_eager=True, help="Print the version and leave.")
@click.pass_context
def cli(ctx: click.Context, socket: str | None, show_version: bool) -> None:
    """kubelite: a whole container node. Manifests in a directory become running containers."""
    ctx.ensure_object(dict)
    ctx.obj["socket"] = socket or DEFAULT_SOCKET


def main() -> None:
    """The console script: run, and turn every end into an exit code."""
    if sys.argv[1:] == ["--version"]:
        sys.argv[1:] = ["version", "--client"]
    _standard_streams()
    sys.exit(run())


def _standard_streams() -> None:
    """What is closed leads nowhere (as in any Go program), so that no connection gets its number; and what a terminal's
    locale has no sign for is a question mark."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="replace")


def run(arguments: list[str] | None = None) -> int:
    try:
        return _code(cli.main(args=arguments, prog_name="kubelite", standalone_mode=False))
    except CliError as error:
        return _say(str(error), error.code)
    except Exit as left:
        return left.code
    except click.exceptions.Exit as left:
        return left.exit_code
    except click.UsageError as error:
        if error.format_message().startswith(
            "Usage: "
        ):  # a group without a command: click 8.2 raises its help
            return _say(error.format_message(), 2)
        path = error.ctx.command_path if error.ctx else "kubelite"
        if isinstance(error, click.NoSuchOption) and path in ("kubelite exec", "kubelite debug"):
            return _say(
                f"error: {_sentence(error)}; the command's own stand behind --: {path} POD -- COMMAND", 2
            )
        return _say(f"error: {_sentence(error)}\nSee `{path} --help`.", 2)
    except click.ClickException as error:
        return _say(f"error: {error.format_message()}", error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        return _no_room(error)


def _reader_gone() -> int:
    """Whoever read us (head, less) has gone: keep the interpreter's own flush at exit from complaining."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _no_room(error: OSError) -> int:
    """A file that cannot be had or written; without a name it is what we print to (a full disk)."""
    if error.filename is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still unwritten would fail again at exit
    where = error.filename if error.filename is not None else "cannot write the output"
    return _say(f"error: {where}: {error.strerror or error}", 1)


def _code(result: Any) -> int:
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _say(text: str, code: int) -> int:
    sys.stdout.flush()
    print(text, file=sys.stderr)
    return code


def _sentence(error: click.UsageError) -> str:
    text = error.format_message()
    return text[:1].lower() + text[1:].rstrip(".")
