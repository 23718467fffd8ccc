"""Tasks whose parameters are checked: when the DAG is parsed where that is possible, else before any request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException

from planasonix_provider import parameters


class Checked:
    """What an operator or a sensor inherits besides Airflow's base."""

    #: How each parameter is checked, and put into its final form, when the task runs.
    checks: ClassVar[Mapping[str, parameters.Check]]
    #: The parameters that are true or false, and no templates.
    flags: ClassVar[tuple[str, ...]] = ()

    def check_known(self) -> None:
        """Refuse what makes no sense, as far as it is known when the DAG is parsed: the last line of ``__init__``.

        :raises ValueError: if a parameter without a template makes no sense.
        """
        for name in self.flags:
            parameters.flag(name, getattr(self, name))
        for name, check in self.checks.items():
            if not parameters.is_open(value := getattr(self, name)):
                check(name, value)
        self.check_together()

    def settle(self) -> None:
        """Check what the templates gave, and put each parameter into its final form: the first line of ``execute``.

        :raises AirflowFailException: if a parameter makes no sense.
        """
        try:
            for name, check in self.checks.items():
                setattr(self, name, check(name, getattr(self, name)))
            self.check_together()
        except ValueError as refusal:
            raise AirflowFailException(str(refusal)) from None

    def check_together(self) -> None:
        """Check what only makes sense or not beside other parameters; there may be templates among them.

        :raises ValueError: if it does not.
        """
