"""Checks events against OpenLineage's schema, from which the classes of its client are generated.

Each facet names its own part of the schema. Facets that are not OpenLineage's own name the part that allows any field.
"""

from __future__ import annotations

import types
from enum import EnumMeta
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_args, get_origin

import attrs
from openlineage.client import generated
from openlineage.client.generated.base import BaseFacet, RunEvent

#: The part of the schema of custom facets.
_OPEN = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"


@cache
def _classes() -> dict[str, type]:
    """Return the generated classes by their place in the schema."""
    modules = [import_module(f"{generated.__name__}.{module.name}") for module in iter_modules(generated.__path__)]
    classes = [kind for module in modules for kind in vars(module).values() if attrs.has(kind)]
    return {kind._get_schema(): kind for kind in classes if hasattr(kind, "_get_schema")}


def check_event(event: dict[str, Any]) -> None:
    """Raise an ``AssertionError`` that names the place if an event does not follow the schema."""
    assert event.get("schemaURL") == RunEvent._get_schema(), event.get("schemaURL")
    _check(event, RunEvent, "event")


def _check(value: Any, kind: Any, where: str) -> None:
    if kind is Any:
        return
    if isinstance(kind, EnumMeta):
        assert value in {member.value for member in kind}, f"{where}: {value!r} is no {kind.__name__}"
    elif get_origin(kind) is types.UnionType or type(None) in get_args(kind):
        (some,) = [one for one in get_args(kind) if one is not type(None)]
        _check(value, some, where)
    elif get_origin(kind) is list:
        assert isinstance(value, list), f"{where}: {value!r} is no list"
        for index, item in enumerate(value):
            _check(item, get_args(kind)[0], f"{where}[{index}]")
    elif get_origin(kind) is dict:
        assert isinstance(value, dict), f"{where}: {value!r} is no object"
        for name, item in value.items():
            _check(item, get_args(kind)[1], f"{where}.{name}")
    elif attrs.has(kind):
        _check_object(value, kind, where)
    else:
        assert type(value) is kind, f"{where}: {value!r} is no {kind.__name__}"


def _check_object(value: Any, kind: type, where: str) -> None:
    assert isinstance(value, dict), f"{where}: {value!r} is no object"
    is_open = False
    if issubclass(kind, BaseFacet):
        place = value.get("_schemaURL")
        assert place in _classes(), f"{where}: the schema has no {place}"
        assert issubclass(_classes()[place], kind), f"{where}: {place} is no {kind.__name__}"
        kind, is_open = _classes()[place], place.startswith(_OPEN)
    fields = {field.name: field for field in attrs.fields(attrs.resolve_types(kind))}
    missing = {name for name, field in fields.items() if field.init and field.default is attrs.NOTHING} - set(value)
    assert not missing, f"{where}: {missing} is missing"
    for name, item in value.items():
        assert name in fields or is_open, f"{where}: {name} is nothing of {kind.__name__}"
        if name in fields:
            _check(item, fields[name].type, f"{where}.{name}")
            if check := fields[name].validator:
                check(None, fields[name], item)
