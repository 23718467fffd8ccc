"""The form of an Airflow connection as a person has it, in the UI of Airflow 2 and in that of Airflow 3."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from playwright.sync_api import Locator, Page, expect

# How wide a text is that a field shows while it is empty.
_PLACEHOLDERS_CUT_OFF = """(fields) => fields.filter((field) => {
    const style = getComputedStyle(field);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = style.font;
    const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return pen.measureText(field.placeholder).width > room;
}).map((field) => field.placeholder)"""


class ConnectionForm(ABC):
    """The form, and the list that it is opened from.

    :param page: a tab of the browser, at this Airflow.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    @abstractmethod
    def new(self, conn_id: str, conn_type: str) -> None:
        """Open the form of a new connection, and pick its type in the list."""

    @abstractmethod
    def open(self, conn_id: str) -> None:
        """Open the form of a connection that exists."""

    @abstractmethod
    def show_extra(self) -> None:
        """Let the fields of the extra be seen."""

    @abstractmethod
    def field(self, name: str) -> Locator:
        """Find a field; those of the extra are named as there."""

    @abstractmethod
    def labels(self) -> list[str]:
        """What stands beside the fields that can be seen, in their order."""

    @abstractmethod
    def helps(self) -> list[str]:
        """What stands below the fields that can be seen, in their order."""

    @abstractmethod
    def save(self) -> None:
        """Save it, and wait until Airflow says that it has."""

    @abstractmethod
    def test(self, conn_id: str) -> tuple[bool | None, str]:
        """Have Airflow test what is in the form; give whether it is said to work, and the message on the screen.

        ``None`` is where nothing but the message says so: that of Airflow 2 is always a yellow one.
        """

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            self.field(name).fill(value)

    def placeholders(self, *names: str) -> dict[str, str | None]:
        return {name: self.field(name).get_attribute("placeholder") for name in names}

    def cut_off(self) -> list[str]:
        """The placeholders of those fields that can be seen which are too narrow for them."""
        return list(self._form.locator("input:visible").evaluate_all(_PLACEHOLDERS_CUT_OFF))

    @property
    @abstractmethod
    def _form(self) -> Locator: ...


class Airflow2Form(ConnectionForm):
    """A page of its own, with all fields below each other, and the button that tests it at its end."""

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
        """It is seen from the start."""

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
        # The line before it is the button that closes it, where it has one.
        return None, said.inner_text().strip().splitlines()[-1]

    @property
    def _form(self) -> Locator:
        return self.page.locator("form").filter(has=self.page.locator("#conn_id"))


class Airflow3Form(ConnectionForm):
    """A dialog over the list, the extra folded away; what tests it is an icon in the list, and says so for seconds."""

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
        # They fold away meanwhile, and are of no width at its end.
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
        # What tells of the save goes with the page.
        self._list()
        self._row(conn_id).get_by_role("button", name="Test Connection").click()
        said = self.page.locator("[data-scope=toast][data-part=root]").filter(has_text="Test Connection")
        # Both at once, for they are shown for seconds only.
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
    """The label without the star of what is required."""
    return label.strip().removesuffix("*").strip()
