"""Pages of decoders and balancing methods, from their code, configurations and equations."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import architectures
import balancing_methods

from densemtl import registry
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.results.tables import markdown_table

ROOT = Path(__file__).parents[2]
EQUATIONS = ROOT / "docs" / "equations"
INTRODUCTIONS = ROOT / "docs" / "introductions"
"""One paragraph per method: what it does, and when to use it."""

WITHOUT_HEADING = """\
    options:
      members: false
      show_root_heading: false
      show_root_toc_entry: false
"""


def list_methods(package: str) -> list[str]:
    """Return the names of all methods of "decoders" or "balancing"."""
    return registry.list_names(package)


def get_page_uri(package: str, name: str) -> str:
    """Return the path of the page of a method in the site."""
    return f"methods/{package}/{name}.md"


@cache
def make_pages() -> dict[str, str]:
    """Return {path in the site: Markdown} of all methods and their overview."""
    pages = {"methods/index.md": _render_overview()}
    for name in list_methods("decoders"):
        pages[get_page_uri("decoders", name)] = _render_page(
            "decoders", name, *_describe_decoder(name)
        )
    for name in list_methods("balancing"):
        pages[get_page_uri("balancing", name)] = _render_page(
            "balancing", name, *_describe_balancing_method(name)
        )
    return pages


def _render_page(package: str, name: str, figure: str, cost: str, recipe: str) -> str:
    cls = registry.get_class(package, name)
    parts = [
        f"# {_get_title(cls)}",
        f"`{name}` · {_get_summary(cls)}",
        (INTRODUCTIONS / package / f"{name}.md").read_text(encoding="utf-8").strip(),
        figure,
        _render_equations(package, name),
        f"## Description and options\n\n{_render_description(cls)}",
        f"## Cost\n\n{cost}",
        f"## Configuration\n\n{recipe}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _render_description(cls: type[Any]) -> str:
    """Render the docstrings of a class and of the classes that define its other options."""
    classes = dict.fromkeys([cls, *filter(_has_options, registry.option_classes(cls))])
    return "\n".join(
        ("" if option_class is cls else f"### Options of `{option_class.__name__}`\n\n")
        + f"::: {option_class.__module__}.{option_class.__name__}\n{WITHOUT_HEADING}"
        for option_class in classes
    )


def _has_options(cls: type[Any]) -> bool:
    """Return whether a constructor defines keyword-only parameters itself."""
    parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
    return any(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters)


def _get_title(cls: type[Any]) -> str:
    """Return the name before the first `:` or `(` of the module docstring, else the class name."""
    match = re.match(r"([^.:(]+?) ?[:(]", _get_summary(cls))
    return match[1] if match else cls.__name__


def _get_summary(cls: type[Any]) -> str:
    """Return the first paragraph of the module docstring, which names the paper."""
    docstring = ast.get_docstring(ast.parse(Path(inspect.getfile(cls)).read_text(encoding="utf-8")))
    return (docstring or "").partition("\n\n")[0].replace("\n", " ")


def _render_equations(package: str, name: str) -> str:
    file = EQUATIONS / package / f"{name}.md"
    return f"## Equations\n\n{file.read_text(encoding='utf-8').strip()}" if file.exists() else ""


def _describe_decoder(name: str) -> tuple[str, str, str]:
    """Return the figure, the costs and the configuration of a decoder."""
    recipes = architectures.load_recipes().get(name, [])
    if not recipes:
        note = "No configuration in `configs/nyud/` uses this decoder."
        return "", note, f"```yaml\ndecoder: {{name: {name}}}\n```"
    return (
        architectures.render_figure(recipes[0]),
        architectures.render_cost_table(recipes),
        architectures.render_recipe(recipes[0]),
    )


def _describe_balancing_method(name: str) -> tuple[str, str, str]:
    """Return the figure, the costs and the configuration of a balancing method."""
    cls = registry.get_class("balancing", name)
    options = {
        key: field.default
        for key, field in registry.make_options_model(cls).model_fields.items()
        if field.default is not None
    }
    section = ", ".join([f"name: {name}", *(f"{key}: {value}" for key, value in options.items())])
    recipe = f"With default options:\n\n```yaml\nbalancing: {{{section}}}\n```"
    if issubclass(cls, GradientBalancer):
        figure = balancing_methods.render_direction(name)
    else:
        figure = balancing_methods.render_weight_curves(name)
    return figure, balancing_methods.describe_cost(cls), recipe


def _render_overview() -> str:
    rows = [
        "# Methods\n\nThese pages are generated from docstrings, configurations and computed costs."
        " [Contributing](../contributing.md) describes how to add a method.",
        "## Decoders\n\n" + _table("decoders"),
        "## Balancing methods\n\n[Balancing](../concepts/balancing.md) compares them.\n\n"
        + _table("balancing"),
    ]
    return "\n\n".join(rows)


def _table(package: str) -> str:
    rows = [
        [f"[`{name}`]({package}/{name}.md)", _get_summary(registry.get_class(package, name))]
        for name in list_methods(package)
    ]
    return markdown_table([["name", ""], *rows], num_text_columns=2)
