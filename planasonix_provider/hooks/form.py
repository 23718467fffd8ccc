"""The connection form, for versions of Airflow that ask a hook for it.

Such a version looks at a hook's own methods only, and not at those that it inherits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ui_field_behaviour(described: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the form's standard fields, for Airflow before 3.2; later ones read the provider info.

    :param described: how the form treats them, as the provider info has it.
    :return: what is hidden, renamed and hinted at.
    """
    return {name.replace("-", "_"): value for name, value in described.items()}


def connection_form_widgets(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Describe the form's own fields, for Airflow before 3.2; later ones read the provider info.

    :param described: the fields, as the provider info has them.
    :return: a form field for each thing that the extra may hold.
    """
    from wtforms import BooleanField, PasswordField, StringField

    def kind(schema: Mapping[str, Any]) -> Any:
        if "boolean" in schema["type"]:
            return BooleanField
        return PasswordField if schema.get("format") == "password" else StringField

    return {
        name: kind(field["schema"])(
            field["label"], description=field["description"], default=field["schema"].get("default")
        )
        for name, field in described.items()
    }
