"""A page for each architecture and balancing rule, from its code, recipes and equations."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import architectures
import rules

from densemtl import registry
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.results.tables import markdown_table

ROOT = Path(__file__).parents[2]
EQUATIONS = ROOT / "docs" / "equations"

WITHOUT_HEADING = """\
    options:
      members: false
      show_root_heading: false
      show_root_toc_entry: false
"""


def list_methods(package: str) -> list[str]:
    """The methods of "decoders" or "balancing"."""
    return registry.list_names(package)


def get_page_uri(package: str, name: str) -> str:
    """Where the page of a method lies."""
    return f"methods/{package}/{name}.md"


@cache
def make_pages() -> dict[str, str]:
    """{place in the site: Markdown} of all of them, and their overview."""
    made = {"methods/index.md": _render_overview()}
    for name in list_methods("decoders"):
        made[get_page_uri("decoders", name)] = _render_page(
            "decoders", name, *_describe_decoder(name)
        )
    for name in list_methods("balancing"):
        made[get_page_uri("balancing", name)] = _render_page(
            "balancing", name, *_describe_balancing_method(name)
        )
    return made


def _render_page(package: str, name: str, figure: str, cost: str, recipe: str) -> str:
    cls = registry.get_class(package, name)
    parts = [
        f"# {_get_title(cls)}",
        f"`{name}` · {_get_summary(cls)}",
        figure,
        _render_equations(package, name),
        f"## Description and options\n\n{_render_description(cls)}",
        f"## Cost\n\n{cost}",
        f"## Recipe\n\n{recipe}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _render_description(cls: type[Any]) -> str:
    """Its docstring, and those of the classes that define its other options."""
    classes = dict.fromkeys([cls, *filter(_has_options, registry.option_classes(cls))])
    return "\n".join(
        f"::: {each.__module__}.{each.__name__}\n{WITHOUT_HEADING}" for each in classes
    )


def _has_options(cls: type[Any]) -> bool:
    """Return whether a constructor defines keyword-only parameters itself."""
    parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
    return any(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters)


def _get_title(cls: type[Any]) -> str:
    """What its file calls it, `MTI-Net: ..` or `Sluice networks (..`, else the class's name."""
    named = re.match(r"([^.:(]+?) ?[:(]", _get_summary(cls))
    return named[1] if named else cls.__name__


def _get_summary(cls: type[Any]) -> str:
    """The first sentence of its file, which names the paper."""
    told = ast.get_docstring(ast.parse(Path(inspect.getfile(cls)).read_text(encoding="utf-8")))
    return (told or "").partition("\n\n")[0].replace("\n", " ")


def _render_equations(package: str, name: str) -> str:
    file = EQUATIONS / package / f"{name}.md"
    return f"## Equations\n\n{file.read_text(encoding='utf-8').strip()}" if file.exists() else ""


def _describe_decoder(name: str) -> tuple[str, str, str]:
    found = architectures.load_recipes().get(name, [])
    if not found:
        return "", "No recipe names it.", f"```yaml\ndecoder: {{name: {name}}}\n```"
    return (
        architectures.render_figure(found[0]),
        architectures.render_cost_table(found),
        architectures.render_recipe(found[0]),
    )


def _describe_balancing_method(name: str) -> tuple[str, str, str]:
    cls = registry.get_class("balancing", name)
    options = {
        key: field.default
        for key, field in registry.make_options_model(cls).model_fields.items()
        if field.default is not None
    }
    told = ", ".join([f"name: {name}", *(f"{key}: {each}" for key, each in options.items())])
    recipe = f"With its defaults:\n\n```yaml\nbalancing: {{{told}}}\n```"
    weighs_gradients = issubclass(cls, GradientBalancer)
    figure = rules.render_direction(name) if weighs_gradients else rules.render_weight_curves(name)
    return figure, rules.describe_cost(cls), recipe


def _render_overview() -> str:
    rows = [
        "# Methods\n\nThese pages are made from the code: what a docstring, a recipe or a count"
        " tells is told there alone. [Contributing](../contributing.md) says how one is added.",
        "## Architectures\n\n" + _table("decoders"),
        "## Balancing\n\nHow they compare: [balancing](../concepts/balancing.md).\n\n" + _table("balancing"),
    ]
    return "\n\n".join(rows)


def _table(package: str) -> str:
    rows = [
        [f"[`{name}`]({package}/{name}.md)", _get_summary(registry.get_class(package, name))]
        for name in list_methods(package)
    ]
    return markdown_table([["name", ""], *rows], num_text_columns=2)
