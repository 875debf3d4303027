"""Streams of bytes through one HTTP connection: SPDY/3.1 and the protocols that Kubernetes' clients speak in it."""
