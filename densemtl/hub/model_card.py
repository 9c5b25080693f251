"""Model card of a published model, generated from its configuration and results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl.config.experiment import ExperimentConfig
from densemtl.io.atomic import atomic_write
from densemtl.results.results import Results, TaskResult
from densemtl.results.tables import ARROWS, markdown_table
from densemtl.results.terminal_tables import format_delta_note

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD_NAME = "README.md"
IMAGE_NAME = "predictions.png"

_USAGE_SECTION = """\
## Use

With densemtl installed:

```python
import densemtl

predictor = densemtl.Predictor.from_pretrained("{name}")
maps = predictor("photo.jpg")    # {{task: map of the photo's size}}: {tasks}
```

`densemtl.from_pretrained("{name}")` returns the model and its tasks.
"""

_LICENSE_SECTION = """## License

{license} The model was trained on `{dataset}`; the license of the dataset may also apply to models
that are trained on it.
"""


def write_model_card(
    folder: Path, name: str, experiment: ExperimentConfig, results: Results | None, license: str
) -> None:
    """Write the model card, `README.md`.

    Args:
        folder: folder of the published model; the card shows `predictions.png` if it is there.
        name: name or path with which the model is loaded.
        experiment: the experiment that trained the model.
        results: results of the model; None if it was not evaluated.
        license: license of the weights, as an identifier of the hub; "other" if it is not stated.
    """
    head = _make_metadata(name, experiment, results, license)
    body = "\n".join(_make_body(folder, name, experiment, results, license))
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
        eval_results=list(_make_eval_results(results)) if results else None,
    )
    return str(data.to_yaml())


def _make_eval_results(results: Results) -> Iterator[EvalResult]:
    """Yield the primary metric of each task that has labeled images."""
    from huggingface_hub import EvalResult

    dataset = results.run["dataset"]
    for task, result in results.tasks.items():
        if result.metrics[result.primary_metric] is not None:
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
    folder: Path, name: str, experiment: ExperimentConfig, results: Results | None, license: str
) -> Iterator[str]:
    """Yield the sections of the card in Markdown."""
    tasks = experiment.list_task_names()
    yield f"# {name}\n"
    yield (
        f"Multi-task model for {', '.join(tasks)}: decoder `{experiment.decoder.name}`, head"
        f" `{experiment.head.name}`, backbone `{experiment.backbone.name}` (timm), trained with"
        f" densemtl on `{experiment.data.name}`.\n"
    )
    if (folder / IMAGE_NAME).exists():
        yield f"![Predictions above labels]({IMAGE_NAME})\n"
    yield _USAGE_SECTION.format(name=name, tasks=", ".join(tasks))
    yield "## Results\n"
    yield from _make_results_section(results) if results else ["Not evaluated.\n"]
    yield _describe_training(experiment)
    stated = "Not stated." if license == "other" else f"Weights: {license}."
    yield _LICENSE_SECTION.format(license=stated, dataset=experiment.data.name)


def _make_results_section(results: Results) -> Iterator[str]:
    compared = bool(results.baselines)
    head = ["task", "metric", "value", *["single task", "delta %"] * compared]
    lines = [_make_row(task, result, results) for task, result in results.tasks.items()]
    yield markdown_table([head, *lines], num_text_columns=2)
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
        f" `{results.run['dataset']}` {results.split}; one run, seed {results.seed}; weights"
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


def _make_row(task: str, result: TaskResult, results: Results) -> list[str]:
    metric = f"{result.primary_metric} {ARROWS[result.higher_is_better]}"
    cells = [task, metric, _format_number(result.metrics[result.primary_metric])]
    if not results.baselines:
        return cells
    delta = "" if result.delta is None else f"{result.delta:+.2f}"
    return [*cells, _format_number(results.baselines[task].value), delta]


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
