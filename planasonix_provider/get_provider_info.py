"""What Airflow learns about the package. Its table of the connection form is the only one, on every Airflow version."""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE = "planasonix"
HOOK_NAME = "Planasonix"

#: How the form treats Airflow's own fields.
UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "port", "schema", "extra"],
    "relabeling": {"password": "API key", "host": "Host (optional)"},
    "placeholders": {
        "password": "plnx_live_…",
        "host": "https://api.planasonix.com",
        "organization_id": "org_… (only for a key of several organisations)",
        "web_url": "https://app.planasonix.com",
        "timeout": "30",
        "verify": "true, or the path of a CA bundle",
    },
}

#: The form's fields for what the connection's extra may hold, in the shape of a provider's ``conn-fields``.
CONN_FIELDS: dict[str, dict[str, Any]] = {
    "organization_id": {
        "label": "Organization ID",
        "description": "Sent as X-Organization-ID. Needed only where one API key serves several organisations.",
        "schema": {"type": ["string", "null"]},
    },
    "web_url": {
        "label": "Web app",
        "description": "Where 'Open in Planasonix' leads, for dedicated tenants. Default: https://app.planasonix.com",
        "schema": {"type": ["string", "null"]},
    },
    "timeout": {
        "label": "Timeout (s)",
        "description": "Seconds to wait for the API's next bytes. Default: 30, and 5 to connect.",
        "schema": {"type": ["string", "null"]},
    },
    "verify": {
        "label": "Verify TLS",
        "description": "true, false, or the path of a CA bundle to trust instead. Default: true",
        "schema": {"type": ["string", "null"]},
    },
    "allow_http": {
        "label": "Allow plain http",
        "description": "Lets the API key travel unencrypted to hosts other than this machine. Default: false",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
}


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow; the entry point ``apache_airflow_provider`` names this function.

    :return: the provider's metadata, as Airflow's ``provider_info.schema.json`` has it.
    """
    integration = {"integration-name": "Planasonix"}
    return {
        "package-name": "airflow-provider-planasonix",
        "name": "Planasonix",
        "description": (
            "Start `Planasonix <https://planasonix.com>`__ syncs and backfills, wait for them, and account for them."
        ),
        "integrations": [
            {
                "integration-name": "Planasonix",
                "external-doc-url": "https://planasonix.com",
                "tags": ["service"],
            }
        ],
        "hooks": [{**integration, "python-modules": ["planasonix_provider.hooks.planasonix"]}],
        "operators": [{**integration, "python-modules": ["planasonix_provider.operators.planasonix"]}],
        "sensors": [{**integration, "python-modules": ["planasonix_provider.sensors.planasonix"]}],
        "triggers": [{**integration, "python-modules": ["planasonix_provider.triggers.planasonix"]}],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": "planasonix_provider.hooks.planasonix.PlanasonixHook",
                "hook-name": HOOK_NAME,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONN_FIELDS,
            }
        ],
        "extra-links": ["planasonix_provider.links.planasonix.PlanasonixJobLink"],
        "cli": ["planasonix_provider.cli.definition.get_planasonix_cli_commands"],
    }
