"""TLS trust and proxies: CA bundles, client certificates, and registries that bypass the proxy.

Trust comes from the system's bundle (OpenSSL's defaults, or SSL_CERT_FILE and SSL_CERT_DIR), or from certifi if the
machine has none. certs.d is read as in containers-certs.d(5) and docker. NO_PROXY may name networks, as in Go.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping, Sequence
from glob import escape, glob

from runtime.errors import ImageError

CERTS_D = ("/etc/containers/certs.d", "/etc/docker/certs.d")


def context(host: str, *, verify: bool, directories: Sequence[str] = CERTS_D) -> ssl.SSLContext:
    """The TLS context for a registry `host[:port]`. Raises ImageError if a certificate in certs.d cannot be read."""
    made = ssl.create_default_context()
    if not _system_has_cas():
        import certifi

        made.load_verify_locations(certifi.where())
    for directory in directories:
        _add_directory(made, os.path.join(directory, host))
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _system_has_cas() -> bool:
    paths = ssl.get_default_verify_paths()  # a path is None if it does not exist
    return bool(paths.cafile or (paths.capath and os.listdir(paths.capath)))


def _add_directory(made: ssl.SSLContext, directory: str) -> None:
    """Load a certs.d directory: *.crt are CA certificates, NAME.cert and NAME.key a client certificate."""
    for path in sorted(glob(f"{escape(directory)}/*")):
        try:
            if path.endswith(".crt"):
                made.load_verify_locations(path)
            elif path.endswith(".cert"):
                made.load_cert_chain(path, f"{path.removesuffix('.cert')}.key")
        except (OSError, ssl.SSLError) as error:
            raise ImageError(f"cannot use the certificate {path}: {error}") from error


def bypasses_proxy(host: str, environ: Mapping[str, str] | None = None) -> bool:
    """Whether NO_PROXY names the registry by an address or a network (10.0.0.0/8). httpx itself matches names."""
    environ = os.environ if environ is None else environ
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    for entry in (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
