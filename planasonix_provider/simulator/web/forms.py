"""Forms, which are shown again with the errors of their fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response

from planasonix_provider.simulator.api.pipeline import AppPipeline, RequestPipeline
from planasonix_provider.simulator.api.responses import STATUS_OF, invalid_value
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.web.render import redirect

#: The values of the fields that are not empty, by name.
FormValues: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Form:
    """The form of a page that was submitted, or is filled in advance. The templates add the labels of its fields."""

    name: str
    values: FormValues = field(default_factory=dict)
    error: ApiError | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def label(self, name: str, label: str) -> str:
        """Store the label of a field, and return it."""
        self.labels[name] = label
        return label

    def value(self, name: str) -> str:
        return self.values.get(name, "")

    def issue(self, name: str) -> str | None:
        details = self.error.details if self.error else ()
        return next((detail.issue for detail in details if (detail.field or "").split(".")[0] == name), None)


async def submit_form(
    request: Request, name: str, execute: Callable[[FormValues], str], show: Callable[[Form, int], Response]
) -> Response:
    """Execute a form and redirect to the path that ``execute`` returns, or ``show`` the form again with its errors."""
    body = (await request.body()).decode("utf-8", errors="replace")
    values = {name: value.strip() for name, value in parse_qsl(body) if value.strip()}
    try:
        return redirect(execute(values))
    except ApiError as error:
        return show(Form(name, values, error), STATUS_OF[error.code])
    except ValueError as error:
        return show(Form(name, values, invalid_value(error)), 400)


def on_submit(
    router: APIRouter, path: str, show: Callable[[RequestPipeline, Form, int], Response]
) -> Callable[[Callable[[RequestPipeline, FormValues], str]], Callable[[RequestPipeline, FormValues], str]]:
    """Decorate the function that executes a form as in :func:`submit_form`. The form has the path's last name."""
    name = path.rpartition("/")[2]

    def decorate(execute: Callable[[RequestPipeline, FormValues], str]) -> Callable[[RequestPipeline, FormValues], str]:
        @router.post(path)
        async def submit(request: Request, pipeline: AppPipeline) -> Response:
            return await submit_form(request, name, partial(execute, pipeline), partial(show, pipeline))

        return execute

    return decorate


def split_list(text: str) -> list[str]:
    """Return the parts of a text with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_json_object(name: str, text: str) -> dict[str, Any]:
    """Return the JSON object in a field, or raise a ``ValueError`` that begins with the field's name."""
    try:
        value = json.loads(text)
        # Half a surrogate pair could be stored, but not sent.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f'{name}: must be a JSON object, for example {{"status": "paused"}}')
    return value
