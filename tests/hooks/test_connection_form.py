"""The connection forms. Airflow versions read them in different ways; all are built from one table of fields."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

from planasonix_provider.api.errors import PlanasonixError
from planasonix_provider.get_provider_info import (
    CONN_FIELDS,
    RECEIVER_CONN_FIELDS,
    RECEIVER_UI_FIELD_BEHAVIOUR,
    UI_FIELD_BEHAVIOUR,
    get_provider_info,
)
from planasonix_provider.hooks.planasonix import PlanasonixHook
from planasonix_provider.hooks.webhook_receiver import PlanasonixReceiverHook
from tests.hooks.conftest import Connect
from tests.support.other_process import result_of

both_hooks = pytest.mark.parametrize(
    ("hook", "conn_fields", "behaviour"),
    [
        (PlanasonixHook, CONN_FIELDS, UI_FIELD_BEHAVIOUR),
        (PlanasonixReceiverHook, RECEIVER_CONN_FIELDS, RECEIVER_UI_FIELD_BEHAVIOUR),
    ],
    ids=["API", "receiver"],
)


@both_hooks
def test_the_provider_info_contains_the_table(hook: Any, conn_fields: Any, behaviour: Any) -> None:
    types = {described["connection-type"]: described for described in get_provider_info()["connection-types"]}
    described = types[hook.conn_type]
    assert described["hook-name"] == hook.hook_name
    assert described["hook-class-name"] == f"{hook.__module__}.{hook.__qualname__}"
    assert described["ui-field-behaviour"] is behaviour
    assert described["conn-fields"] is conn_fields


@both_hooks
def test_the_standard_fields_are_those_of_the_table(hook: Any, conn_fields: Any, behaviour: Any) -> None:
    assert hook.get_ui_field_behaviour() == {
        "hidden_fields": behaviour["hidden-fields"],
        "relabeling": behaviour["relabeling"],
        "placeholders": behaviour["placeholders"],
    }


@both_hooks
def test_the_widgets_are_those_of_the_table(hook: Any, conn_fields: Any, behaviour: Any) -> None:
    wtforms = pytest.importorskip("wtforms", reason="this Airflow draws its forms without wtforms")
    widgets = hook.get_connection_form_widgets()
    assert list(widgets) == list(conn_fields)
    for name, field in conn_fields.items():
        kind = "Boolean" if field["schema"]["type"] == ["boolean", "null"] else "String"
        # A secret is typed into a field that hides it.
        kind = "Password" if field["schema"].get("format") == "password" else kind
        widget = {"Boolean": None, "String": "BS3TextFieldWidget", "Password": "BS3PasswordFieldWidget"}[kind]
        assert widgets[name].field_class is getattr(wtforms, f"{kind}Field")
        assert widgets[name].args == (field["label"],)
        assert widgets[name].kwargs["description"] == field["description"]
        assert widget is None or type(widgets[name].kwargs["widget"]).__name__ == widget


def test_the_hook_reads_every_field(connect: Connect) -> None:
    for name in CONN_FIELDS:
        hook = PlanasonixHook(connect(host="http://10.0.0.1", extra={"allow_http": True, name: ["no", "sense"]}))
        with pytest.raises(PlanasonixError, match=f"extra '{name}': got "):
            _ = hook.settings


def test_an_empty_form_gives_the_defaults(connect: Connect) -> None:
    sent = {name: field["schema"].get("default", "") for name, field in CONN_FIELDS.items()}
    assert PlanasonixHook(connect(host="", extra=sent)).settings == PlanasonixHook(connect()).settings


def test_airflow_masks_only_the_secret_field() -> None:
    from airflow.providers.common.compat.sdk import redact

    extra = dict.fromkeys(RECEIVER_CONN_FIELDS, "value")
    assert redact(extra) == extra | {"previous_signing_secret": "***"}


#: Asks the installed Airflow for the form of a connection type, as its user interface does.
ASK_AIRFLOW = """
from airflow.providers_manager import ProvidersManager

def form(conn_type):
    try:
        from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
    except ImportError:  # Airflow 2
        behaviour = ProvidersManager().field_behaviours[conn_type]
        hidden = [name for name in behaviour["hidden_fields"] if name != "extra"]
        relabeled = behaviour["relabeling"]
        widgets = ProvidersManager().connection_form_widgets
        fields = {w.field_name: w.field.args[0] for n, w in widgets.items() if n.startswith(f"extra__{conn_type}__")}
    else:
        meta = next(m for m in HookMetaService.hook_meta_data() if m.connection_type == conn_type)
        standard = {n.replace("url_", ""): f for n, f in dict(meta.standard_fields or ()).items() if f}
        hidden = [name for name, field in standard.items() if field.hidden]
        relabeled = {name: field.title for name, field in standard.items() if field.title}
        fields = {name: field["schema"]["title"] for name, field in (meta.extra_fields or {}).items()}
    hook = ProvidersManager().hooks[conn_type]._asdict()
    return {"hook": hook, "hidden": hidden, "relabeled": relabeled, "fields": fields}

result = {name: form(name) for name in ("planasonix", "planasonix_webhook")}
"""


@pytest.fixture(scope="module")
def forms() -> Any:
    # In another process, because some versions of Airflow replace wtforms.
    return result_of(ASK_AIRFLOW)


@pytest.mark.slow("starts processes")
@both_hooks
def test_airflow_lists_the_connection_type(hook: Any, conn_fields: Any, behaviour: Any, forms: dict[str, Any]) -> None:
    listed = forms[hook.conn_type]["hook"]
    assert listed["hook_class_name"] == f"{hook.__module__}.{hook.__qualname__}"
    assert (listed["hook_name"], listed["connection_id_attribute_name"]) == (hook.hook_name, hook.conn_name_attr)
    assert listed["connection_testable"] is True


@pytest.mark.slow("reads all installed providers")
@pytest.mark.skipif(
    AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS and not find_spec("flask_appbuilder"),
    reason="without flask_appbuilder, Airflow 3.0 has a plain form for all connection types",
)
@both_hooks
def test_airflow_shows_the_form_of_the_table(
    hook: Any, conn_fields: Any, behaviour: Any, forms: dict[str, Any]
) -> None:
    form = forms[hook.conn_type]
    assert form["fields"] == {name: field["label"] for name, field in conn_fields.items()}
    assert set(form["hidden"]) == set(behaviour["hidden-fields"]) - {"extra"}
    assert form["relabeled"] == behaviour["relabeling"]
