"""The pytest plugin. Every pytest run in an environment with this package loads it, so it imports only pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planasonix_provider.simulator import Simulator
    from planasonix_provider.testing import Planasonix


@pytest.fixture(scope="session")
def _planasonix_simulator() -> Iterator[Simulator]:
    try:
        from planasonix_provider.testing.planasonix import new_simulator
    except ModuleNotFoundError as error:
        if error.name != "time_machine":
            raise
        raise ImportError(
            f"The fixture planasonix needs {error.name}, which is not installed: pip install "
            "'airflow-provider-planasonix[testing]'.",
            name=error.name,
        ) from error
    with new_simulator() as running:
        yield running


@pytest.fixture
def planasonix(_planasonix_simulator: Simulator) -> Iterator[Planasonix]:
    """A Planasonix for this test alone; the Airflow connection ``planasonix_default`` leads to it.

    Waits take no real time. :class:`~planasonix_provider.testing.planasonix.Planasonix` describes the methods.
    """
    from planasonix_provider.testing.planasonix import use_simulator

    with use_simulator(_planasonix_simulator) as planasonix:
        yield planasonix
