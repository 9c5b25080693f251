"""Documentation: options and files in commands exist, examples load, links and navigation."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from densemtl import registry
from densemtl.config.experiment import load_experiment

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *ROOT.glob("*.md"),
        *ROOT.glob("datasets/*.md"),
        *ROOT.glob("examples/*.md"),
    ]
)
COMMAND = re.compile(r"python (?:\$\(which )?((?:tools|datasets|benchmarks)/\w+\.py)(.*)")
COMMANDS = [
    pytest.param(found[1], found[2], id=f"{page.relative_to(ROOT)}: {found[1]}{found[2]}"[:90])
    for page in PAGES
    for found in COMMAND.finditer(page.read_text(encoding="utf-8").replace("\\\n", " "))
]


@cache
def help_of(script: str, command: str) -> str:
    """Return what `--help` prints, for a subcommand if one is given."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        module.main([*([command] if command else []), "--help"])
    return shown.getvalue()


@pytest.mark.parametrize(("script", "rest"), COMMANDS)
def test_options_and_files_of_commands_exist(script: str, rest: str) -> None:
    words = shlex.split(rest.partition("  ")[0].partition("`")[0], comments=True)
    commands = {"evaluate": ("edges", "predictions"), "prepare_nyud": ("official", "normals")}
    known = commands.get(Path(script).stem, ())
    command = words[0] if words and words[0] in known else ""
    shown = help_of(script, command)
    assert "usage:" in shown
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(option)}\b", shown), f"{script} {command}: no {option}"
    for word in words:
        if word.startswith(("configs/", "benchmarks/", "examples/")):
            assert list(ROOT.glob(word)), word


def test_documentation_contains_commands() -> None:
    assert len(COMMANDS) > 40
    assert {"tools/train.py", "tools/benchmark.py"} <= {each.values[0] for each in COMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_exist(page: Path) -> None:
    generated = re.compile(r"(changelog|contributing|datasets|examples)\.md$|methods/index\.md$")
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists() or generated.search(target), target


@pytest.mark.parametrize("page", ["custom_data.md", "transfer.md"])
def test_configuration_of_tutorial_loads(page: str, tmp_path: Path) -> None:
    text = (DOCS / "tutorials" / page).read_text(encoding="utf-8")
    (found,) = re.findall(r'```yaml title="mine.yaml"\n(.*?)```', text, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(found)
    assert load_experiment(tmp_path / "mine.yaml").list_task_names() == ["semseg", "depth"]


def test_suite_of_benchmark_tutorial_loads(tmp_path: Path) -> None:
    from densemtl.benchmark.grid import make_plan
    from densemtl.benchmark.suite_config import load_benchmark_config

    text = (DOCS / "tutorials/benchmark_report.md").read_text(encoding="utf-8")
    (found,) = re.findall(r'```yaml title="suite.yaml"\n(.*?)```', text, re.DOTALL)
    (tmp_path / "suite.yaml").write_text(found.replace("configs/", f"{ROOT}/configs/"))
    suite = load_benchmark_config(tmp_path / "suite.yaml")
    runs = make_plan(suite, tmp_path / "suite.yaml", tmp_path)
    assert len(runs.runs) == 4


@pytest.mark.parametrize("package", ["decoders", "balancing"])
def test_every_method_has_an_introduction(package: str) -> None:
    written = {file.stem: file for file in (DOCS / "introductions" / package).glob("*.md")}
    assert set(written) == set(registry.list_names(package))
    assert all(100 < len(file.read_text(encoding="utf-8")) < 600 for file in written.values())


def test_architecture_page_lists_the_import_levels() -> None:
    from tests.test_imports import LEVELS

    text = (DOCS / "concepts/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    assert [tuple(re.findall(r"`(\w+)`:", row)) for _, row in rows] == list(LEVELS)
    assert [int(level) for level, _ in rows] == list(range(1, len(LEVELS) + 1))


@pytest.mark.parametrize("package", ["decoders", "balancing"])
def test_equation_files_belong_to_components(package: str) -> None:
    written = {file.stem for file in (DOCS / "equations" / package).glob("*.md")}
    assert written <= set(registry.list_names(package))


def test_navigation_lists_every_page() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = set(re.findall(r"[\w/]+\.md", str(nav)))
    outside = {"datasets.md", "examples.md", "contributing.md", "changelog.md"}
    generated = {"methods/index.md", "api/configuration.md"}
    included = ("equations/", "introductions/")  # parts of generated pages
    files = {str(file.relative_to(DOCS)) for file in DOCS.rglob("*.md")}
    pages = {file for file in files if not file.startswith(included)}
    assert named == pages | outside | generated


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lists_begin_after_an_empty_line(page: Path) -> None:
    """Without it, MkDocs shows a list as a part of the paragraph above, other than GitHub."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    item = re.compile(r"(?:[-*]|\d+\.) ")
    lines = text.splitlines()
    for before, line in pairwise(lines):
        starts = item.match(line) and not item.match(before)
        assert not (starts and before.strip() and not before.startswith(" ")), line
