"""`kubelite doctor`: check the node for leftovers, missing parts and errors."""

from __future__ import annotations

import sys

import click

from kubelite.cli.errors import Exit
from kubelite.cli.groups import Command
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import print_json
from kubelite.cli.output.waiting import waiting


@click.command(
    cls=Command,
    examples="""
    # Check the node
    kubelite doctor

    # Repair the network and the images, with the content of all of them checked
    kubelite doctor --deep --repair
    """,
)
@click.option("--deep", is_flag=True, help="Compare the content of each image blob with its digest.")
@click.option("--repair", is_flag=True, help="Repair network and images first; pull damaged images again.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format.")
@socket_option
@click.pass_context
def doctor(ctx: click.Context, output: str | None, deep: bool, repair: bool) -> None:
    """Check the node for problems.

    Reports leftovers, missing parts and errors. The exit code is 1 if there is a problem.
    """
    if repair:
        for path in ("/kubelite/v1/repair", "/kubelite/v1/images/repair"):
            with waiting("repairing"):
                done = client(ctx).post(path, {"deep": deep})["done"]
            for sentence in done:
                print(f"repair: {sentence}", file=sys.stderr)
    with waiting("checking the node"):
        answer = client(ctx).get("/kubelite/v1/doctor", query={"deep": "true"} if deep else None)
    findings = answer["findings"]
    if output == "json":
        print_json({"findings": findings})
    else:
        for finding in findings:
            print(f"{finding['level']}: {finding['check']}: {finding['message']}")
            if finding.get("fix"):
                print(f"  fix: {finding['fix']}")
        if not findings:
            print("All is well.")
    if any(finding["level"] == "error" for finding in findings):
        raise Exit(1)
