"""Validates the parameters of a task: literals when the DAG is parsed, templates before the first request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowFailException
from jinja2 import UndefinedError

from planasonix_provider import validators

#: The template variables that a run without a logical date lacks.
DATE_VARIABLES = re.compile(r"'((prev_)?data_interval_(start|end)(_success)?|logical_date|[dt]s(_nodash)?(_with_tz)?)'")


class ValidatedParameters:
    """Mixin for operators and sensors."""

    #: The function that validates and converts each parameter.
    checks: ClassVar[Mapping[str, validators.Check]]
    #: The boolean parameters, which cannot be templates.
    flags: ClassVar[tuple[str, ...]] = ()

    def validate_literals(self) -> None:
        """Raise ``ValueError`` if a parameter without a template is invalid. Call it at the end of ``__init__``."""
        for name in self.flags:
            validators.flag(name, getattr(self, name))
        for name, check in self.checks.items():
            if not validators.is_templated(value := getattr(self, name)):
                check(name, value)
        self.validate_combination()

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        """Render the templates; fail without a retry if one needs the logical date of a run that has none.

        Airflow does not call this for a mapped task.
        """
        try:
            super().render_template_fields(context, jinja_env)  # type: ignore[misc]  # Airflow's base is beside this one
        except UndefinedError as error:
            missing = DATE_VARIABLES.search(str(error))
            if not missing or context["dag_run"].logical_date is not None:
                raise
            raise AirflowFailException(
                f"A template uses {missing[1]}, which this run does not have: it has no logical date, because an asset "
                "event or a trigger without a date has started it. Use dag_run.run_after in the template, or a param."
            ) from None

    def validate_rendered(self) -> None:
        """Replace each parameter by its converted value; fail without a retry if one is invalid."""
        try:
            for name, check in self.checks.items():
                setattr(self, name, check(name, getattr(self, name)))
            self.validate_combination()
        except ValueError as error:
            raise AirflowFailException(str(error)) from None

    def validate_combination(self) -> None:
        """Raise ``ValueError`` if the parameters contradict each other; some may still be templates."""
