"""From an Airflow connection to a client of the Orchestration API."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from planasonix_provider import clock
from planasonix_provider.api import routes
from planasonix_provider.api.client import AsyncClient, Client
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import (
    PlanasonixAuthenticationError,
    PlanasonixConfigurationError,
    PlanasonixError,
    PlanasonixResponseError,
    PlanasonixTransportError,
)
from planasonix_provider.api.operations import Operations
from planasonix_provider.api.request import PREFIX
from planasonix_provider.api.retry import NO_RETRY, RetryPolicy
from planasonix_provider.get_provider_info import CONN_FIELDS, CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR
from planasonix_provider.hooks.connection_form import connection_form_widgets, ui_field_behaviour, without_conn_id
from planasonix_provider.hooks.connection_settings import ConnectionSettings, parse_connection
from planasonix_provider.hooks.shield import shielded
from planasonix_provider.hooks.waits import HookWait
from planasonix_provider.waiting.targets import BackfillTarget, JobTarget

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.providers.common.compat.sdk import Connection

    from planasonix_provider.api.models import Backfill, Job
    from planasonix_provider.api.request import Request

T = TypeVar("T")

log = logging.getLogger(__name__)
# A connection is read again and again while tasks wait; what is wrong with it is logged once in a process.
_logged_warnings: set[str] = set()

# On Airflow 2 every look at a job would be a line of httpx's in the task's log; Airflow 3 quiets httpx by itself.
if (httpx_log := logging.getLogger("httpx")).level == logging.NOTSET:
    httpx_log.setLevel(logging.WARNING)


class PlanasonixHook(BaseHook, Operations):
    """Calls Planasonix with what an Airflow connection says.

    Each route of the API is a method: blocking here (``hook.get_job(job_id)``), awaited on :attr:`aio`
    (``await hook.aio.get_job(job_id)``). :meth:`client` and :meth:`async_client` give what sends them, for whatever has
    no method. Use the hook in a ``with`` block where its connections are to be closed at once.

    A key that is refused is read again, once, for it may have been rotated since.

    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``. Its
        password is the API key; its host is needed only for dedicated tenants; its extra may hold ``organization_id``,
        ``web_url``, ``timeout`` (seconds), ``verify`` (a boolean or the path of a CA bundle) and ``allow_http``.
    :param policy: which failures of a request to try again, and for how long; the default is eight tries within two
        minutes.
    :param sleep: waits for a number of seconds between two tries of a request.
    """

    conn_name_attr = "planasonix_conn_id"
    default_conn_name = "planasonix_default"
    conn_type = CONNECTION_TYPE
    hook_name = HOOK_NAME

    def __init__(
        self,
        planasonix_conn_id: str = default_conn_name,
        *,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], None] = clock.sleep,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.planasonix_conn_id = planasonix_conn_id
        self._policy = policy
        self._sleep = sleep
        self._client: Client | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The connection is read again where the hook is unpickled, so the API key is in no pickle.
        kept = {name: value for name, value in self.__dict__.items() if name not in ("settings", "_log")}
        return kept | {"_client": None}

    @cached_property
    def settings(self) -> ConnectionSettings:
        """What the Airflow connection says, read once.

        :raises PlanasonixConfigurationError: if there is no such connection, or something in it makes no sense.
        :raises PlanasonixTransportError: if Airflow cannot give the connection.
        """
        with _connection_errors(self.planasonix_conn_id):
            connection = self.get_connection(self.planasonix_conn_id)
            extra = connection.extra_dejson
        return _read(connection, extra)

    async def async_settings(self) -> ConnectionSettings:
        """Read the Airflow connection without blocking the event loop, anew at each call.

        :return: what the connection says now.
        :raises PlanasonixConfigurationError: if there is no such connection, or something in it makes no sense.
        :raises PlanasonixTransportError: if Airflow cannot give the connection.
        """
        return await shielded(self._load_settings())

    async def _load_settings(self) -> ConnectionSettings:
        with _connection_errors(self.planasonix_conn_id):
            if _must_block():
                connection = await asyncio.to_thread(self.get_connection, self.planasonix_conn_id)
            else:
                connection = await get_async_connection(self.planasonix_conn_id)
            extra = await get_async_extra_dejson(connection)
        return _read(connection, extra)

    def reload(self) -> None:
        """Forget what the Airflow connection said, for it may have changed: keys are rotated while tasks wait."""
        self.close()
        self.__dict__.pop("settings", None)

    def config_source(self) -> Callable[[], ClientConfig]:
        """Say who asks, for whoever asks for long.

        :return: a function that gives the account: at its first call as it is known, at each further one as the Airflow
            connection has it by then.
        """
        is_known = False

        def account() -> ClientConfig:
            nonlocal is_known
            if is_known:
                self.reload()
            is_known = True
            return self.settings.client_config

        return account

    def client(self, policy: RetryPolicy | None = None) -> Client:
        """Make a client; use it in a ``with`` block.

        :param policy: which failures to try again, and for how long; the default is the hook's.
        :return: the client, which blocks.
        :raises PlanasonixConfigurationError: as :attr:`settings`, or if the address or the CA bundle cannot be used.
        """
        return Client(self.settings.client_config, policy or self._policy, sleep=self._sleep)

    async def async_client(self, policy: RetryPolicy | None = None) -> AsyncClient:
        """Make a client for asynchronous code; use it in an ``async with`` block.

        :param policy: which failures to try again, and for how long; the default is the hook's.
        :return: the client, whose methods are awaited.
        :raises PlanasonixConfigurationError: as :meth:`client`.
        """
        return AsyncClient((await self.async_settings()).client_config, policy or self._policy)

    def send(self, request: Request[T], policy: RetryPolicy | None = None) -> T:
        """Send a request, over a client that stays open until :meth:`close`.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :param policy: which failures to try again, and for how long; the default is the hook's.
        :return: what the answer holds.
        :raises PlanasonixError: one of its kinds.
        """
        client = self._open_client()
        try:
            return client.send(request, policy)
        except PlanasonixAuthenticationError:
            self.reload()
            if self.settings.client_config == client.config:
                raise
            return self._open_client().send(request, policy)

    def delay(self) -> float:
        """Say how long a request that can wait had better wait, since the rate limit of the key runs short.

        :return: the seconds; none while much of the limit is left, or nothing is known of it yet.
        """
        return self._client.rate_limiter.delay() if self._client else 0.0

    def _open_client(self) -> Client:
        if self._client is None:
            self._client = self.client()
        return self._client

    def close(self) -> None:
        """Close the client that the methods use; the next call opens another."""
        client, self._client = self._client, None
        if client:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def aio(self) -> AsyncHook:
        """The same methods, to be awaited."""
        return AsyncHook(self)

    def get_conn(self) -> Client:
        """Give what Airflow expects of every hook: the client.

        :return: the client, which blocks.
        """
        return self.client()

    def job_url(self, job_id: str) -> str:
        """Give the address of a job's page in the web app.

        :param job_id: the job.
        :return: the address.
        """
        return self.settings.job_url(job_id)

    def wait_for_job(
        self, job_id: str, *, poll_interval: float | timedelta = 10.0, timeout: float | timedelta | None = None
    ) -> Job:
        """Block until a job is over. An outage of up to an hour does not end the wait, and nothing is cancelled.

        :param job_id: the job.
        :param poll_interval: the time between two polls, in seconds or as a ``timedelta``, at least half a second;
            default 10 s.
        :param timeout: how long to wait, in seconds or as a ``timedelta``; default: until the job is over.
        :return: the job, which has succeeded.
        :raises ValueError: if a parameter makes no sense.
        :raises PlanasonixJobFailedError: if the job failed.
        :raises PlanasonixJobCancelledError: if the job was cancelled.
        :raises PlanasonixTimeoutError: if the job is not over in time.
        :raises PlanasonixError: of another kind, if the API refuses to tell or is away for more than an hour.
        """
        return cast("Job", HookWait(self, JobTarget(job_id), poll_interval, timeout).block(self._sleep))

    def wait_for_backfill(
        self, backfill_id: str, *, poll_interval: float | timedelta = 10.0, timeout: float | timedelta | None = None
    ) -> Backfill:
        """Block until a backfill is over, as :meth:`wait_for_job`.

        :param backfill_id: the backfill.
        :param poll_interval: the time between two polls, in seconds or as a ``timedelta``, at least half a second;
            default 10 s.
        :param timeout: how long to wait, in seconds or as a ``timedelta``; default: until the backfill is over.
        :return: the backfill, which is completed.
        :raises PlanasonixError: as :meth:`wait_for_job`.
        """
        return cast("Backfill", HookWait(self, BackfillTarget(backfill_id), poll_interval, timeout).block(self._sleep))

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection: the button "Test" in Airflow's form.

        :return: whether it works, and in words what it may do, or what is wrong and what to do.
        """
        try:
            with self:
                self.send(routes.list_jobs(limit=1), NO_RETRY)
                words = f"Connected to {self.settings.client_config.base_url}. The API key may read jobs."
                ignored = self.settings.unknown_keys_warning
                return True, f"{words} {without_conn_id(ignored, self.planasonix_conn_id)}" if ignored else words
        except PlanasonixResponseError as error:
            if error.status != 404:
                return False, without_conn_id(error.message, self.planasonix_conn_id)
            return False, (
                f"{self.settings.client_config.base_url} answers, but has no Orchestration API at {PREFIX}: the host "
                "of the Airflow connection, or a path in it, is wrong. Put the API's address there "
                "(https://api.planasonix.com or your tenant's own), not the web app's, and without /api/v1."
            )
        except PlanasonixError as error:
            # The form's button tries what it shows under an id that it makes up.
            return False, without_conn_id(error.message, self.planasonix_conn_id)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the form's standard fields, for Airflow before 3.2; later ones read the provider info.

        :return: what is hidden, renamed and hinted at.
        """
        return ui_field_behaviour(UI_FIELD_BEHAVIOUR)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's own fields, for Airflow before 3.2; later ones read the provider info.

        :return: a form field for each thing that the extra may hold.
        """
        return connection_form_widgets(CONN_FIELDS)


class AsyncHook(Operations):
    """A hook's methods, to be awaited; each call reads the Airflow connection and has a connection of its own.

    :param hook: says where the API is, and who asks.
    """

    def __init__(self, hook: PlanasonixHook) -> None:
        self._hook = hook

    async def send(self, request: Request[T]) -> T:
        """Send one request.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :return: what the answer holds.
        """
        async with await self._hook.async_client() as client:
            return await client.send(request)

    async def wait_for_job(
        self,
        job_id: str,
        *,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - the blocking method has it, too
    ) -> Job:
        """Wait until a job is over, as :meth:`PlanasonixHook.wait_for_job`.

        All waits in one event loop for one Airflow connection share a client and pages of the job lists.

        :param job_id: the job.
        :param poll_interval: as there.
        :param timeout: as there.
        :return: the job, which has succeeded.
        """
        return cast("Job", await HookWait(self._hook, JobTarget(job_id), poll_interval, timeout).wait())

    async def wait_for_backfill(
        self,
        backfill_id: str,
        *,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - the blocking method has it, too
    ) -> Backfill:
        """Wait until a backfill is over, as :meth:`PlanasonixHook.wait_for_backfill`.

        :param backfill_id: the backfill.
        :param poll_interval: as there.
        :param timeout: as there.
        :return: the backfill, which is completed.
        """
        return cast("Backfill", await HookWait(self._hook, BackfillTarget(backfill_id), poll_interval, timeout).wait())


def _read(connection: Connection, extra: dict[str, Any]) -> ConnectionSettings:
    settings = parse_connection(
        connection.conn_id,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        schema=connection.schema,
        extra=extra,
    )
    if settings.unknown_keys_warning and settings.unknown_keys_warning not in _logged_warnings:
        _logged_warnings.add(settings.unknown_keys_warning)
        log.warning("%s", settings.unknown_keys_warning)
    return settings


def _must_block() -> bool:
    """Say whether this process can ask Airflow something in a blocking way only.

    So it is for a trigger in ``dag.test()`` on Airflow 3. There Airflow 3.3.2 takes each connection that is in its
    database for one that does not exist, if it is asked without blocking.
    """
    task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    channel = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return channel is not None and not hasattr(channel, "asend")


def missing_connection_hint() -> str:
    """Return what to add about a missing connection in a process that does not see those in the database.

    :return: sentences with a space before them; nothing in a process that Airflow has started, and on Airflow 2.
    """
    task_runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    has_supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None) is not None
    if not AIRFLOW_V_3_0_PLUS or has_supervisor or os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server":
        return ""
    return (
        " But Airflow has not started this process, so Airflow 3 looks only in environment variables and in the "
        "secrets backend, and not in its metadata database. If the connection is in the database, run this code in a "
        "task, or set the environment variable."
    )


@contextmanager
def _connection_errors(conn_id: str) -> Iterator[None]:
    """Say which connection is missing and how to make it; tell that apart from an Airflow that does not answer."""
    try:
        yield
    except AirflowNotFoundException:
        raise PlanasonixConfigurationError(
            f"There is no Airflow connection {conn_id!r}, or none that can be read. Make it under Admin > Connections "
            f"(type Planasonix, with the API key){_environment_variable_hint(conn_id)}, or write it into a file for "
            f"`airflow connections import`.{missing_connection_hint()}"
        ) from None
    except Exception as fault:
        raise PlanasonixTransportError(
            f"Airflow could not give the Airflow connection {conn_id!r} ({type(fault).__name__}: {fault}). If it "
            "stays, look at the health of Airflow's API server, database or secrets backend.",
            sent=False,
        ) from fault


def _environment_variable_hint(conn_id: str) -> str:
    """Name the environment variable for a connection, unless a shell cannot set one of that name."""
    if not re.fullmatch(r"\w+", conn_id, re.ASCII):
        return ""
    return (
        f", or set AIRFLOW_CONN_{conn_id.upper()} for every process of Airflow to "
        '{"conn_type": "planasonix", "password": "<the API key>"}'
    )
