"""`kubelite init`: write a first manifest, whose comments explain it."""

from __future__ import annotations

import os
import sys

import click

from kubelite.cli.create.documents import name_of_image
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import complete_images

IMAGE = "docker.io/library/nginx:1.28"

_TEXT = """\
# A pod: one or more containers that share a network and volumes. `kubelite explain pod.spec` describes every field.
#
#   kubelite apply -f {file}
#       checks this file and writes it to the manifest directory: the pod starts
#   kubelite get pod {name}
#       shows its state; `kubelite why {name}` explains it, `kubelite logs -f {name}` shows its output
#   curl http://127.0.0.1:{host_port}/
#       asks its port for a page
#   kubelite diff -f {file}
#       shows, after an edit, what applying the file would change
#   kubelite delete -f {file}
#       ends the pod and removes it from the directory
#
# Lines with a # directly before the text are fields that are not used yet: remove the # to use them.
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  #namespace: default
  # Labels select pods: `kubelite get pods -l app={name}`
  labels:
    app: {name}
spec:
  containers:
    - name: {name}
      image: {image}
      # When the image is pulled: Always, IfNotPresent or Never. Without this line: Always for the tag `latest`,
      # otherwise IfNotPresent.
      #imagePullPolicy: IfNotPresent
      # The command replaces the image's entrypoint, and args its arguments.
      #command: ["/bin/sh", "-c"]
      #args: ["echo hello; exec sleep 1000"]
      #env:
      #  - name: LEVEL
      #    value: info
      #envFrom:
      #  - configMapRef:
      #      name: {name}
      #      optional: true
      ports:
        # hostPort publishes the container's port on this machine.
        - name: http
          containerPort: {port}
          hostPort: {host_port}
      resources:
        # What the scheduler reserves, and more than what the container cannot use.
        requests:
          cpu: 50m
          memory: 32Mi
        limits:
          memory: 128Mi
          #cpu: 500m
      # Until the readiness probe succeeds, the pod is not ready. A failing liveness probe restarts the container.
      readinessProbe:
        httpGet:
          path: /
          port: http
        periodSeconds: 5
      #livenessProbe:
      #  httpGet:
      #    path: /
      #    port: http
      #  periodSeconds: 10
      #volumeMounts:
      #  - name: scratch
      #    mountPath: /scratch
  #volumes:
  #  - name: scratch
  #    emptyDir: {{}}
  # Always, OnFailure or Never: whether a container that ends starts again.
  restartPolicy: Always
  # Seconds between SIGTERM and SIGKILL.
  terminationGracePeriodSeconds: 10
"""


@click.command(
    "init",
    cls=Command,
    examples="""
    # Write web.yaml, the manifest of a pod named web
    kubelite init web.yaml

    # Write the manifest of a pod with another image and port
    kubelite init api.yaml --image=localhost/api:1 --port=9000
    """,
)
@click.argument("file", type=click.Path(), default="hello.yaml", metavar="[FILE|-]")
@click.option("--name", default="", metavar="NAME", help="Name of the pod. [default: that of the file]")
@click.option(
    "--image",
    default=IMAGE,
    show_default=True,
    metavar="IMAGE",
    shell_complete=complete_images,
    help="Image of the container.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=80,
    show_default=True,
    metavar="PORT",
    help="Port that it serves.",
)
@click.option(
    "--host-port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    metavar="PORT",
    help="Port of this machine that leads to it.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def init(*, file: str, name: str, image: str, force: bool, **ports: int) -> None:
    """Write a first manifest with comments.

    The default FILE is hello.yaml in the current directory; - is standard output. Nothing runs until the manifest is
    applied.
    """
    stem = os.path.basename(file).rpartition(".")[0] or os.path.basename(file)
    name = name or name_of_image(stem) or "hello"
    shown = "hello.yaml" if file == "-" else file
    text = first_manifest(name, image, file=shown, **ports)
    if file == "-":
        sys.stdout.write(text)
        return
    try:
        with open(file, "w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise CliError(f"error: {file} exists: name another file, or overwrite it with --force") from None
    except OSError as error:
        raise CliError(f"error: cannot write {file}: {error.strerror}") from error
    print(f"wrote {file}")
    print(f"Edit it, then start the pod: kubelite apply -f {file}")


def first_manifest(name: str, image: str, *, file: str, port: int, host_port: int) -> str:
    """Return the manifest's text: a pod with one container, and common fields as comments."""
    return _TEXT.format(name=name, image=image, file=file, port=port, host_port=host_port)
