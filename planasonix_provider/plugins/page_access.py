"""The permissions of a user on the page, from Airflow's auth manager. All methods block."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.providers.common.compat.sdk import conf

from planasonix_provider.plugins.permission_cache import PermissionCache


class PageAccess:
    """The permissions of a user. They are asked for with the same arguments as by Airflow's own routes.

    :param cache: the cache of permissions on single connections and DAGs; ``None`` asks each time.
    """

    def __init__(self, user: BaseUser, cache: PermissionCache | None = None) -> None:
        self._user = user
        self._cache = cache
        self._auth_manager = get_auth_manager()
        self._has_teams = conf.getboolean("core", "multi_team", fallback=False)

    @property
    def user_name(self) -> str:
        """The name of the user, for Airflow's audit log."""
        return str(self._user.get_name())

    def can_read_connections(self) -> bool:
        """Return whether the user may list Airflow connections."""
        return self._auth_manager.is_authorized_connection(method="GET", details=ConnectionDetails(), user=self._user)

    def readable_connections(self, conn_ids: Iterable[str]) -> set[str]:
        """Return the Airflow connections that the user may read."""
        return {conn_id for conn_id in conn_ids if self._is_connection_allowed("GET", conn_id)}

    def can_edit_connection(self, conn_id: str) -> bool:
        """Return whether the user may edit an Airflow connection."""
        return self._is_connection_allowed("PUT", conn_id)

    def readable_dags(self, dag_ids: Iterable[str]) -> set[str]:
        """Return the DAGs whose tasks the user may read."""
        return {dag_id for dag_id in dag_ids if self._is_dag_allowed("GET", dag_id)}

    def can_clear_tasks(self, dag_id: str) -> bool:
        """Return whether the user may clear the tasks of a DAG."""
        return self._is_dag_allowed("PUT", dag_id)

    def _is_connection_allowed(self, method: ResourceMethod, conn_id: str) -> bool:
        def ask() -> bool:
            team_name = Connection.get_team_name(conn_id) if self._has_teams else None
            details = ConnectionDetails(conn_id=conn_id, team_name=team_name)
            return self._auth_manager.is_authorized_connection(method=method, details=details, user=self._user)

        return self._cached("connection", method, conn_id, ask)

    def _is_dag_allowed(self, method: ResourceMethod, dag_id: str) -> bool:
        def ask() -> bool:
            details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id) if self._has_teams else None)
            return self._auth_manager.is_authorized_dag(
                method=method, access_entity=DagAccessEntity.TASK_INSTANCE, details=details, user=self._user
            )

        return self._cached("dag", method, dag_id, ask)

    def _cached(self, kind: str, method: ResourceMethod, name: str, ask: Callable[[], bool]) -> bool:
        return self._cache.get((self._user.get_id(), kind, method, name), ask) if self._cache else ask()
