"""Tasks whose parameters are checked: when the DAG is parsed where that is possible, else before any request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException
from jinja2 import UndefinedError

from planasonix_provider import validators

#: The template variables that a run without a logical date does not have.
DATED = re.compile(r"'((prev_)?data_interval_(start|end)(_success)?|logical_date|[dt]s(_nodash)?(_with_tz)?)'")


class ValidatedParameters:
    """What an operator or a sensor inherits besides Airflow's base."""

    #: How each parameter is checked, and put into its final form, when the task runs.
    checks: ClassVar[Mapping[str, validators.Check]]
    #: The parameters that are true or false, and no templates.
    flags: ClassVar[tuple[str, ...]] = ()

    def validate_literals(self) -> None:
        """Refuse what makes no sense, as far as it is known when the DAG is parsed: the last line of ``__init__``.

        :raises ValueError: if a parameter without a template makes no sense.
        """
        for name in self.flags:
            validators.flag(name, getattr(self, name))
        for name, check in self.checks.items():
            if not validators.is_templated(value := getattr(self, name)):
                check(name, value)
        self.validate_combination()

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render the templates, as Airflow asks for; not called for a mapped task.

        :param context: the task's context, from Airflow.
        :param jinja_env: the environment to render in; default: the DAG's.
        :raises AirflowFailException: if a template uses the logical date, or the data interval, of a run without one.
        """
        try:
            super().render_template_fields(context, jinja_env)  # type: ignore[misc]  # Airflow's base is beside this one
        except UndefinedError as error:
            missing = DATED.search(str(error))
            if not missing or context["dag_run"].logical_date is not None:
                raise
            raise AirflowFailException(
                f"A template uses {missing[1]}, which this run does not have: it has no logical date, because an asset "
                "event or a trigger without a date has started it. Use dag_run.run_after in the template, or a param."
            ) from None

    def validate_rendered(self) -> None:
        """Check what the templates gave, and put each parameter into its final form: the first line of ``execute``.

        :raises AirflowFailException: if a parameter makes no sense.
        """
        try:
            for name, check in self.checks.items():
                setattr(self, name, check(name, getattr(self, name)))
            self.validate_combination()
        except ValueError as refusal:
            raise AirflowFailException(str(refusal)) from None

    def validate_combination(self) -> None:
        """Check what only makes sense or not beside other parameters; there may be templates among them.

        :raises ValueError: if it does not.
        """
