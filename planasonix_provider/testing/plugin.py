"""The pytest plugin. Every pytest run of everybody who has this package loads it, so it imports nothing but pytest."""

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
        from planasonix_provider.testing.planasonix import simulator
    except ModuleNotFoundError as error:
        if error.name != "time_machine":
            raise
        raise ImportError(
            f"The fixture planasonix needs {error.name}, which is not installed: pip install "
            "'airflow-provider-planasonix[testing]'.",
            name=error.name,
        ) from error
    with simulator() as running:
        yield running


@pytest.fixture
def planasonix(_planasonix_simulator: Simulator) -> Iterator[Planasonix]:
    """A Planasonix for this test alone, with the Airflow connection ``planasonix_default`` leading to it.

    Whatever waits for it lets its hours pass at once. See
    :class:`~planasonix_provider.testing.planasonix.Planasonix` for how it is steered and what it tells.
    """
    from planasonix_provider.testing.planasonix import staged

    with staged(_planasonix_simulator) as planasonix:
        yield planasonix
