"""`kubelite-oci`: the engine as an OCI runtime command, a replacement for runc with podman, docker and containerd or by
hand."""
