"""The API's TLS port. It is open from the first `kubelite kubeconfig` on, and on each later start of the daemon. Pods
have one on their network, from the first pod on that uses the API.

A node whose API nobody asked for over TCP has no authority, no open port, and nothing of this imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.types import ASGIApp

from kubelite.api.accepting import BACKLOG
from kubelite.api.secure import certificates
from kubelite.api.secure.access import Secure, Site
from kubelite.api.secure.connection import Secured
from kubelite.api.server import serving
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from kubelite.settings import Settings
from kubelite.telemetry.web.tls import Certificates, Files, Handshakes
from runtime.errors import RuntimeFault

log = logging.getLogger(__name__)

LOOK = 6 * 3600.0  # seconds between looks at the age of the server's certificate
LOOK_AT_BRIDGE = 5.0  # seconds between looks at the bridge


class PodPort(NamedTuple):
    """How pods reach the API: the address of its Service, the address and port that the Service leads to, and whom to
    trust (PEM)."""

    service: str
    address: str
    number: int
    authority: str


class ApiPort:
    """Opens the port once, on demand. `audited` wraps the application in the audit log, if there is one.

    An address in use is an error of the request that opens the port, and an event of the node; the daemon goes on, and
    the next request tries again."""

    def __init__(
        self,
        settings: Settings,
        app: ASGIApp,
        node: Site,
        audited: Callable[[ASGIApp], ASGIApp],
        report: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._app = audited(Secure(app, node))
        self._report = report
        self._stack = contextlib.AsyncExitStack()
        self._pods = contextlib.AsyncExitStack()  # the listeners on the pod network
        self._bridge = 0  # the index of the bridge on which they listen
        self._opening = asyncio.Lock()
        self._port = self._pod_port = 0  # 0: not open
        self._service = first_address(settings.service_networks[0])
        self._renewing: asyncio.Future[None] | None = None
        self._directory = f"{settings.root}/pki"

    async def run(self) -> None:
        """Open the port. A failure is reported."""
        try:
            await self.open()
        except (OSError, RuntimeFault) as error:
            log.error("the API is not served over TLS: %s", error)
            self._report(f"The API is not served over TLS: {error}")

    async def close(self) -> None:
        await self._stack.aclose()
        await self._pods.aclose()

    async def kubeconfig(self, user: str, groups: list[str], seconds: float) -> Json:
        """Open the port and issue a certificate. Return as NodeApi says. Raises ApiError, RuntimeFault."""
        if not self._settings.api_address:
            raise _no_port()
        certificates.ask_for(self._directory)
        await self.open()  # first: it also makes the authority, one request at a time
        login = await certificates.issue(self._directory, user, groups, seconds)
        return {"server": f"https://{self._host}:{self._port}", **login._asdict()}

    async def authority(self) -> Json:
        """Return {"server": URL, "authority": PEM} without opening the port. A node without an authority makes one.
        Raises ApiError, RuntimeFault, OSError."""
        if not self._settings.api_address:
            raise _no_port()
        async with self._opening:
            certificates.for_pods(self._directory)
            await self._renew()
        port = self._port or self._address[1]
        return {
            "server": f"https://{self._host}:{port}",
            "authority": certificates.authority(self._directory),
        }

    @property
    def _address(self) -> tuple[str, int]:
        host, _, port = self._settings.api_address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def _host(self) -> str:
        host = self._address[0]
        if host in ("0.0.0.0", "::"):
            return "127.0.0.1"
        return f"[{host}]" if ":" in host else host

    async def open(self) -> None:
        """Open the port unless it is open. Raises RuntimeFault."""
        async with self._opening:
            if not self._port:
                self._port = await self._serve(self._stack, *self._address)
                log.info("the API is served over TLS", extra={"address": f"{self._host}:{self._port}"})

    async def open_to_pods(self, service: str) -> PodPort:
        """Open the port on the pod network unless it is open, and return how pods reach it. `service`: the address of
        the Service `kubernetes`. Raises RuntimeFault, OSError."""
        if not self._settings.api_address:
            raise RuntimeFault("the setting api_address is none", reason="NotSupported")
        if self._settings.network != "bridge":
            raise RuntimeFault(
                "the setting network is cni, and the node has no address of its own on it",
                reason="NotSupported",
            )
        host, port = self._address
        gateway = str(ipaddress.ip_network(self._settings.pod_networks[0])[1])
        everywhere = host in ("0.0.0.0", gateway)
        if everywhere:
            certificates.for_pods(self._directory)
            await self.open()
        async with self._opening:
            certificates.for_pods(self._directory)
            self._service = service
            await self._renew()  # its names contain the Service's address
            if not everywhere and not self._pod_port:
                await self._open_on_bridge(gateway, port)
                following = asyncio.ensure_future(self._follow_bridge(gateway, port))
                self._stack.callback(following.cancel)
            number = self._port if everywhere else self._pod_port
            return PodPort(service, gateway, number, certificates.authority(self._directory))

    async def _open_on_bridge(self, gateway: str, port: int) -> None:
        """Listen on the pod network. Raises RuntimeFault, OSError."""
        # Of packets to the gateway's address, those of pods come from the bridge, and those of the host itself from lo.
        # The port is closed to other machines, which may have a route to it.
        bridge = self._settings.bridge
        self._bridge = socket.if_nametoindex(bridge)  # first: a bridge that is replaced meanwhile is noticed
        self._pod_port = await self._serve(self._pods, gateway, port, bridge, "lo")

    async def _follow_bridge(self, gateway: str, port: int) -> None:
        """Listen anew when the bridge has been replaced, as its repair does: SO_BINDTODEVICE binds a socket to a
        device, not to its name. A failure is reported once, and tried again."""
        said = ""
        while True:
            await asyncio.sleep(LOOK_AT_BRIDGE)
            try:
                if socket.if_nametoindex(self._settings.bridge) == self._bridge:
                    continue
            except OSError:  # there is no bridge yet
                continue
            try:
                async with self._opening:
                    await self._pods.aclose()
                    await self._open_on_bridge(gateway, port)
            except (OSError, RuntimeFault) as error:
                self._bridge = 0
                if said != (said := str(error)):
                    log.error("the API is not served to pods on the new bridge: %s", error)
                    self._report(f"The API is not served to pods on the new bridge: {error}")
            else:
                said = ""
                log.warning("the API is served to pods on the bridge that has been made anew")

    async def _serve(self, owner: contextlib.AsyncExitStack, host: str, port: int, *devices: str) -> int:
        """Listen, on these devices alone if there are any, until `owner` is closed. Return the port. Raises
        RuntimeFault."""
        expires = await self._renew()
        async with contextlib.AsyncExitStack() as stack:
            listeners = []
            for device in devices or ("",):
                listener = self._listen(host, port, device)
                stack.callback(listener.close)
                listeners.append(listener)
                port = int(listener.getsockname()[1])
            handshakes = Handshakes(self._certificates())
            await stack.enter_async_context(
                serving(self._app, listeners, http=Secured, begin=handshakes.begin)
            )
            if self._renewing is None:
                self._renewing = asyncio.ensure_future(self._keep(expires))
                self._stack.callback(self._renewing.cancel)
            owner.push_async_exit(stack.pop_all())
        return port

    def _listen(self, host: str, port: int, device: str) -> socket.socket:
        with contextlib.ExitStack() as undo:
            try:
                listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
                undo.callback(listener.close)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if device:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
                if ":" in host:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((host, port))
                listener.listen(BACKLOG)
                listener.setblocking(False)
            except OSError as error:
                # getaddrinfo(3) has no errno
                reason = os.strerror(error.errno) if error.errno else str(error)
                remedy = "free the port, or set api_address to another one and restart the daemon"
                words = f"cannot listen on {host}:{port}: {reason}: {remedy}"
                raise RuntimeFault(words, reason="AddressInUse") from error
            undo.pop_all()
        return listener

    def _certificates(self) -> Certificates:
        files = Files(f"{self._directory}/server.pem", client_ca=f"{self._directory}/ca.crt")
        return Certificates(files, "the API")

    async def _renew(self) -> float:
        host, names = self._address[0], [*certificates.NAMES]
        domain, node = self._settings.cluster_domain, self._settings.node_name
        names += [f"kubernetes.default.svc.{domain}", node]
        gateway = str(ipaddress.ip_network(self._settings.pod_networks[0])[1])
        addresses = ["127.0.0.1", "::1", self._service, gateway]
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
            addresses += [host] if host not in ("0.0.0.0", "::") else []
        except OSError:
            names.append(host)
        return await certificates.renew_server(
            self._directory, list(dict.fromkeys(names)), list(dict.fromkeys(addresses))
        )

    async def _keep(self, expires: float) -> None:
        """Renew the server's certificate long before it expires. New connections use the new one."""
        while True:
            await asyncio.sleep(LOOK)
            if expires - time.time() < certificates.EARLY:
                try:
                    async with self._opening:
                        expires = await self._renew()
                except (RuntimeFault, OSError) as error:
                    log.error("the certificate of the API is not renewed: %s", error)


def _no_port() -> ApiError:
    words = "the setting api_address is none: set it to an address and a port, and restart the daemon"
    return ApiError("NotFound", words)


def first_address(network: str) -> str:
    """The address that the Service `kubernetes` has on a cluster."""
    return str(ipaddress.ip_network(network)[1])
