"""The command line: the table of commands, and the exit code and error message of every command.

`kubelite` is a thin client: it prints what the daemon answers over its socket. It imports a command's module only when
that command runs.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError, Exit
from kubelite.cli.groups import plain_flags

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFAULT_SOCKET = "/run/kubelite/kubelite.sock"

# Title of a group -> name -> (module, attribute, first line of its help). With the lines here, `kubelite --help` loads
# no module. A test compares them with the help of the commands.
GROUPS = {
    "Basic Commands": {
        "get": ("objects.get", "get", "List pods, events, volumes, manifests and other objects"),
        "describe": ("describe.command", "describe", "Show details of objects and their events"),
        "apply": ("objects.apply", "apply", "Validate manifests and write them to the manifest directory"),
        "run": ("create.run", "run", "Create a pod from an image"),
        "create": ("create.create", "create", "Create objects from files or from flags"),
        "expose": ("create.services", "expose", "Create a Service for the pods of an object"),
        "init": ("create.init", "init", "Write a first manifest with comments"),
        "delete": (
            "objects.delete",
            "delete",
            "Delete manifests from the directory, or pods, workloads and claims by name",
        ),
        "edit": ("objects.edit", "edit", "Edit the manifest of an object in an editor"),
        "autoscale": (
            "workloads.autoscale",
            "autoscale",
            "Let the number of pods of a workload follow what they use",
        ),
        "scale": ("workloads.scale", "scale", "Set the number of pods of a workload"),
        "set": ("workloads.set", "set_", "Change fields of an object in its manifest"),
        "label": ("workloads.label", "label", "Set or remove labels of objects"),
        "annotate": ("workloads.label", "annotate", "Set or remove annotations of objects"),
        "patch": ("workloads.patch", "patch", "Apply a patch to the manifest of an object"),
        "diff": ("objects.diff", "diff", "Show what applying a manifest would change"),
        "wait": ("objects.wait", "wait", "Wait for a condition of objects"),
        "rollout": (
            "objects.rollout",
            "rollout",
            "Restart pods, wait for them, or restore earlier manifests",
        ),
        "explain": ("objects.explain", "explain", "Describe the fields of a manifest"),
    },
    "Container Commands": {
        "logs": ("containers.logs", "logs", "Print the logs of containers"),
        "exec": ("containers.exec", "execute", "Run a command in a container"),
        "attach": ("containers.attach", "attach", "Attach to a running container"),
        "cp": ("containers.cp", "copy", "Copy files to and from containers"),
        "port-forward": ("containers.port_forward", "port_forward", "Forward local ports to a pod"),
        "debug": ("containers.debug", "debug", "Add a debugging container to a running pod"),
    },
    "Inspection Commands": {
        "top": ("containers.top", "top", "Show CPU and memory usage of pods, containers or the node"),
        "stats": ("containers.stats", "stats", "Show live resource usage of containers"),
        "ui": ("node.ui", "ui", "Show the node live in the terminal"),
        "events": ("objects.events", "events", "List events, the oldest first"),
        "history": (
            "diagnosis.history",
            "history",
            "Show past status changes, events and decisions of a pod",
        ),
        "why": ("diagnosis.why", "why", "Explain the state of a pod, a workload, a service or an ingress"),
        "net": (
            "diagnosis.net",
            "net",
            "Show the network of the node: Services, pods, and NetworkPolicies",
        ),
        "policy": ("diagnosis.policy", "policy", "Explain what NetworkPolicies allow"),
        "trace": ("diagnosis.trace", "trace", "Show the steps of a pod's start with their times"),
        "inspect": (
            "diagnosis.inspect",
            "inspect",
            "Print all information about a container, pod or image",
        ),
    },
    "Image Commands": {
        "build": ("build.build", "build", "Build an image from a Containerfile (Dockerfile)"),
        "images": ("images.images", "images", "List the images on this node"),
        "pull": ("images.pull", "pull", "Pull an image from a registry"),
        "push": ("images.push", "push", "Push an image to a registry"),
        "login": ("images.login", "login", "Log in to a registry"),
        "logout": ("images.logout", "logout", "Log out of a registry"),
        "load": ("images.load", "load", "Load images from an archive or an OCI layout"),
        "save": ("images.save", "save", "Save images to an archive or an OCI layout"),
        "tag": ("images.tag", "tag", "Add a name to an image"),
        "rmi": ("images.rmi", "rmi", "Remove images"),
        "image": ("images.image", "image", "Manage images"),
        "df": ("images.df", "df", "Show disk usage"),
    },
    "Node Commands": {
        "node": ("node.node", "node", "Label, taint, cordon or uncordon the node"),
        "drain": ("node.drain", "drain", "Cordon the node and evict its pods"),
        "cordon": ("node.node", "cordon", "Mark the node as unschedulable"),
        "uncordon": ("node.node", "uncordon", "Mark the node as schedulable"),
        "serve": ("node.serve", "serve", "Run the node"),
        "kubeconfig": ("node.kubeconfig", "kubeconfig", "Print a kubeconfig for kubectl and other clients"),
        "join": ("node.join", "join", "Make the running node a node of a Kubernetes cluster"),
        "leave": ("node.join", "leave", "Take the node out of its cluster"),
        "proxy": ("node.proxy", "proxy", "Serve the Kubernetes API on a loopback port, for kubectl"),
        "reset": ("node.reset", "reset", "Stop the node, and remove its pods and network"),
        "doctor": ("diagnosis.doctor", "doctor", "Check the node for problems"),
        "support-bundle": (
            "diagnosis.support_bundle",
            "support_bundle",
            "Collect diagnostic data in an archive",
        ),
    },
    "Other Commands": {
        "tour": ("tour.tour", "tour", "Show how containers work inside, on this node"),
        "api-resources": ("objects.api_resources", "api_resources", "List the object types of the API"),
        "version": ("node.version", "version", "Print the versions of the client and the daemon"),
        "completion": ("node.completion", "completion", "Print the completion script of a shell"),
    },
}
COMMANDS = {name: command for commands in GROUPS.values() for name, command in commands.items()}


class LazyGroup(click.Group):
    """Load subcommands by name from COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"kubelite.cli.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, (_, _, text) in commands.items()])
        formatter.write("\nUse `kubelite COMMAND --help` for the options and examples of a command.\n")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names, without loading the commands, or options."""
        from click.shell_completion import CompletionItem

        if incomplete[:1] == "-":
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=text)
            for name, (_, _, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"]:  # `help get`, as in git and kubectl
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click itself would exit with 1
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
    help=f"Path of the daemon's socket; also KUBELITE_SOCKET. [default: {DEFAULT_SOCKET}]",
)
@click.option(
    "--version", "show_version", is_flag=True, is_eager=True, help="Print the version of the client and exit."
)
@click.pass_context
def cli(ctx: click.Context, socket: str | None, show_version: bool) -> None:
    """kubelite runs pods from manifests in a directory, as a Kubernetes node does."""
    ctx.ensure_object(dict)
    ctx.obj["socket"] = socket or DEFAULT_SOCKET


def main() -> None:
    """Run the console script and return the exit code."""
    if sys.argv[1:] == ["--version"]:
        sys.argv[1:] = ["version", "--client"]
    _standard_streams()
    sys.exit(run())


def _standard_streams() -> None:
    """Open /dev/null in place of closed standard streams (as Go programs do), so that no connection gets their numbers.
    Print a question mark for characters that the locale cannot encode."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="replace")


#: commands whose arguments end with another program's command line → their first argument
_WITH_COMMAND = {
    "kubelite exec": "POD",
    "kubelite debug": "POD",
    "kubelite run": "IMAGE",
    "kubelite create deployment": "NAME",
    "kubelite create job": "NAME",
    "kubelite create cronjob": "NAME",
}


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
        ):  # a group without a subcommand: click 8.2 raises its help text
            return _say(error.format_message(), 2)
        path = error.ctx.command_path if error.ctx else "kubelite"
        if isinstance(error, click.NoSuchOption):
            return _say(_unknown_option(error, path), 2)
        return _say(f"error: {_sentence(error)}\nSee `{path} --help`.", 2)
    except click.ClickException as error:
        return _say(f"error: {error.format_message()}", error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        return _no_room(error)


def _unknown_option(error: click.NoSuchOption, path: str) -> str:
    from kubelite.cli.unknown_commands import option_elsewhere, unknown_option

    instead = option_elsewhere(path, error.option_name)
    words = instead or unknown_option(error.option_name, error.possibilities or ())
    if path in _WITH_COMMAND and not instead:
        where = f"{path} {_WITH_COMMAND[path]} -- COMMAND"
        return f"error: {words}; put the command and its options after --: {where}"
    return f"error: {words}\nSee `{path} --help`."


def _reader_gone() -> int:
    """The reader of our output (head, less) has exited: prevent an error from the interpreter's flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _no_room(error: OSError) -> int:
    """Report a file that cannot be read or written. Without a name, it is standard output (a full disk)."""
    if error.filename is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # flushing the rest would fail again at exit
    where = error.filename if error.filename is not None else "cannot write the output"
    return _say(f"error: {where}: {error.strerror or error}", 1)


def _code(result: Any) -> int:
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _say(text: str, code: int) -> int:
    sys.stdout.flush()
    from kubelite.cli.output.foreign import harmless

    print(harmless(text), file=sys.stderr)
    return code


def _sentence(error: click.UsageError) -> str:
    text = error.format_message()
    return text[:1].lower() + text[1:].rstrip(".")
