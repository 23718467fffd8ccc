"""Forms: what was typed into one, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl

from fastapi import Request, Response

from planasonix_provider.simulator.api.responses import STATUS_OF, invalid_value
from planasonix_provider.simulator.model.api_errors import ApiError
from planasonix_provider.simulator.web.render import redirect

#: What was typed, by the names of the fields; those that were left empty are not there.
FormValues: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class Form:
    """A form.

    :param name: its name, which no other form of its page has.
    :param typed: what is in its fields.
    :param refused: why it could not be carried out, or ``None``.
    :param labels: what its page calls the fields, by their names; filled as the page is made.
    """

    name: str
    values: FormValues = field(default_factory=dict)
    error: ApiError | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def label(self, name: str, label: str) -> str:
        """Take note of what the page calls a field.

        :param name: the field's name.
        :param label: what it is called.
        :return: the same.
        """
        self.labels[name] = label
        return label

    def value(self, name: str) -> str:
        """Give what is in a field.

        :param name: the field's name.
        :return: the text.
        """
        return self.values.get(name, "")

    def issue(self, name: str) -> str | None:
        """Tell what is wrong with a field.

        :param name: the field's name.
        :return: what is wrong, or ``None``.
        """
        details = self.error.details if self.error else ()
        return next((detail.issue for detail in details if (detail.field or "").split(".")[0] == name), None)


async def submit_form(
    request: Request, name: str, carry_out: Callable[[FormValues], str], again: Callable[[Form, int], Response]
) -> Response:
    """Carry out a form that was sent.

    :param request: the request.
    :param name: the form's name.
    :param carry_out: does it, and gives the path of the page that shows it.
    :param again: shows the form again, with what is wrong with it, and with an HTTP status.
    :return: the answer.
    """
    body = (await request.body()).decode("utf-8", errors="replace")
    typed = {name: value.strip() for name, value in parse_qsl(body) if value.strip()}
    try:
        return redirect(carry_out(typed))
    except ApiError as refused:
        return again(Form(name, typed, refused), STATUS_OF[refused.code])
    except ValueError as error:
        return again(Form(name, typed, invalid_value(error)), 400)


def split_list(text: str) -> list[str]:
    """Read a list.

    :param text: what was typed, with commas between.
    :return: the parts.
    """
    return [part.strip() for part in text.split(",") if part.strip()]
