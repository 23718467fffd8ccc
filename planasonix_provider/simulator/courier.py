"""The thread that notices what happens and posts it to those who subscribed; there is none where nobody did."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Event, Lock, Thread
from urllib.parse import urlsplit

from planasonix_provider.simulator.deliveries import Letter
from planasonix_provider.simulator.webhooks import Webhooks

#: How many seconds pass between two looks at what happened.
LOOK_EVERY = 0.05
#: How long a receiver may take to answer, in seconds.
PATIENCE = 5


class Courier:
    """Delivers between :meth:`start` and :meth:`stop`, while there are subscriptions.

    :param webhooks: the subscriptions.
    """

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._lock = Lock()
        self._is_on_duty = False
        self._rounds: _Rounds | None = None
        webhooks.on_subscribed = self.wake

    def start(self) -> None:
        """Deliver from now on."""
        with self._lock:
            self._is_on_duty = True
        self.wake()

    def stop(self) -> None:
        """Deliver nothing more; what is on its way is dropped, and comes again after the next start."""
        with self._lock:
            self._is_on_duty = False
            rounds, self._rounds = self._rounds, None
        if rounds is not None:
            rounds.stop()

    def wake(self) -> None:
        """Start the thread if it is needed and not there."""
        with self._lock:
            if self._is_on_duty and self._rounds is None and self._webhooks.are_any:
                self._rounds = _Rounds(self._webhooks, self._is_needed)
                self._rounds.start()

    def _is_needed(self, rounds: _Rounds) -> bool:
        with self._lock:
            if self._rounds is not rounds:
                return False
            if not self._webhooks.are_any:
                self._rounds = None
            return self._rounds is not None


class _Rounds(Thread):
    """One thread, from the first subscription to the end of the last."""

    def __init__(self, webhooks: Webhooks, is_needed: Callable[[_Rounds], bool]) -> None:
        super().__init__(name="planasonix-webhooks", daemon=True)
        self._webhooks = webhooks
        self._is_needed = is_needed
        self._stopped = Event()
        self._connection: HTTPConnection | None = None

    def run(self) -> None:
        outbox = self._webhooks.outbox
        while self._is_needed(self):
            self._webhooks.look()
            for parcel in outbox.due():
                letter = outbox.letter(parcel)
                if letter is None:
                    continue
                status, error = self._post(letter)
                if self._stopped.is_set():
                    return
                outbox.record(parcel, status, error)
            self._stopped.wait(outbox.rest(LOOK_EVERY))

    def stop(self) -> None:
        self._stopped.set()
        # A receiver that hangs must not keep whoever stops the simulator waiting.
        line = self._connection and self._connection.sock
        if line:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        self.join(2 * PATIENCE)

    def _post(self, letter: Letter) -> tuple[int | None, str | None]:
        """Post a letter. Redirects are not followed, and no proxy is asked: either could lead signed events astray."""
        parts = urlsplit(letter.url)
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection: HTTPConnection | None = None
        try:
            connection = self._connection = connect(parts.hostname or "", parts.port, timeout=PATIENCE)
            connection.connect()
            if self._stopped.is_set():
                return None, None
            connection.request("POST", target, letter.body, letter.headers)
            return connection.getresponse().status, None
        except (OSError, HTTPException, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            return None, reason.lower()
        finally:
            if connection is not None:
                connection.close()
