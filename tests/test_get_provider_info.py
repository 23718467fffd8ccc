from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from types import FunctionType
from typing import Any

import airflow
import jsonschema
import pytest

from planasonix_provider import __version__
from planasonix_provider.get_provider_info import get_provider_info

DISTRIBUTION = distribution("airflow-provider-planasonix")

#: The keys under which a function stands; all others name a class.
FUNCTIONS = ("cli", "handler", "factory", "to_openlineage_converter")


def names(value: Any, key: str | None = None) -> Iterator[tuple[str | None, str]]:
    """Give every text in the provider info that names something to import, with the key that it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from names(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from names(item, key)
    elif isinstance(value, str) and value.startswith("planasonix_provider."):
        yield key, value


def test_it_is_what_the_installed_airflow_accepts() -> None:
    schema = json.loads((Path(airflow.__path__[0]) / "provider_info.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(get_provider_info())


def test_it_is_json() -> None:
    assert json.loads(json.dumps(get_provider_info())) == get_provider_info()


def test_it_is_found_by_its_entry_point_and_names_its_distribution() -> None:
    (entry,) = DISTRIBUTION.entry_points.select(group="apache_airflow_provider")
    assert entry.load() is get_provider_info
    assert get_provider_info()["package-name"] == DISTRIBUTION.name


def test_the_version_is_that_of_the_distribution() -> None:
    assert DISTRIBUTION.version == __version__


@pytest.mark.parametrize(("key", "path"), sorted(set(names(get_provider_info())), key=str))
def test_everything_that_it_names_can_be_imported(key: str, path: str) -> None:
    if key == "python-modules":
        assert import_module(path)
    else:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), FunctionType if key in FUNCTIONS else type)


def test_it_names_something_of_every_room() -> None:
    rooms = {path.split(".")[1] for _, path in names(get_provider_info())}
    assert {"hooks", "operators", "triggers", "links", "assets", "cli"} <= rooms
