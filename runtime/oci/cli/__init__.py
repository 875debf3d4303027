"""`kubelite-oci`: the engine as an OCI runtime command, in place of runc for podman, docker, containerd and by hand."""
