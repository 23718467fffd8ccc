"""The form of an Airflow connection in the UIs of Airflow 2 and Airflow 3."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from playwright.sync_api import Locator, Page, expect

# Returns the placeholders that are wider than their fields.
_PLACEHOLDERS_CUT_OFF = """(fields) => fields.filter((field) => {
    const style = getComputedStyle(field);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = style.font;
    const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return pen.measureText(field.placeholder).width > room;
}).map((field) => field.placeholder)"""


class ConnectionForm(ABC):
    """The form, and the list of connections that opens it.

    :param page: a tab with the UI of Airflow.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    @abstractmethod
    def new(self, conn_id: str, conn_type: str) -> None:
        """Open the form of a new connection and choose its type."""

    @abstractmethod
    def open(self, conn_id: str) -> None:
        """Open the form of an existing connection."""

    @abstractmethod
    def show_extra(self) -> None:
        """Show the fields of the extra."""

    @abstractmethod
    def field(self, name: str) -> Locator:
        """Return a field of the form or of the extra by its name."""

    @abstractmethod
    def labels(self) -> list[str]:
        """Return the labels of the visible fields, in order."""

    @abstractmethod
    def helps(self) -> list[str]:
        """Return the help texts of the visible fields, in order."""

    @abstractmethod
    def save(self) -> None:
        """Save the connection and wait for Airflow's confirmation."""

    @abstractmethod
    def test(self, conn_id: str) -> tuple[bool | None, str]:
        """Test the connection in the form. Return whether Airflow reports success, and its message.

        Airflow 2 shows every message in yellow, so the first value is ``None`` there.
        """

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            self.field(name).fill(value)

    def placeholders(self, *names: str) -> dict[str, str | None]:
        return {name: self.field(name).get_attribute("placeholder") for name in names}

    def truncated_placeholders(self) -> list[str]:
        """Return the placeholders that do not fit into their visible fields."""
        return list(self._form.locator("input:visible").evaluate_all(_PLACEHOLDERS_CUT_OFF))

    @property
    @abstractmethod
    def _form(self) -> Locator: ...


class Airflow2Form(ConnectionForm):
    """A separate page with all fields, and a button Test at its end."""

    def new(self, conn_id: str, conn_type: str) -> None:
        self.page.goto("/connection/add")
        self.fill(conn_id=conn_id)
        self.page.get_by_role("row", name="Connection Type").get_by_role("combobox").click()
        self.page.locator(".select2-results__option").filter(has_text=re.compile(f"^{conn_type}$")).click()

    def open(self, conn_id: str) -> None:
        self.page.goto("/connection/list/")
        self.page.get_by_role("row", name=conn_id).locator("a[href*='/edit/']").click()
        expect(self.field("conn_id")).to_have_value(conn_id)

    def show_extra(self) -> None:
        """Do nothing: the page shows these fields from the start."""

    def field(self, name: str) -> Locator:
        names = (f"[name={name}]", f"[name^=extra__][name$=__{name}]")
        return self._form.locator(", ".join(f":is(input, select, textarea){each}" for each in names))

    def labels(self) -> list[str]:
        return [
            text.strip().removesuffix("*").strip() for text in self._form.locator("label:visible").all_inner_texts()
        ]

    def helps(self) -> list[str]:
        return [text for text in self._form.locator(".help-block:visible").all_inner_texts() if text]

    def save(self) -> None:
        self.page.get_by_role("button", name="Save").click()
        expect(self.page.get_by_text(re.compile("(Added|Changed) Row"))).to_be_visible()

    def test(self, conn_id: str) -> tuple[bool | None, str]:
        self.page.get_by_role("button", name="Test").click()
        said = self.page.locator(".alert-success:visible, .alert-error:visible")
        expect(said).to_have_count(1)
        said.scroll_into_view_if_needed()
        # The line before it may be the button that closes the message.
        return None, said.inner_text().strip().splitlines()[-1]

    @property
    def _form(self) -> Locator:
        return self.page.locator("form").filter(has=self.page.locator("#conn_id"))


class Airflow3Form(ConnectionForm):
    """A dialog over the list, with the extra collapsed. An icon in the list tests the connection.

    Airflow shows the result for a few seconds only.
    """

    def new(self, conn_id: str, conn_type: str) -> None:
        self._list()
        self.page.get_by_role("button", name="Add Connection").click()
        self.fill(connection_id=conn_id)
        self._form.get_by_role("combobox").fill(conn_type)
        self.page.get_by_role("option", name=conn_type, exact=True).click()
        expect(self.field("password")).to_be_visible()
        expect(self._form.get_by_role("button", name="Save")).to_be_enabled()

    def open(self, conn_id: str) -> None:
        self._list()
        self._row(conn_id).get_by_role("button", name="Edit Connection").click()
        expect(self.field("connection_id")).to_have_value(conn_id)

    def show_extra(self) -> None:
        self._form.get_by_role("button", name="Extra Fields", exact=True).click()
        expect(self._form.locator("[name^=element_]").first).to_be_visible()
        # The other fields collapse during the animation, and have no width at its end.
        expect(self.field("password")).to_be_hidden()

    def field(self, name: str) -> Locator:
        return self._form.locator(f"[name={name}], [name=element_{name}]")

    def labels(self) -> list[str]:
        return [_bare(text) for text in self._form.locator("label[data-part=label]:visible").all_inner_texts()]

    def helps(self) -> list[str]:
        return self._form.locator("[data-part=helper-text]:visible").all_inner_texts()

    def save(self) -> None:
        self._form.get_by_role("button", name="Save").click()
        expect(self._form).to_have_count(0)

    def test(self, conn_id: str) -> tuple[bool | None, str]:
        self.save()
        # Loading the list again removes the message about the save.
        self._list()
        self._row(conn_id).get_by_role("button", name="Test Connection").click()
        said = self.page.locator("[data-scope=toast][data-part=root]").filter(has_text="Test Connection")
        # Read both at once, because Airflow shows them for a few seconds only.
        title, message = said.inner_text().split("\n", 1)
        return title == "Test Connection Successful", message

    def _list(self) -> None:
        self.page.goto("/connections")
        expect(self.page.get_by_role("button", name="Add Connection")).to_be_visible()

    def _row(self, conn_id: str) -> Locator:
        return self.page.get_by_role("row").filter(has=self.page.get_by_text(conn_id, exact=True))

    @property
    def _form(self) -> Locator:
        return self.page.get_by_role("dialog")


def _bare(label: str) -> str:
    """Return the label without the star of a required field."""
    return label.strip().removesuffix("*").strip()
