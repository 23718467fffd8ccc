"""The provider's metadata. The connection form of every Airflow version is made from it."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from planasonix_provider import __version__

DOCS_URL = "https://docs.planasonix.com/airflow/"
CONNECTION_TYPE = "planasonix"
HOOK_NAME = "Planasonix"
RECEIVER_CONNECTION_TYPE = "planasonix_webhook"
RECEIVER_HOOK_NAME = "Planasonix Webhook"


def _airflow_version() -> str | None:
    """Return the version of Airflow; ``None`` without Airflow, as in a registry of providers."""
    # Not airflow.__version__: importing Airflow calls this module before it is complete.
    for distribution in ("apache-airflow", "apache-airflow-core"):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return None


#: Whether the button "Test" answers "Bad Request" for each connection without a port.
_IS_PORT_NEEDED = _airflow_version() in ("3.3.1", "3.3.2")
_PORT_FOR_TEST = "Port (443; Test needs one)"

#: Changes to the standard fields of the connection form.
UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "schema", "extra"],
    "relabeling": {
        "password": "API key",
        "host": "Host (optional)",
        "port": _PORT_FOR_TEST if _IS_PORT_NEEDED else "Port (optional)",
    },
    "placeholders": {
        "password": "plnx_live_…",
        "host": "https://api.planasonix.com",
        "port": "443",
        "organization_id": "org_…",
        "web_url": "https://app.planasonix.com",
        "timeout": "30",
        "verify": "true",
    },
}

#: The form's fields for the extra, as the provider schema's ``conn-fields``.
CONN_FIELDS: dict[str, dict[str, Any]] = {
    "organization_id": {
        "label": "Organization ID",
        "description": "Sent as X-Organization-ID. Needed only if one API key serves several organisations.",
        "schema": {"type": ["string", "null"]},
    },
    "web_url": {
        "label": "Web app",
        "description": "The target of 'Open in Planasonix', for dedicated tenants. Default: https://app.planasonix.com",
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
        "description": "Whether to send the API key unencrypted to a host other than this machine. Default: false",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
}

#: The same for webhook receivers.
RECEIVER_UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["host", "login", "schema", "extra", *([] if _IS_PORT_NEEDED else ["port"])],
    "relabeling": {"password": "Signing secret", **({"port": _PORT_FOR_TEST} if _IS_PORT_NEEDED else {})},
    "placeholders": {
        "password": "whsec_… (or leave it empty, and say where it is kept)",
        "asset": "orders_ready",
        "kept_in": "variable:planasonix_webhook_secret",
        "previous_signing_secret": "",
        "events": "job.succeeded, backfill.completed",
        "partition_by": "day",
        "partition_timezone": "UTC",
        "partition_key_format": "%Y-%m-%dT%H:%M:%S",
    },
}

RECEIVER_CONN_FIELDS: dict[str, dict[str, Any]] = {
    "asset": {
        "label": "Asset",
        "description": "The name or the URI of the asset that each delivery is an event of. The URL for Planasonix is "
        "this Airflow's address with /planasonix/webhook/ and the id of this connection, for example "
        "https://airflow.example.com/planasonix/webhook/planasonix_orders.",
        "schema": {"type": ["string", "null"]},
    },
    "kept_in": {
        "label": "Secret kept in",
        "description": "The place where PlanasonixWebhookOperator stores the signing secret: its secret_to, "
        "variable:NAME or file:/absolute/path on each API server.",
        "schema": {"type": ["string", "null"]},
    },
    "previous_signing_secret": {
        "label": "Previous signing secret",
        "description": "Accepted in addition to the signing secret, while you rotate it by hand.",
        "schema": {"type": ["string", "null"], "format": "password"},
    },
    "events": {
        "label": "Events",
        "description": "The accepted events, separated by commas; others are ignored. Default: all",
        "schema": {"type": ["string", "null"]},
    },
    "partition_by": {
        "label": "Partition by",
        "description": "hour, day, week, month, quarter or year: the event of an ended job has the key of the "
        "partition in which it has ended, and starts only DAGs whose schedule is partitioned. Needs Airflow 3.3. "
        "Default: no partition keys",
        "schema": {"type": ["string", "null"]},
    },
    "partition_timezone": {
        "label": "Partition time zone",
        "description": "The time zone in which partitions start and end. Default: UTC",
        "schema": {"type": ["string", "null"]},
    },
    "partition_key_format": {
        "label": "Partition key format",
        "description": "The format of the partition keys, as for strftime. Default: %Y-%m-%dT%H:%M:%S",
        "schema": {"type": ["string", "null"]},
    },
}

#: The section of Airflow's configuration, as the provider schema's ``config``.
CONFIG: dict[str, dict[str, Any]] = {
    "planasonix": {
        "description": "Defaults of all tasks that use the Planasonix provider.",
        "options": {
            "outage_patience": {
                "description": "For how many seconds a task tolerates that Planasonix cannot be reached before it "
                "fails and leaves its job to a retry. Allowed: 60 to 604800.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "7200",
                "default": "3600",
            },
            "first_contact_patience": {
                "description": "For how many seconds a task tries a host that has never answered, which may be "
                "mistyped: no such host, connection refused, no TLS. Allowed: 1 to 3600.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "30",
                "default": "120",
            },
            "poll_interval": {
                "description": "The seconds between two polls of an operator that has no poll_interval of its own. "
                "Allowed: 0.5 to 86400. Sensors have Airflow's poke_interval.",
                "version_added": "0.1.0",
                "type": "float",
                "example": "30",
                "default": "10",
            },
            "cancel_on_kill": {
                "description": "Whether an operator that has no cancel_on_kill of its own cancels its work when its "
                "task is killed or out of time. Allowed: True or False.",
                "version_added": "0.1.0",
                "type": "boolean",
                "example": "False",
                "default": "True",
            },
        },
    }
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, as in Airflow's ``provider_info.schema.json``.

    The entry point ``apache_airflow_provider`` names this function.
    """
    integration = {"integration-name": "Planasonix"}
    assets = "planasonix_provider.assets.planasonix"
    asset_uris = [
        {
            "schemes": ["planasonix"],
            "handler": f"{assets}.sanitize_uri",
            "factory": f"{assets}.planasonix_asset",
            "to_openlineage_converter": f"{assets}.convert_asset_to_openlineage",
        }
    ]
    return {
        "package-name": "airflow-provider-planasonix",
        "name": "Planasonix",
        "description": "Start Planasonix syncs and backfills, wait for them, and report what they loaded.",
        # Airflow reads the version of the distribution instead; registries of providers require this list.
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "Planasonix",
                "external-doc-url": DOCS_URL,
                "logo": f"{DOCS_URL}_static/logo.svg",
                "tags": ["service"],
            }
        ],
        "hooks": [
            {
                **integration,
                "python-modules": [
                    "planasonix_provider.hooks.planasonix",
                    "planasonix_provider.hooks.webhook_receiver",
                ],
            }
        ],
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
            },
            {
                "connection-type": RECEIVER_CONNECTION_TYPE,
                "hook-class-name": "planasonix_provider.hooks.webhook_receiver.PlanasonixReceiverHook",
                "hook-name": RECEIVER_HOOK_NAME,
                "ui-field-behaviour": RECEIVER_UI_FIELD_BEHAVIOUR,
                "conn-fields": RECEIVER_CONN_FIELDS,
            },
        ],
        "asset-uris": asset_uris,
        # The key for Airflow 2.11.
        "dataset-uris": asset_uris,
        "extra-links": ["planasonix_provider.links.planasonix.PlanasonixJobLink"],
        "config": CONFIG,
        "cli": ["planasonix_provider.cli.commands.get_planasonix_cli_commands"],
    }
