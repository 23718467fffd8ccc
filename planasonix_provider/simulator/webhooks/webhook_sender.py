"""The thread that sends webhook deliveries. It runs only while there are subscriptions."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from threading import Event, Lock, Thread
from urllib.parse import urlsplit

from planasonix_provider.simulator.hosts import host_name
from planasonix_provider.simulator.webhooks.deliveries import SignedRequest
from planasonix_provider.simulator.webhooks.registry import Webhooks
from planasonix_provider.validators import is_loopback

#: Seconds between two checks for state changes.
POLL_INTERVAL = 0.05
#: Seconds that a receiver has to respond.
SEND_TIMEOUT = 5


class RestrictedHTTPConnection(HTTPConnection):
    """An HTTP connection that opens only to loopback addresses and to ``hosts``; ``None`` allows every host."""

    def __init__(self, host: str, port: int | None, is_encrypted: bool, hosts: Collection[str] | None) -> None:
        # http.client leaves the default port out of the header Host.
        self.default_port = 443 if is_encrypted else 80
        super().__init__(host, port or self.default_port, timeout=SEND_TIMEOUT)
        self._is_encrypted = is_encrypted
        self._hosts = hosts

    def connect(self) -> None:
        """Connect to the first address of the host that accepts.

        The name is resolved once, because a second lookup could return an address that was not checked.
        """
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        is_allowed = self._hosts is None or host_name(self.host) in self._hosts
        if not is_allowed and not all(is_loopback(address) for address in addresses):
            raise OSError(
                f"webhooks are delivered to this machine only; to deliver to {self.host}, start the simulator with "
                f"--webhook-host {self.host}"
            )
        self.sock = self._first(addresses)
        if self._is_encrypted:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def _first(self, addresses: Sequence[str]) -> socket.socket:
        for address in addresses[:-1]:
            with suppress(OSError):
                return socket.create_connection((address, self.port), SEND_TIMEOUT)
        return socket.create_connection((addresses[-1], self.port), SEND_TIMEOUT)


class WebhookSender:
    """Sends deliveries between :meth:`start` and :meth:`stop`, to loopback addresses and to ``hosts``."""

    def __init__(self, webhooks: Webhooks, hosts: Collection[str] | None = ()) -> None:
        self._webhooks = webhooks
        self._hosts = hosts
        self._lock = Lock()
        self._is_started = False
        self._thread: _SenderThread | None = None
        webhooks.on_subscribed = self.wake

    def start(self) -> None:
        with self._lock:
            self._is_started = True
        self.wake()

    def stop(self) -> None:
        """Stop to send deliveries. The current one is aborted, and sent again after the next start."""
        with self._lock:
            self._is_started = False
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def wake(self) -> None:
        """Start the thread if there are subscriptions and it does not run."""
        with self._lock:
            if self._is_started and self._thread is None and self._webhooks.has_subscriptions:
                self._thread = _SenderThread(self._webhooks, self._hosts, self._is_needed)
                self._thread.start()

    def _is_needed(self, thread: _SenderThread) -> bool:
        with self._lock:
            if self._thread is not thread:
                return False
            if not self._webhooks.has_subscriptions:
                self._thread = None
            return self._thread is not None


class _SenderThread(Thread):
    """Runs from the first subscription to the end of the last."""

    def __init__(
        self, webhooks: Webhooks, hosts: Collection[str] | None, is_needed: Callable[[_SenderThread], bool]
    ) -> None:
        super().__init__(name="planasonix-webhooks", daemon=True)
        self._webhooks = webhooks
        self._hosts = hosts
        self._is_needed = is_needed
        self._stopped = Event()
        self._connection: RestrictedHTTPConnection | None = None

    def run(self) -> None:
        outbox = self._webhooks.outbox
        while self._is_needed(self):
            self._webhooks.advance()
            for delivery in outbox.due():
                request = outbox.signed_request(delivery)
                if request is None:
                    continue
                status, error = self._post(request)
                if self._stopped.is_set():
                    return
                outbox.record_attempt(delivery, status, error)
            self._stopped.wait(outbox.seconds_until_due(POLL_INTERVAL))

    def stop(self) -> None:
        self._stopped.set()
        # A receiver that hangs must not delay the end of the simulator.
        sock = self._connection and self._connection.sock
        if sock:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.join(2 * SEND_TIMEOUT)

    def _post(self, request: SignedRequest) -> tuple[int | None, str | None]:
        """Return the response's status or an error.

        Redirects are not followed and no proxy is used, because either could send signed events to other machines.
        """
        parts = urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection: RestrictedHTTPConnection | None = None
        try:
            connection = self._connection = RestrictedHTTPConnection(
                parts.hostname or "", parts.port, parts.scheme == "https", self._hosts
            )
            connection.connect()
            if self._stopped.is_set():
                return None, None
            connection.request("POST", target, request.body, request.headers)
            return connection.getresponse().status, None
        except (OSError, HTTPException, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            return None, reason.lower()
        finally:
            if connection is not None:
                connection.close()
