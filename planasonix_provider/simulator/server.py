"""The simulator as a server in a thread, for tests and the command line."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Literal, Self, Unpack

import uvicorn

from planasonix_provider.api.models import Backfill, Job, NewWebhook
from planasonix_provider.simulator.airflow_connection import airflow_connection
from planasonix_provider.simulator.api.fault_injection import ConnectionProtocol
from planasonix_provider.simulator.api.faults import Fault, Faults, Kind
from planasonix_provider.simulator.api.pipeline import RequestPipeline
from planasonix_provider.simulator.api.rate_limit import PerKeyRateLimit
from planasonix_provider.simulator.api.request_log import LoggedRequest
from planasonix_provider.simulator.app import create_app
from planasonix_provider.simulator.hosts import ANY_HOST, host_names
from planasonix_provider.simulator.model.clock_and_ids import Clock, Ids, random_id, utc_now
from planasonix_provider.simulator.model.plans import BackfillPlan, BackfillPlanChanges, Plan, PlanChanges
from planasonix_provider.simulator.model.workload import DEFAULT_KEEP
from planasonix_provider.simulator.webhooks.deliveries import SentDelivery
from planasonix_provider.simulator.webhooks.subscriptions import WebhookRequestBody
from planasonix_provider.simulator.webhooks.webhook_sender import WebhookSender
from planasonix_provider.simulator.workspace import API_KEY, Workspace

#: How long a connection may stay idle, in seconds. Uvicorn's default of 5 s is also that of httpx, and if both close a
#: connection at the same moment, a request fails without a planned fault.
KEEP_ALIVE = 75
#: How long the server's thread may take to start or stop, in seconds.
START_TIMEOUT = 60


class Simulator:
    """A Planasonix that listens on this machine while a ``with`` block runs.

    .. code-block:: python

        with Simulator() as planasonix:
            planasonix.plan("conn_demo_01", outcome="failed", code="source_unreachable")
            planasonix.fail("reset", route="trigger_sync", when="after")
            ...  # point Airflow at planasonix.airflow_connection()

    Every method may be called from any thread.

    :param job_seconds: how long a job runs without another plan, also one of a backfill; default 2.
    :param queued_seconds: how long a job or a backfill is queued; default 0.2.
    :param cancelling_seconds: how long a cancelled job takes to end; default 0.2.
    :param host: the address to listen on; default ``127.0.0.1``.
    :param port: the port to listen on; default 0, a free one.
    :param api_key: the key that exists from the start, with all scopes; default ``plnx_sim_local_key``.
    :param connections: more connections that exist from the start; default none.
    :param rate_limit: how many requests a key may send per minute; default 1,200.
    :param keep: how many ended jobs are kept, and how many finished deliveries; default 10,000. The oldest are removed
        first.
    :param clock: returns the time in UTC; default this machine's clock. Jobs, the rate limit and the header ``Date``
        follow it.
    :param ids: returns a new id with a prefix; random by default.
    :param state: the file in which all changes are stored, and from which they are restored; default none.
    :param airflow_url: the URL of Airflow 3, for links from jobs to the tasks that started them; default no links.
    :param allowed_hosts: host names that the simulator answers to, besides ``localhost``, IP addresses and ``host``;
        default none. Requests to other names are rejected, because a web page may have sent them.
    :param webhook_hosts: hosts that webhooks are delivered to, besides loopback addresses; ``*`` is every host.
        Default none.
    :param show_metadata: whether jobs and backfills are returned with the metadata that they were started with;
        default true. The setting of this name changes it later.
    :raises ValueError: if a value is not allowed, or the file was written with other parameters.
    :raises OSError: if the file cannot be read and written.
    """

    def __init__(
        self,
        *,
        job_seconds: float = 2.0,
        queued_seconds: float = 0.2,
        cancelling_seconds: float = 0.2,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = API_KEY,
        connections: Iterable[str] = (),
        rate_limit: int = 1200,
        keep: int = DEFAULT_KEEP,
        clock: Clock | None = None,
        ids: Ids | None = None,
        state: Path | None = None,
        airflow_url: str | None = None,
        allowed_hosts: Iterable[str] = (),
        webhook_hosts: Iterable[str] = (),
        show_metadata: bool = True,
    ) -> None:
        own_hosts = host_names("host", [host]) | host_names("allowed_hosts", allowed_hosts)
        receivers = set(webhook_hosts)
        receiver_hosts = None if ANY_HOST in receivers else host_names("webhook_hosts", receivers)
        plan = Plan(running_seconds=job_seconds, queued_seconds=queued_seconds, cancelling_seconds=cancelling_seconds)
        #: The simulated state, for what has no method here: ``start_sync``, ``configure``, ``keys``, ``webhooks``.
        self.workspace = Workspace(
            clock=clock or utc_now,
            ids=ids or random_id,
            api_key=api_key,
            connections=connections,
            default_plan=plan,
            keep=keep,
            state=state,
            show_metadata=show_metadata,
        )
        self.faults = Faults()
        self.rate_limit = PerKeyRateLimit(self.workspace.clock, rate_limit)
        self._app = create_app(
            self.workspace,
            faults=self.faults,
            rate_limit=self.rate_limit,
            airflow_url=airflow_url,
            allowed_hosts=own_hosts,
        )
        self._pipeline: RequestPipeline = self._app.state.pipeline
        self._webhook_sender = WebhookSender(self.workspace.webhooks, receiver_hosts)
        self._address = (host, port)
        self._server: _Server | None = None
        self._url: str | None = None

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server, and close its file."""
        self.stop()
        self.workspace.close()

    def start(self) -> None:
        """Start the server, and return when it answers.

        :raises OSError: if it cannot listen on its address.
        :raises RuntimeError: if it is already running.
        """
        if self._server is not None:
            raise RuntimeError("The simulator is already running.")
        listener = _listen(*self._address)
        host, port = listener.getsockname()[:2]
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._server = _Server(self._app, listener)
        self._server.start()
        self._webhook_sender.start()

    def stop(self) -> None:
        """Stop the server at once, and drop open connections. The state remains."""
        self._webhook_sender.stop()
        if self._server is not None:
            self._server.stop()
            self._server = self._url = None

    @property
    def url(self) -> str:
        """The server's URL.

        :raises RuntimeError: if it does not run.
        """
        if self._url is None:
            raise RuntimeError("The simulator does not run: use it in a with block, or call start().")
        return self._url

    @property
    def api_key(self) -> str:
        """The key that exists from the start."""
        return self.workspace.api_key

    @property
    def requests(self) -> list[LoggedRequest]:
        """The newest requests of the API, oldest first."""
        return self._pipeline.log.requests()

    def airflow_connection(self) -> dict[str, Any]:
        """Return the Airflow connection to this simulator, in the JSON form of ``AIRFLOW_CONN_PLANASONIX_DEFAULT``."""
        return airflow_connection(self.url, self.api_key)

    def plan(self, connection_id: str, *, times: int | None = 1, **changes: Unpack[PlanChanges]) -> Plan:
        """Plan the next syncs of a connection. Plans are used in the order in which they were made.

        :param connection_id: the connection.
        :param times: how many syncs, at most 10,000; default 1. ``None`` plans all syncs without another plan.
        :param changes: fields of :class:`~planasonix_provider.simulator.model.plans.Plan`.
        :return: the plan.
        :raises ValueError: if a name or a value is not allowed.
        :raises ApiError: if the connection does not exist.
        """
        return self.workspace.plan(connection_id, times=times, **changes)

    def plan_backfill(
        self, connection_id: str, *, times: int | None = 1, **changes: Unpack[BackfillPlanChanges]
    ) -> BackfillPlan:
        """Plan the next backfills of a connection. Plans are used in the order in which they were made.

        :param connection_id: the connection.
        :param times: how many backfills, at most 10,000; default 1. ``None`` plans all backfills without another plan.
        :param changes: fields of :class:`~planasonix_provider.simulator.model.plans.BackfillPlan`.
        :return: the plan.
        :raises ValueError: if a name or a value is not allowed.
        :raises ApiError: if the connection does not exist.
        """
        return self.workspace.plan_backfill(connection_id, times=times, **changes)

    def fail(
        self,
        kind: Kind,
        *,
        route: str = "*",
        times: int | None = 1,
        skip: int = 0,
        when: Literal["before", "after"] = "before",
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 30.0,
        fields: Mapping[str, Any] | None = None,
    ) -> Fault:
        """Make the next requests fail, as :class:`~planasonix_provider.simulator.api.faults.Fault` describes.

        :param kind: the effect.
        :param route: the route that fails; default ``*``, any route.
        :param times: how many requests fail; default 1, ``None`` is all.
        :param skip: how many requests succeed before the first one fails; default none.
        :param when: whether a request fails ``before`` (default) or ``after`` its effect.
        :param status: the HTTP status; by default that of the kind.
        :param headers: response headers; default none.
        :param seconds: how long a ``hang`` takes; default 30.
        :param fields: for ``odd``, the fields of the response that are added or replaced; default none.
        :return: the fault.
        :raises ValueError: if a value is not allowed.
        """
        fault = Fault(
            kind=kind,
            route=route,
            times=times,
            skip=skip,
            when=when,
            status=status,
            headers=dict(headers or {}),
            seconds=seconds,
            fields=dict(fields or {}),
        )
        self.faults.add(fault)
        return fault

    def job(self, job_id: str) -> Job:
        """Return a job as it is now."""
        return self.workspace.job(job_id)

    def jobs(self) -> list[Job]:
        """Return all jobs as they are now, newest first."""
        return self.workspace.jobs()

    def fail_job(self, job_id: str, *, code: str | None = None, message: str | None = None) -> Job:
        """Make an active job fail now.

        :param job_id: the job.
        :param code: the error code; by default that of its plan.
        :param message: the error message; by default it says that the job was made to fail.
        :return: the failed job.
        :raises ApiError: if the job does not exist, has ended or was cancelled.
        """
        return self.workspace.fail_job(job_id, code=code, message=message)

    def slow_job(self, job_id: str, seconds: float) -> Job:
        """Make an active job run longer: the rest of its work becomes slower.

        :param job_id: the job.
        :param seconds: how much longer it runs, in real seconds at any ``speed``.
        :return: the job as it is now.
        :raises ValueError: if that is not above 0, or more than a year together with earlier calls.
        :raises ApiError: if the job does not exist, has ended or was cancelled.
        """
        return self.workspace.slow_job(job_id, seconds)

    def backfill(self, backfill_id: str) -> Backfill:
        """Return a backfill as it is now."""
        return self.workspace.backfill(backfill_id)

    def backfills(self) -> list[Backfill]:
        """Return all backfills as they are now, newest first."""
        return self.workspace.backfills()

    def subscribe(self, url: str, events: Iterable[str], *, secret: str | None = None) -> NewWebhook:
        """Create a webhook subscription, as the API's route does.

        :param url: the receiver's URL: https, or http to this machine.
        :param events: the event types, such as ``job.succeeded``.
        :param secret: the signing secret; random by default.
        :return: the subscription with its secret.
        :raises ValueError: if a value is not allowed.
        """
        optional = {} if secret is None else {"secret": secret}
        return self.workspace.webhooks.create(WebhookRequestBody(url=url, events=list(events), **optional))

    def deliveries(self) -> list[SentDelivery]:
        """Return all webhook deliveries as they are now, newest first."""
        return self.workspace.webhooks.outbox.all()

    def reset(self) -> None:
        """Return to the initial state without plans and faults, while the server keeps running."""
        self._pipeline.reset()


class _Server(uvicorn.Server):
    """Uvicorn in a thread."""

    def __init__(self, app: Any, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=ConnectionProtocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )
        self._listener = listener
        self._ready = Event()
        self._thread = Thread(target=self._run, name="planasonix-simulator", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(START_TIMEOUT)
        if not self.started:
            raise RuntimeError(f"The simulator did not start within {START_TIMEOUT} s.")

    def stop(self) -> None:
        self.should_exit = True
        self._thread.join(START_TIMEOUT)
        if self._thread.is_alive():
            raise RuntimeError(f"The simulator did not stop within {START_TIMEOUT} s.")

    def _run(self) -> None:
        try:
            asyncio.run(self.serve(sockets=[self._listener]))
        finally:
            self._ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Uvicorn waits for open requests, and a fault may keep one open for minutes.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # asyncio sets TCP_NODELAY only on sockets with an explicit protocol. Without it, each response waits 40 ms for an
    # acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
