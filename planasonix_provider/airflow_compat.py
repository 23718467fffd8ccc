"""Differences between Airflow versions and processes: variables, secrets backends, and what Airflow logs or shows."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

#: The loggers that write the messages of tasks at DEBUG: the supervisor's, and that of ``dag.test()``.
_MESSAGE_LOGGERS = ("supervisor", "airflow.sdk.execution_time")
#: The warning if ``partition_by`` is set before Airflow 3.3.
NO_PARTITIONS_WARNING = (
    "partition_by has no effect: asset partitions need Airflow 3.3. The asset events have no partition key."
)
_BUILT_IN_BACKENDS = {"EnvironmentVariablesBackend", "MetastoreBackend", "ExecutionAPISecretsBackend"}


def has_partitions() -> bool:
    """Return whether an asset event can have a partition key."""
    from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

    return get_base_airflow_version_tuple() >= (3, 3, 0)


def supervisor_channel() -> Any:
    """Return the channel by which a task or a trigger of Airflow 3 sends requests to Airflow; elsewhere ``None``."""
    return getattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS", None)


def is_task_without_database() -> bool:
    """Return whether this is a task of Airflow 3, which has only Airflow's API."""
    return supervisor_channel() is not None


def variable_class() -> Any:
    """Return the class ``Variable`` for this process: that of the API in a task of Airflow 3, else of the database."""
    if is_task_without_database():
        from airflow.providers.common.compat.sdk import Variable
    else:
        from airflow.models.variable import Variable
    return Variable


def database_session() -> AbstractContextManager[Session]:
    """Return a session of Airflow's database that is independent of the thread's own; it commits at the end."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
    from airflow.utils.session import create_session

    return create_session(scoped=False) if AIRFLOW_V_3_0_PLUS else create_session()


def find_overriding_backend(find: Callable[[Any], Any]) -> str | None:
    """Return the name of the first source that overrides Airflow's database, or ``None``.

    :param find: returns a backend's value, or ``None`` if the backend has none.
    """
    for backend in secrets_backends():
        name = type(backend).__name__
        if name not in ("MetastoreBackend", "ExecutionAPISecretsBackend") and _has_value(find, backend):
            is_environment = name == "EnvironmentVariablesBackend"
            return "the environment" if is_environment else f"the secrets backend {name}"
    return None


def secrets_backends() -> Sequence[Any]:
    """Return the secrets backends in the order in which Airflow asks them."""
    if is_task_without_database():
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

        return ensure_secrets_backend_loaded()
    from airflow.configuration import ensure_secrets_loaded

    return ensure_secrets_loaded()


def custom_secrets_backends() -> Sequence[Any]:
    """Return the secrets backends that are neither Airflow's database nor the environment."""
    return [backend for backend in secrets_backends() if type(backend).__name__ not in _BUILT_IN_BACKENDS]


def is_every_message_logged() -> bool:
    """Return whether the supervisor may log all messages of tasks at any log level, as in Airflow 3.0.

    Executors of Airflow 3.0 such as the LocalExecutor do not configure structlog, so the log level has no effect on the
    supervisor. A task cannot find out which executor runs it.
    """
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

    return AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS


def find_debug_log_setting() -> str | None:
    """Return the option of ``[logging]`` that makes the supervisor log all messages of tasks, or ``None``."""
    from airflow.providers.common.compat.sdk import conf

    level = conf.get("logging", "logging_level", fallback="INFO")
    if _is_debug(level):
        return f"logging_level is {level.strip().upper()}"
    for entry in re.split(r"[\s,]+", conf.get("logging", "namespace_levels", fallback="") or ""):
        namespace, _, level = entry.partition("=")
        if _is_debug(level) and any(_is_related(namespace, logger) for logger in _MESSAGE_LOGGERS):
            return f"namespace_levels has {entry}"
    return None


def _is_debug(level: str) -> bool:
    return level.strip().upper() in ("DEBUG", "NOTSET")


def _is_related(namespace: str, logger: str) -> bool:
    """Return whether a namespace is a logger, its parent or its child."""
    return f"{logger}.".startswith(f"{namespace}.") or namespace.startswith(f"{logger}.")


def is_variable_visible(name: str) -> bool:
    """Return whether Airflow's UI shows the secret in a variable that holds a JSON object. Airflow 3 never does."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if AIRFLOW_V_3_0_PLUS:
        return False
    masker = import_module("airflow.utils.log.secrets_masker")
    return not masker.should_hide_value_for_key(name)


def _has_value(find: Callable[[Any], Any], backend: Any) -> bool:
    try:
        return find(backend) is not None
    except Exception:
        # Airflow also skips a backend that fails.
        log.info("The secrets backend %s gave no answer, going on without it.", type(backend).__name__)
        return False
