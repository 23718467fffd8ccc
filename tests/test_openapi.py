"""The OpenAPI document, the client and the API's reference agree with each other, in both directions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from pydantic import BaseModel, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from planasonix_provider.api import models, routes
from planasonix_provider.api.event_types import KNOWN_EVENTS
from planasonix_provider.api.request import PAGE_SIZE, PREFIX
from planasonix_provider.api.states import BACKFILL_STATES, JOB_STATES
from planasonix_provider.validators import identifier
from tests.support import api_reference
from tests.support.api_reference import Example
from tests.support.example_calls import REQUESTS, ROUTE_BY_PATH, make_request, route_of, without_parameter_names

TEXT = (Path(__file__).parent.parent / "docs" / "openapi.yaml").read_text()
DOCUMENT = yaml.load(TEXT, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
SCHEMAS: dict[str, dict[str, Any]] = DOCUMENT["components"]["schemas"]
#: All operations, by their ``operationId``.
OPERATIONS: dict[str, dict[str, Any]] = {
    operation["operationId"]: {"method": method.upper(), "path": path, **operation}
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}

#: Base classes that never occur alone, and the two responses without JSON.
WITHOUT_A_SCHEMA = {"Resource", "SecretResource", "Envelope", "DataEnvelope", "Page", "NoContent", "PlainText"}
MODELS: dict[str, type[BaseModel]] = {
    name: model
    for name, model in inspect.getmembers(models, inspect.isclass)
    if issubclass(model, BaseModel) and name not in WITHOUT_A_SCHEMA
}
#: All bounds of bodies, each with the last valid value and the first invalid one.
BOUNDS = {
    ("BackfillBody", "tables", "minItems"): (["a"], []),
    ("WebhookBody", "url", "pattern"): ("https://a.b", "ftp://a.b"),
    ("WebhookBody", "events", "minItems"): (["job.failed"], []),
    ("WebhookBody", "secret", "minLength"): ("s" * 16, "s" * 15),
    ("WebhookPatchBody", "url", "pattern"): ("http://localhost", "file://localhost"),
    ("WebhookPatchBody", "events", "minItems"): (["job.failed"], []),
}
#: The open sets, each with its known members.
OPEN_SETS = {
    "JobState": JOB_STATES,
    "BackfillState": BACKFILL_STATES,
    "DeliveryState": {"pending", "delivered", "failed"},
    "JobType": {"connection_sync", "backfill", "pipeline_run"},
    "Event": KNOWN_EVENTS,
}
LIMITS = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}

REFERENCE = api_reference.TEXT.read_text()
_parts = re.split(r"^(GET|POST|PUT|DELETE) /api/v1(/\S+)$", REFERENCE, flags=re.MULTILINE)
#: The text of the reference below each route.
SECTIONS = {
    ROUTE_BY_PATH[method, without_parameter_names(path)]: text
    for method, path, text in zip(_parts[1::3], _parts[2::3], _parts[3::3], strict=True)
}
REGISTRY: Registry[Any] = Registry().with_resource("urn:planasonix", DRAFT202012.create_resource(DOCUMENT))


def resolve(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the document, or the part that its reference points to."""
    if "$ref" not in part:
        return part
    found = DOCUMENT
    for step in part["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def schema_name(part: dict[str, Any]) -> str:
    """Return the name of the schema that a part of the document points to."""
    return part["$ref"].removeprefix("#/components/schemas/")


#: The route that sends each body.
ROUTE_OF_BODY = {
    schema_name(operation["requestBody"]["content"]["application/json"]["schema"]): route
    for route, operation in OPERATIONS.items()
    if "requestBody" in operation
}


def answer(name: str, status: str) -> dict[str, Any]:
    return resolve(OPERATIONS[name]["responses"][status])


def properties(name: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return all properties of a schema, each with the name of the schema that defines it."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for part in (SCHEMAS[name], *SCHEMAS[name].get("allOf", ())):
        if "$ref" in part:
            found |= properties(schema_name(part))
        found |= {field: (name, schema) for field, schema in part.get("properties", {}).items()}
    return found


def required(name: str) -> set[str]:
    """Return the required properties of a schema."""
    found: set[str] = set()
    for part in (SCHEMAS[name], *SCHEMAS[name].get("allOf", ())):
        found |= required(schema_name(part)) if "$ref" in part else set(part.get("required", ()))
    return found


def shape(schema: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    """Return the types that a schema allows, in a form that compares the document with a model."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = definitions[name]
        return {name} if {"properties", "allOf"} & set(target) else shape(target, definitions)
    if "anyOf" in schema:
        types = set().union(*(shape(part, definitions) for part in schema["anyOf"]))
        return types - {"integer"} if "number" in types else types
    types = {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    if "array" in types:
        types = types - {"array"} | {f"array of {sorted(shape(schema['items'], definitions))}"}
    if schema.get("format") == "date-time":
        types = types - {"string"} | {"time"}
    return types


def iter_properties(schema: dict[str, Any], value: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield each property in a body: the schema that defines it, its name, and its value."""
    for part in schema.get("anyOf", [schema]):
        if isinstance(value, list) and "items" in part:
            for item in value:
                yield from iter_properties(part["items"], item)
        elif isinstance(value, dict) and "$ref" in part:
            fields = properties(schema_name(part))
            for field, inner in value.items():
                assert field in fields, f"schema {schema_name(part)} of docs/openapi.yaml lacks {field}"
                owner, of_field = fields[field]
                yield owner, field, inner
                yield from iter_properties(of_field, inner)


def is_refused(model: type[BaseModel], field: str, value: Any) -> bool:
    """Return whether a model rejects a value of a field, whether or not other fields are missing."""
    try:
        model.model_validate({field: value})
    except ValidationError as error:
        return any(one["loc"][0] == field for one in error.errors())
    return False


def value_at(body: Any, pointer: str) -> Any:
    """Return the part of a body that a JSON pointer without its first slash points to."""
    for step in pointer.split("/"):
        body = body[int(step) if isinstance(body, list) else step]
    return body


def media(example: Example) -> dict[str, Any]:
    """Return the part of the document that contains an example of the reference."""
    name = route_of(example)
    place = OPERATIONS[name]["requestBody"] if example.status is None else answer(name, str(example.status))
    return place["content"]["application/json"]


def shown_by_the_reference() -> list[tuple[str, str, Any]]:
    return [found for one in api_reference.examples() for found in iter_properties(media(one)["schema"], one.body)]


def all_media(part: Any) -> Iterator[dict[str, Any]]:
    """Yield all parts of the document that have examples beside a schema."""
    if isinstance(part, dict):
        if {"schema", "examples"} <= set(part):
            yield part
        else:
            for inner in part.values():
                yield from all_media(inner)


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_the_operations_are_the_functions_of_routes() -> None:
    theirs = [(name, one["method"], one["path"]) for name, one in OPERATIONS.items()]
    assert sorted(theirs) == sorted((name, one.method, PREFIX + one.path) for name, one in REQUESTS.items())
    assert sum(len(item) for item in DOCUMENT["paths"].values()) == len(OPERATIONS)


def test_every_operation_requires_a_key() -> None:
    assert DOCUMENT["security"] == [{"bearer": []}]
    assert not any("security" in operation for operation in OPERATIONS.values())
    bearer = DOCUMENT["components"]["securitySchemes"]["bearer"]
    assert (bearer["type"], bearer["scheme"]) == ("http", "bearer")


@pytest.mark.parametrize("name", REQUESTS)
def test_an_operation_has_the_texts_of_the_reference(name: str) -> None:
    operation = OPERATIONS[name]
    assert f'(reference: "{operation["summary"]}")' in (getattr(routes, name).__doc__ or "")
    assert operation["summary"] in REFERENCE.splitlines()
    assert operation.get("description", "") in " ".join(REFERENCE.split())


@pytest.mark.parametrize("name", REQUESTS)
def test_an_operation_has_the_parameters_of_its_function(name: str) -> None:
    request, operation = REQUESTS[name], OPERATIONS[name]
    parameters = [resolve(part) for part in operation["parameters"]]
    placed = {
        place: {one["name"]: one for one in parameters if one["in"] == place} for place in ("path", "query", "header")
    }
    assert sum(map(len, placed.values())) == len(parameters)
    assert set(placed["path"]) == set(request.ids)
    # The reference has no query parameters for lists of webhooks and deliveries, so their functions send none.
    signature = inspect.signature(getattr(routes, name), eval_str=True)
    assert set(placed["query"]) == ({*signature.parameters, "cursor"} if request.query else set())
    assert set(placed["query"]) == ({*request.query, "cursor"} if request.query else set())
    keys = {"Idempotency-Key"} if request.idempotency_key else set()
    assert set(placed["header"]) == {"X-Organization-ID"} | keys
    for one in parameters:
        assert one.get("required", False) is (one["in"] == "path")
        assert ("x-source" in one) is (one["in"] == "header")
    for field, one in placed["query"].items():
        types = set(get_args(signature.parameters[field].annotation)) if field != "cursor" else {str}
        expected = "integer" if int in types else "time" if datetime in types else "string"
        assert shape(one["schema"], SCHEMAS) == {expected}, field


def test_the_page_size_is_that_of_the_reference() -> None:
    schema = DOCUMENT["components"]["parameters"]["limit"]["schema"]
    assert schema["maximum"] == PAGE_SIZE
    assert f"Page size (default {schema['default']}, max {schema['maximum']})" in REFERENCE


@pytest.mark.parametrize("name", REQUESTS)
def test_an_operation_has_the_body_of_its_function(name: str) -> None:
    body = OPERATIONS[name].get("requestBody")
    assert (body is not None) is (REQUESTS[name].body is not None)
    if body is not None:
        (schema,) = [media["schema"] for kind, media in body["content"].items() if kind == "application/json"]
        parameters = set(inspect.signature(getattr(routes, name)).parameters)
        assert set(properties(schema_name(schema))) == parameters - set(REQUESTS[name].ids) - {"idempotency_key"}
        assert body["required"] is ("Request body (optional)" not in SECTIONS[name])


@pytest.mark.parametrize("name", REQUESTS)
def test_an_operation_has_the_response_of_its_function(name: str) -> None:
    (status,) = re.findall(r"Response (\d{3})", SECTIONS[name])
    assert status in OPERATIONS[name]["responses"]
    reply, content = REQUESTS[name].envelope, answer(name, status).get("content", {})
    if reply is models.NoContent:
        assert content == {}
        return
    assert set(content) == {reply.accepts}
    schema = content[reply.accepts]["schema"]
    if reply is models.PlainText:
        # The function returns a text; the parsed text is an object.
        Draft202012Validator(schema).validate(DOCUMENT)
        assert schema["type"] == "object"
    else:
        assert schema == {"$ref": f"#/components/schemas/{reply.__name__}"}


@pytest.mark.parametrize("name", REQUESTS)
def test_an_operation_lists_its_possible_errors(name: str) -> None:
    request = REQUESTS[name]
    (success,) = re.findall(r"Response (\d{3})", SECTIONS[name])
    errors = {"401", "403", "429", "default"}
    errors |= {"400"} if request.query or request.body is not None else set()
    errors |= {"404"} if request.ids else set()
    conflict_is_told = "409 Conflict" in SECTIONS[name]
    errors |= {"409"} if request.idempotency_key or conflict_is_told else set()
    assert set(OPERATIONS[name]["responses"]) == {success, *errors}
    for status in errors:
        error = answer(name, status)
        assert {kind: schema_name(one["schema"]) for kind, one in error["content"].items()} == {
            "application/json": "ErrorEnvelope"
        }
        assert ("x-source" in error) is not (status == "409" and conflict_is_told)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_response_has_the_headers_of_the_rate_limit(name: str) -> None:
    for status in OPERATIONS[name]["responses"]:
        headers = answer(name, status)["headers"]
        assert set(headers) == (LIMITS | {"Retry-After"} if status == "429" else LIMITS)
        assert all("x-source" in resolve(header) for header in headers.values())


def test_the_models_are_the_schemas_of_objects() -> None:
    assert set(MODELS) == {name for name, schema in SCHEMAS.items() if {"properties", "allOf"} & set(schema)}
    assert {*OPEN_SETS, "Priority", "Id"} == set(SCHEMAS) - set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_schema_has_the_fields_of_its_model(name: str) -> None:
    theirs, ours = properties(name), MODELS[name].model_json_schema()
    assert set(theirs) == {field for field, info in MODELS[name].model_fields.items() if not info.exclude}
    for field, (_, schema) in theirs.items():
        their_types = shape(schema, SCHEMAS)
        our_types = shape(ours["properties"][field], ours.get("$defs", {}))
        assert their_types - {"null"} == our_types - {"null"}, field
        assert their_types <= our_types, field


@pytest.mark.parametrize("name", MODELS)
def test_a_schema_and_its_model_refuse_the_same_empty_texts(name: str) -> None:
    texts = {
        field: schema
        for field, (_, schema) in properties(name).items()
        if shape(schema, SCHEMAS) == {"string"} and "$ref" not in schema and (name, field, "minLength") not in BOUNDS
    }
    assert {field for field, schema in texts.items() if schema.get("minLength") == 1} == {
        field for field in texts if is_refused(MODELS[name], field, "")
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_schema_requires_the_required_fields_of_its_model(name: str) -> None:
    # The document requires only the fields that the client needs. A field with a default is optional, such as the
    # tables in the results of a running job.
    assert required(name) == {field for field, info in MODELS[name].model_fields.items() if info.is_required()}


@pytest.mark.parametrize("name", MODELS)
def test_a_schema_and_its_model_have_the_same_ids(name: str) -> None:
    def takes_ids(field: str) -> bool:
        one, many = ("job_1", "a/b"), (["job_1"], ["a/b"])
        return any(
            not is_refused(MODELS[name], field, an_id) and is_refused(MODELS[name], field, no_id)
            for an_id, no_id in (one, many)
        )

    assert {field for field, (_, schema) in properties(name).items() if "schemas/Id" in str(schema)} == {
        field for field in MODELS[name].model_fields if takes_ids(field)
    }


@pytest.mark.parametrize(
    "given", ["job_1", "größe", "a.b", "", "a/b", "a\\b", "a?b", "a#b", "a%20", "a b", "a\nb", "a\tb"]
)
def test_the_document_and_the_provider_accept_the_same_ids(given: str) -> None:
    try:
        identifier("job_id", given)
    except ValueError:
        taken = False
    else:
        taken = True
    assert Draft202012Validator(SCHEMAS["Id"]).is_valid(given) is taken


@pytest.mark.parametrize("name", OPEN_SETS)
def test_an_open_set_is_described_as_open(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema["type"] == "string"
    assert "set is open" in schema["description"]
    assert set(schema["examples"]) == set(OPEN_SETS[name])


def test_only_the_priorities_are_a_closed_set() -> None:
    assert re.findall(r"\b(enum|const|additionalProperties|unevaluatedProperties):", TEXT) == ["enum"]
    assert SCHEMAS["Priority"]["enum"] == list(get_args(models.Priority))
    used = {
        (name, field) for name in MODELS for field, (_, schema) in properties(name).items() if "Priority" in str(schema)
    }
    assert {name for name, _ in used} <= set(ROUTE_OF_BODY)


def test_only_bodies_have_bounds() -> None:
    bounds = {"minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "minimum", "maximum"}
    found = {
        (name, field, bound)
        for name in MODELS
        for field, (owner, schema) in properties(name).items()
        for bound in bounds & set(schema)
        if owner == name and (bound, schema[bound]) != ("minLength", 1)
    }
    assert found == set(BOUNDS)


@pytest.mark.parametrize("bound", BOUNDS, ids="-".join)
def test_a_bound_is_that_of_the_function_of_the_body(bound: tuple[str, str, str]) -> None:
    body, field, _ = bound
    validator = Draft202012Validator(properties(body)[field][1] | {"items": {"type": "string"}})
    within, beyond = BOUNDS[bound]
    make_request(ROUTE_OF_BODY[body], **{field: within})
    assert validator.is_valid(within)
    with pytest.raises(ValueError, match=f"^{field}: got"):
        make_request(ROUTE_OF_BODY[body], **{field: beyond})
    assert not validator.is_valid(beyond)


def test_a_link_uses_an_id_in_the_response() -> None:
    prefixes = {"connection_id": "conn_", "job_id": "job_", "backfill_id": "bf_", "webhook_id": "wh_"}
    starts = {"job_id": "trigger_sync", "backfill_id": "trigger_backfill", "webhook_id": "create_webhook"}
    linked = set()
    for name, operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            for target, link in resolve(response).get("links", {}).items():
                ((parameter, expression),) = link["parameters"].items()
                assert (status[0], link["operationId"]) == ("2", target)
                assert set(REQUESTS[target].ids) == {parameter}
                example = response["content"]["application/json"]["examples"]["reference"]["value"]
                found = value_at(example, expression.removeprefix("$response.body#/"))
                assert found.startswith(prefixes[parameter])
                linked.add((name, target))
    # Every route of one job, backfill or webhook is linked from the route that creates it, and from the list.
    for target, request in REQUESTS.items():
        for parameter in set(request.ids) - {"connection_id"}:
            listing = f"list_{parameter.removesuffix('_id')}s"
            assert {(starts[parameter], target), (listing, target)} <= linked


def test_the_reference_shows_exactly_the_properties_without_a_mark() -> None:
    marked = {
        (name, field)
        for name in MODELS
        for field, (owner, schema) in properties(name).items()
        if owner == name and ("x-source" in schema or "x-source" in SCHEMAS[name])
    }
    written = {(owner, field) for name in MODELS for field, (owner, _) in properties(name).items()}
    assert written - marked == {(owner, field) for owner, field, _ in shown_by_the_reference()}


def test_every_mark_is_explained() -> None:
    for mark in re.findall(r"x-source: (.*)", TEXT):
        assert f"- `{mark}`: " in DOCUMENT["info"]["description"]


def test_null_is_allowed_only_if_the_reference_shows_it() -> None:
    allowed = {
        (owner, field)
        for name in MODELS
        for field, (owner, schema) in properties(name).items()
        if "null" in shape(schema, SCHEMAS)
    }
    assert allowed == {(owner, field) for owner, field, value in shown_by_the_reference() if value is None}


@pytest.mark.parametrize("example", api_reference.examples(), ids=str)
def test_an_example_of_the_reference_is_in_the_document(example: Example) -> None:
    assert media(example)["examples"] == {"reference": {"value": example.body}}


def test_an_example_matches_its_schema() -> None:
    found = [(one["schema"], example) for one in all_media(DOCUMENT) for example in one["examples"].values()]
    assert len([example for _, example in found if "x-source" not in example]) == len(api_reference.examples())
    for schema, example in found:
        validator = Draft202012Validator(
            {"$ref": f"urn:planasonix{schema['$ref']}"},
            registry=REGISTRY,
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        )
        validator.validate(example["value"])
        assert list(iter_properties(schema, example["value"]))
