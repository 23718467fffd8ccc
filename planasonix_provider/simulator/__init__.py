"""A local Planasonix, to develop and test DAGs without an account: ``python -m planasonix_provider.simulator``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planasonix_provider.simulator.api.faults import Fault
    from planasonix_provider.simulator.server import Simulator

__all__ = ["Fault", "Simulator"]


def __getattr__(name: str) -> Any:
    """Import lazily, because FastAPI and uvicorn are an extra."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from planasonix_provider.simulator import server
        from planasonix_provider.simulator.api import faults
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The simulator needs {error.name}, which is not installed: pip install "
            "'airflow-provider-planasonix[simulator]'.",
            name=error.name,
        ) from error
    return {"Fault": faults.Fault, "Simulator": server.Simulator}[name]
