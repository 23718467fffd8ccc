"""The connection form, for versions of Airflow that ask a hook for it.

Such a version looks at a hook's own methods only, and not at those that it inherits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planasonix_provider.api.errors import THE_CONNECTION


def without_conn_id(message: str, conn_id: str) -> str:
    """Take the Airflow connection's id out of what the button "Test" shows: it tries the form under an id of its own.

    :param message: what is wrong.
    :param conn_id: the id.
    :return: the message about "the Airflow connection".
    """
    # There is no connection that would be another one than the form's.
    about_the_form = re.sub(rf"(?<!no )(?:the )?Airflow connection {re.escape(repr(conn_id))}", THE_CONNECTION, message)
    return about_the_form[:1].upper() + about_the_form[1:]


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
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import BooleanField, PasswordField, StringField

    def shown(label: str, description: str, schema: Mapping[str, Any]) -> Any:
        words = {"description": description, "default": schema.get("default")}
        if "boolean" in schema["type"]:
            return BooleanField(label, **words)
        # Without these widgets, Airflow 2 draws fields that are too narrow for what is in them.
        if schema.get("format") == "password":
            return PasswordField(label, widget=BS3PasswordFieldWidget(), **words)
        return StringField(label, widget=BS3TextFieldWidget(), **words)

    return {name: shown(**field) for name, field in described.items()}
