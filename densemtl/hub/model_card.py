"""Model card of a published model, generated from its configuration and results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import registry
from densemtl.config.data_sets import MIXED, SETS
from densemtl.config.experiment import ExperimentConfig
from densemtl.config.set_config import SetConfig
from densemtl.data.datasets.mixed_sets import find_set_tasks
from densemtl.errors import UserError
from densemtl.io.atomic import atomic_write
from densemtl.results.results import Results
from densemtl.results.tables import ARROWS, markdown_table
from densemtl.results.terminal_tables import format_delta_note
from densemtl.tasks.added_metrics import IMAGES

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD_NAME = "README.md"
IMAGE_NAME = "predictions.png"
SPLITS = ("train", "val")

_USAGE_SECTION = """\
## Use

With densemtl installed:

```python
import densemtl

predictor = densemtl.Predictor.from_pretrained("{name}")
maps = predictor("photo.jpg")  # {{task: map of the photo's size}}
```

The tasks are {tasks}.
`densemtl.from_pretrained("{name}")` returns the model and its tasks.
"""

_LICENSE_SECTION = """## License

{license} The model was trained on {datasets}; the license of a dataset may also apply to models
that are trained on it.
"""

_HALF_NOTE = """\
The weights are stored in half precision (statistics of normalization layers in single precision),
and converted to single precision when they are loaded. {measured}
"""


def write_model_card(
    folder: Path,
    name: str,
    experiment: ExperimentConfig,
    results: Results | None,
    license: str,
    *,
    half: bool = False,
    notes: str = "",
) -> None:
    """Write the model card, `README.md`.

    Args:
        folder: folder of the published model; the card shows `predictions.png` if it is there.
        name: name or path with which the model is loaded.
        experiment: the experiment that trained the model.
        results: results of the model; None if it was not evaluated.
        license: license of the weights, as an identifier of the hub; "other" if it is not stated.
        half: whether the weights are stored in half precision.
        notes: Markdown that the card ends with.
    """
    head = _make_metadata(name, experiment, results, license)
    sections = [*_make_body(folder, name, experiment, results, license, half)]
    if notes.strip():
        sections.append(f"{notes.strip()}\n")
    body = "\n".join(sections)
    with atomic_write(folder / CARD_NAME) as tmp_path:
        tmp_path.write_text(f"---\n{head}\n---\n\n{body}", encoding="utf-8")


def _make_metadata(
    name: str, experiment: ExperimentConfig, results: Results | None, license: str
) -> str:
    """Return the metadata of the card, which the hub reads, as YAML."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="densemtl",
        license=license,
        tags=["multi-task-learning", "dense-prediction", *experiment.list_task_names()],
        model_name=name.rpartition("/")[2],
        eval_results=list(_make_eval_results(results, experiment)) if results else None,
    )
    return str(data.to_yaml())


def _make_eval_results(results: Results, experiment: ExperimentConfig) -> Iterator[EvalResult]:
    """Yield the primary metric of each task that has labeled images."""
    from huggingface_hub import EvalResult

    for task, result in results.tasks.items():
        if result.metrics[result.primary_metric] is not None:
            dataset = ", ".join(_list_datasets(experiment, task))
            yield EvalResult(
                task_type="image-segmentation",
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split=results.split,
                metric_type=result.primary_metric,
                metric_name=f"{task} {result.primary_metric}",
                metric_value=result.value,
            )


def _make_body(
    folder: Path,
    name: str,
    experiment: ExperimentConfig,
    results: Results | None,
    license: str,
    half: bool,
) -> Iterator[str]:
    """Yield the sections of the card in Markdown."""
    tasks = experiment.list_task_names()
    datasets = _join_datasets(experiment)
    yield f"# {name}\n"
    yield (
        f"Multi-task model for {', '.join(tasks)}: decoder `{experiment.decoder.name}`, head"
        f" `{experiment.head.name}`, backbone `{experiment.backbone.name}` (timm), trained with"
        f" densemtl on {datasets}.\n"
    )
    if (folder / IMAGE_NAME).exists():
        yield f"![Predictions above labels]({IMAGE_NAME})\n"
    yield _USAGE_SECTION.format(name=name, tasks=", ".join(tasks))
    yield "## Results\n"
    yield from _make_results_section(results, experiment) if results else ["Not evaluated.\n"]
    if half:
        yield _describe_rounding(results)
    yield _describe_training(experiment)
    yield from _make_set_table(experiment, results)
    stated = "Not stated." if license == "other" else f"Weights: {license}."
    yield _LICENSE_SECTION.format(license=stated, datasets=datasets)


def _describe_rounding(results: Results | None) -> str:
    measured = ""
    if results:
        measured = "The metrics are those of the rounded weights."
    if results and results.rounded_from:
        measured = f"The metrics are those of the weights `{results.rounded_from}` before rounding."
    return f"{_HALF_NOTE.format(measured=measured).strip()}\n"


def _make_results_section(results: Results, experiment: ExperimentConfig) -> Iterator[str]:
    compared = bool(results.baselines)
    mixed = experiment.data.name == MIXED
    columns = ["dataset", "metric", "images", "value"] if mixed else ["metric", "value"]
    head = ["task", *columns, *["single task", "delta %"] * compared]
    lines = [_make_row(task, results, experiment) for task in results.tasks]
    yield markdown_table([head, *lines], num_text_columns=3 if mixed else 2)
    if results.delta_m is not None:
        yield f"Multi-task performance Delta_m in percent: **{results.delta_m:+.2f}**.\n"
    if note := format_delta_note(results):
        yield f"{note}.\n"
    for task, result in results.tasks.items():
        if result.note:
            yield f"{task}: {result.note}.\n"
    stopped = "" if results.complete else " The run was stopped before its last epoch."
    if results.stop_reason:
        stopped = f" The training ended early: {results.stop_reason}."
    yield (
        f"Protocol `{results.protocol}`, at original image size, on the {results.images} images of"
        f" {_join_datasets(experiment)} {results.split}; one run, seed {results.seed}; weights"
        f" `{results.weights_hash}`.{stopped} These are the best weights of the run on the"
        " validation split.\n"
    )
    all_metrics = [
        [task, metric, _format_number(value)]
        for task, result in results.tasks.items()
        for metric, value in result.metrics.items()
    ]
    yield "<details><summary>All metrics</summary>\n"
    yield markdown_table([["task", "metric", "value"], *all_metrics], num_text_columns=2)
    yield "</details>\n"


def _make_row(task: str, results: Results, experiment: ExperimentConfig) -> list[str]:
    result = results.tasks[task]
    metric = f"{result.primary_metric} {ARROWS[result.higher_is_better]}"
    cells = [metric, _format_number(result.metrics[result.primary_metric])]
    if experiment.data.name == MIXED:
        images = _format_number(result.metrics.get(IMAGES))
        cells = [", ".join(_list_datasets(experiment, task)), metric, images, cells[-1]]
    if not results.baselines:
        return [task, *cells]
    delta = "" if result.delta is None else f"{result.delta:+.2f}"
    return [task, *cells, _format_number(results.baselines[task].value), delta]


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _describe_training(experiment: ExperimentConfig) -> str:
    height, width = experiment.input.size
    train = experiment.train
    length = f"epochs: {train.epochs}" if train.steps is None else f"steps: {train.steps}"
    if train.extensions:
        length += f" and {sum(part.epochs for part in train.extensions)} epochs of extension"
    return (
        f"## Training\n\nInput {height}x{width} ({experiment.input.fit}),"
        f" batches of {experiment.loader.batch_size}, {length},"
        f" {experiment.optim.name} at {experiment.optim.lr:g}, balancing"
        f" `{experiment.balancing.name}`. `config.yaml` contains the complete configuration, with"
        " which the training can be repeated.\n"
    )


def _make_set_table(experiment: ExperimentConfig, results: Results | None) -> Iterator[str]:
    """Yield a table of the datasets of a mixture with their tasks and numbers of images."""
    if experiment.data.name != MIXED:
        return
    counts = results.set_images if results else {}
    lines = [
        [name, ", ".join(tasks), *(str(counts.get(name, {}).get(split, "")) for split in SPLITS)]
        for name, tasks in _find_set_tasks(experiment).items()
    ]
    head = ["dataset", "tasks", "training images", "validation images"]
    yield markdown_table([head, *lines], num_text_columns=2)


def _find_set_tasks(experiment: ExperimentConfig) -> dict[str, list[str]]:
    """Return {set of a mixture: tasks of the run that it has labels of}."""
    found: dict[str, list[str]] = {}
    for name, options in experiment.data.options[SETS].items():
        config = SetConfig.model_validate(options)
        try:
            with registry.custom_code(False):
                offered = {*find_set_tasks(name, config)}
        except UserError:  # a custom class, or a dataset whose files state its tasks
            offered = {*(config.tasks or {}).values()}
        found[name] = [task for task in experiment.list_all_task_names() if task in offered]
    return found


def _list_datasets(experiment: ExperimentConfig, task: str) -> list[str]:
    """List the datasets with labels of a task."""
    if experiment.data.name != MIXED:
        return [experiment.data.name]
    return [name for name, tasks in _find_set_tasks(experiment).items() if task in tasks]


def _join_datasets(experiment: ExperimentConfig) -> str:
    mixed = experiment.data.name == MIXED
    names = experiment.data.options[SETS] if mixed else [experiment.data.name]
    return ", ".join(f"`{name}`" for name in names)
