"""`kubelite doctor`: check the node for leftovers, losses and faults."""

from __future__ import annotations

import sys

import click

from kubelite.cli.errors import Exit
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import print_json


@click.command()
@click.option("--deep", is_flag=True, help="Read every blob of the images and compare it with its digest.")
@click.option(
    "--repair", is_flag=True, help="First mend the image store; what cannot be mended is pulled again."
)
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")
@socket_option
@click.pass_context
def doctor(ctx: click.Context, output: str | None, deep: bool, repair: bool) -> None:
    """Check the node's invariants: what is left over, missing or wrong. Exit code 1 when something is."""
    if repair:
        for sentence in client(ctx).post("/kubelite/v1/images/repair", {"deep": deep})["done"]:
            print(f"repair: {sentence}", file=sys.stderr)
    findings = client(ctx).get("/kubelite/v1/doctor", query={"deep": "true"} if deep else None)["findings"]
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
