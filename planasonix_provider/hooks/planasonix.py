"""The hook for the Orchestration API of Planasonix."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import BaseHook

from planasonix_provider import clock
from planasonix_provider.api import routes
from planasonix_provider.api.client import AsyncClient, Client
from planasonix_provider.api.client_config import ClientConfig
from planasonix_provider.api.errors import PlanasonixAuthenticationError, PlanasonixError
from planasonix_provider.api.operations import Operations
from planasonix_provider.api.retry import NO_RETRY, RetryPolicy
from planasonix_provider.get_provider_info import CONN_FIELDS, CONNECTION_TYPE, HOOK_NAME, UI_FIELD_BEHAVIOUR
from planasonix_provider.hooks.connection_form import connection_form_widgets, ui_field_behaviour
from planasonix_provider.hooks.connection_lookup import lookup_errors, must_block
from planasonix_provider.hooks.connection_settings import ConnectionSettings, parse_connection
from planasonix_provider.hooks.connection_test import failure_message, success_message
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
# Connections are read many times while tasks wait; each warning is logged once per process.
_logged_warnings: set[str] = set()

# On Airflow 2, httpx would log each poll into the task's log. Airflow 3 sets this level itself.
if (httpx_log := logging.getLogger("httpx")).level == logging.NOTSET:
    httpx_log.setLevel(logging.WARNING)


class PlanasonixHook(BaseHook, Operations):
    """Calls the Orchestration API with the settings of an Airflow connection.

    Each route of the API is a method. It blocks on the hook itself (``hook.get_job(job_id)``) and is awaited on
    :attr:`aio` (``await hook.aio.get_job(job_id)``). :meth:`client` and :meth:`async_client` return clients, which can
    send any request. To close the hook's HTTP connections at once, use the hook in a ``with`` block.

    If the API refuses the key, the hook reads the Airflow connection again, once: the key may have been rotated.

    :param planasonix_conn_id: the Airflow connection, of the type Planasonix; default ``planasonix_default``. Its
        password is the API key; its host is needed only for dedicated tenants; its extra may contain
        ``organization_id``, ``web_url``, ``timeout`` (seconds), ``verify`` (a boolean or the path of a CA bundle) and
        ``allow_http``.
    :param policy: which errors to retry, and for how long; the default is eight tries within two minutes.
    :param sleep: waits the given number of seconds between two tries of a request.
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
        # Without the settings, which hold the API key: an unpickled hook reads its Airflow connection again.
        state = {name: value for name, value in self.__dict__.items() if name not in ("settings", "_log")}
        return state | {"_client": None}

    @cached_property
    def settings(self) -> ConnectionSettings:
        """The settings of the Airflow connection, read once.

        :raises PlanasonixConfigurationError: if there is no such connection, or a field is invalid.
        :raises PlanasonixTransportError: if Airflow does not return the connection.
        """
        with lookup_errors(self.planasonix_conn_id):
            connection = self.get_connection(self.planasonix_conn_id)
            extra = connection.extra_dejson
        return _parse(connection, extra)

    async def async_settings(self) -> ConnectionSettings:
        """Return the settings of the Airflow connection. Each call reads them, without blocking the event loop.

        :return: the current settings.
        :raises PlanasonixConfigurationError: if there is no such connection, or a field is invalid.
        :raises PlanasonixTransportError: if Airflow does not return the connection.
        """
        return await shielded(self._load_settings())

    async def _load_settings(self) -> ConnectionSettings:
        with lookup_errors(self.planasonix_conn_id):
            if must_block():
                connection = await asyncio.to_thread(self.get_connection, self.planasonix_conn_id)
            else:
                connection = await get_async_connection(self.planasonix_conn_id)
            extra = await get_async_extra_dejson(connection)
        return _parse(connection, extra)

    def reload(self) -> None:
        """Drop the cached settings, because keys are rotated while tasks wait."""
        self.close()
        self.__dict__.pop("settings", None)

    def config_source(self) -> Callable[[], ClientConfig]:
        """Return a callable that returns the client configuration, for long waits.

        :return: a callable: its first call returns the cached configuration, every later call rereads the Airflow
            connection.
        """
        is_first = True

        def client_config() -> ClientConfig:
            nonlocal is_first
            if not is_first:
                self.reload()
            is_first = False
            return self.settings.client_config

        return client_config

    def client(self, policy: RetryPolicy | None = None) -> Client:
        """Return a new blocking client; use it in a ``with`` block.

        :param policy: which errors to retry, and for how long; the default is the hook's.
        :return: the client.
        :raises PlanasonixConfigurationError: as :attr:`settings`, or if the URL or the CA bundle cannot be used.
        """
        return Client(self.settings.client_config, policy or self._policy, sleep=self._sleep)

    async def async_client(self, policy: RetryPolicy | None = None) -> AsyncClient:
        """Return a new client with awaited methods; use it in an ``async with`` block.

        :param policy: which errors to retry, and for how long; the default is the hook's.
        :return: the client.
        :raises PlanasonixConfigurationError: as :meth:`client`.
        """
        return AsyncClient((await self.async_settings()).client_config, policy or self._policy)

    def send(self, request: Request[T], policy: RetryPolicy | None = None) -> T:
        """Send a request with a client that stays open until :meth:`close`.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :param policy: which errors to retry, and for how long; the default is the hook's.
        :return: the parsed response.
        :raises PlanasonixError: one of its subclasses.
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
        """Return for how many seconds a request that is not urgent should wait, to save the key's rate limit.

        :return: the seconds; 0 if enough of the limit is left or the limit is unknown.
        """
        return self._client.rate_limiter.delay() if self._client else 0.0

    def _open_client(self) -> Client:
        if self._client is None:
            self._client = self.client()
        return self._client

    def close(self) -> None:
        """Close the client of the hook's methods; the next call opens a new one."""
        client, self._client = self._client, None
        if client:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def aio(self) -> AsyncHook:
        """The hook's methods, to be awaited."""
        return AsyncHook(self)

    def get_conn(self) -> Client:
        """Return a new client; Airflow expects this method of every hook.

        :return: the client.
        """
        return self.client()

    def job_url(self, job_id: str) -> str:
        """Return the URL of a job's page in the web app.

        :param job_id: the job.
        :return: the URL.
        """
        return self.settings.job_url(job_id)

    def wait_for_job(
        self, job_id: str, *, poll_interval: float | timedelta = 10.0, timeout: float | timedelta | None = None
    ) -> Job:
        """Block until a job has finished. The wait survives outages for as long as tasks do, and cancels nothing.

        :param job_id: the job.
        :param poll_interval: the time between two polls, in seconds or as a ``timedelta``, at least half a second;
            default 10 s.
        :param timeout: how long to wait, in seconds or as a ``timedelta``; default: no limit.
        :return: the succeeded job.
        :raises ValueError: if a parameter is invalid.
        :raises PlanasonixJobFailedError: if the job failed.
        :raises PlanasonixJobCancelledError: if the job was cancelled.
        :raises PlanasonixTimeoutError: if the job has not finished in time.
        :raises PlanasonixError: of another kind, if the API returns an error or is unavailable for too long.
        """
        return cast("Job", HookWait(self, JobTarget(job_id), poll_interval, timeout).block(self._sleep))

    def wait_for_backfill(
        self, backfill_id: str, *, poll_interval: float | timedelta = 10.0, timeout: float | timedelta | None = None
    ) -> Backfill:
        """Block until a backfill has finished, as :meth:`wait_for_job`.

        :param backfill_id: the backfill.
        :param poll_interval: the time between two polls, in seconds or as a ``timedelta``, at least half a second;
            default 10 s.
        :param timeout: how long to wait, in seconds or as a ``timedelta``; default: no limit.
        :return: the completed backfill.
        :raises PlanasonixError: as :meth:`wait_for_job`.
        """
        return cast("Backfill", HookWait(self, BackfillTarget(backfill_id), poll_interval, timeout).block(self._sleep))

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection: the button "Test" in Airflow's form.

        :return: whether it works; and what the key may do, or what is wrong and what to do.
        """
        try:
            with self:
                self.send(routes.list_jobs(limit=1), NO_RETRY)
                return True, success_message(self.settings, self.planasonix_conn_id)
        except PlanasonixError as error:
            # Without the settings, the error is about them.
            return False, failure_message(error, self.__dict__.get("settings"), self.planasonix_conn_id)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the changes to the form's standard fields, for Airflow before 3.2."""
        return ui_field_behaviour(UI_FIELD_BEHAVIOUR)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's fields for the extra, for Airflow before 3.2."""
        return connection_form_widgets(CONN_FIELDS)


class AsyncHook(Operations):
    """A hook's methods, to be awaited. Each call reads the Airflow connection and opens an HTTP connection.

    :param hook: the hook.
    """

    def __init__(self, hook: PlanasonixHook) -> None:
        self._hook = hook

    async def send(self, request: Request[T]) -> T:
        """Send a request.

        :param request: one of :mod:`planasonix_provider.api.routes`.
        :return: the parsed response.
        """
        async with await self._hook.async_client() as client:
            return await client.send(request)

    async def wait_for_job(
        self,
        job_id: str,
        *,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - as in the blocking method
    ) -> Job:
        """Wait until a job has finished, as :meth:`PlanasonixHook.wait_for_job`.

        All waits in one event loop for one Airflow connection share a client and the pages of the job lists.

        :param job_id: the job.
        :param poll_interval: as there.
        :param timeout: as there.
        :return: the succeeded job.
        """
        return cast("Job", await HookWait(self._hook, JobTarget(job_id), poll_interval, timeout).wait())

    async def wait_for_backfill(
        self,
        backfill_id: str,
        *,
        poll_interval: float | timedelta = 10.0,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - as in the blocking method
    ) -> Backfill:
        """Wait until a backfill has finished, as :meth:`PlanasonixHook.wait_for_backfill`.

        :param backfill_id: the backfill.
        :param poll_interval: as there.
        :param timeout: as there.
        :return: the completed backfill.
        """
        return cast("Backfill", await HookWait(self._hook, BackfillTarget(backfill_id), poll_interval, timeout).wait())


def _parse(connection: Connection, extra: dict[str, Any]) -> ConnectionSettings:
    settings = parse_connection(
        connection.conn_id,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        schema=connection.schema,
        extra=extra,
    )
    if (warning := settings.unknown_keys_warning) and warning not in _logged_warnings:
        _logged_warnings.add(warning)
        log.warning("%s", warning)
    return settings
