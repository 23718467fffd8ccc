"""The connection form for Airflow before 3.2. Later versions read it from the provider info.

Airflow only calls these methods if a hook's own class defines them, so the hooks cannot inherit them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from planasonix_provider.api.errors import THE_CONNECTION


def without_conn_id(message: str, conn_id: str) -> str:
    """Replace the connection's id by "the Airflow connection": the button "Test" uses a temporary id."""
    # "no Airflow connection 'x'" keeps the id, because it is not about the form's connection.
    text = re.sub(rf"(?<!no )(?:the )?Airflow connection {re.escape(repr(conn_id))}", THE_CONNECTION, message)
    return text[:1].upper() + text[1:]


def ui_field_behaviour(behaviour: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the provider info's ``ui-field-behaviour``."""
    return {name.replace("-", "_"): value for name, value in behaviour.items()}


def connection_form_widgets(conn_fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a form widget for each of the provider info's ``conn-fields``."""
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import BooleanField, PasswordField, StringField

    def widget(label: str, description: str, schema: Mapping[str, Any]) -> Any:
        options = {"description": description, "default": schema.get("default")}
        if "boolean" in schema["type"]:
            return BooleanField(label, **options)
        # Without these widgets, the fields of Airflow 2 are too narrow.
        if schema.get("format") == "password":
            return PasswordField(label, widget=BS3PasswordFieldWidget(), **options)
        return StringField(label, widget=BS3TextFieldWidget(), **options)

    return {name: widget(**field) for name, field in conn_fields.items()}
