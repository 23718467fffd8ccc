"""How Sphinx builds these pages: ``make docs``. The reference is read from the source; nothing of it is imported."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
import llms

# Millions of objects live until the end of the build; with Python's default, garbage collection takes half of the time.
gc.set_threshold(200_000)

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "planasonix_provider"

project = "airflow-provider-planasonix"
author = "Planasonix"
copyright = "Planasonix, under the Apache License 2.0"  # noqa: A001 - Sphinx calls it so
release = re.findall(r'__version__ = "(.+)"', (PACKAGE / "__init__.py").read_text())[0]

extensions = ["autoapi.extension", "myst_parser", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = "Planasonix for Airflow"
html_baseurl = "https://docs.planasonix.com/airflow/"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": html_title, "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg", "alt_text": ""},
    "navbar_align": "left",
    "navbar_center": ["top-links"],
    "navbar_end": ["version", "theme-switcher"],
    "navigation_with_keys": True,
    "secondary_sidebar_items": ["page-toc"],
}
html_favicon = "_static/logo.svg"
html_sidebars = {"**": ["pages.html"]}
html_static_path = ["_static"]
html_css_files = ["pages.css"]
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autoapi_dirs = [str(PACKAGE)]
#: Packages of which the reference shows nothing. No class that it shows may inherit from them: the inherited parameters
#: would be missing.
autoapi_ignore = [
    f"*/planasonix_provider/{package}/*"
    for package in ("cli", "execution", "monitoring", "plugins", "waiting", "watchers")
]
autoapi_generate_api_docs = False
autoapi_member_order = "bysource"
autoapi_python_class_content = "class"
#: Names that a module imports only on access.
suppress_warnings = ["autoapi.python_import_resolution"]


def one_line_each(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Show a long signature without the list of definitions that Sphinx makes of it: screen readers take it for one."""
    if "body" in context:
        context["body"] = re.sub(
            r"<dl>\n((?:<dd><em class=\"sig-param\">.*</dd>\n)+)</dl>",
            lambda found: re.sub(r"<dd>(.*)</dd>", r'<span class="sig-parameter">\1</span>', found[1]),
            context["body"],
        )


def skip_member(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out imported names, type variables, and names without a docstring."""
    is_undocumented = not getattr(member, "docstring", "") and "undoc-members" not in options
    return True if is_undocumented or getattr(member, "imported", False) or re.fullmatch("[A-Z]", name) else None


def add_inherited_parameters(app: Any) -> None:
    """Append the parameters of all base classes to those of each class."""
    objects = app.env.autoapi_all_objects
    parameters = {name: _parameters(getattr(member, "docstring", "")) for name, member in objects.items()}

    def bases_of(name: str) -> list[str]:
        # A base of the same module has no module in its name.
        module = name.rpartition(".")[0]
        direct = [base if "." in base else f"{module}.{base}" for base in getattr(objects.get(name), "bases", ())]
        return [base for one in direct for base in (one, *bases_of(one))]

    for name, member in objects.items():
        own = "".join(parameters[name].values())
        inherited: dict[str, str] = {}
        for base in bases_of(name):
            inherited = {**parameters.get(base, {}), **inherited}
        added = "".join(text for parameter, text in inherited.items() if parameter not in parameters[name])
        if own and own in member.docstring:
            member.docstring = member.docstring.replace(own, own + added)
        elif added:
            member.docstring = f"{member.docstring}\n\n{added}"


def _parameters(docstring: str) -> dict[str, str]:
    """Return the lines that describe each parameter."""
    return {found[1]: found[0] for found in re.finditer(r"^:param (\w+):.*\n?(?: .*\n?)*", docstring, re.MULTILINE)}


def setup(app: Any) -> None:
    """Connect the functions above to the build."""
    app.connect("autodoc-skip-member", skip_member)
    app.connect("builder-inited", add_inherited_parameters, priority=900)
    app.connect("html-page-context", one_line_each)
    app.connect("build-finished", llms.write)
