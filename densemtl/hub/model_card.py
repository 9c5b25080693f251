"""A model card, made of a run's configuration and results alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl.io.atomic import replacing
from densemtl.config.experiment import Experiment
from densemtl.results.results import Results, TaskResult
from densemtl.results.tables import ARROWS, markdown_table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

CARD = "README.md"
PICTURE = "predictions.png"

_USE = """\
## Use

With densemtl installed:

```python
import densemtl

predictor = densemtl.Predictor.from_pretrained("{name}")
maps = predictor("photo.jpg")    # {{task: map of the photo's size}}: {tasks}
```

`densemtl.from_pretrained("{name}")` gives the network and its tasks themselves.
"""

_LICENCES = """## Licence

{licence} Trained on `{dataset}`, whose own licence may bind what is learnt from it.
"""


def write_card(
    folder: Path, name: str, experiment: Experiment, results: Results | None, licence: str
) -> None:
    """Write README.md.

    Args:
        folder: of the published network; a picture that lies there already is shown.
        name: of the network, by which it is fetched.
        experiment: that trained it.
        results: None where it was not evaluated.
        licence: of the weights, by its hub identifier.
    """
    head = _metadata(name, experiment, results, licence)
    body = "\n".join(_body(folder, name, experiment, results, licence))
    with replacing(folder / CARD) as draft:
        draft.write_text(f"---\n{head}\n---\n\n{body}", encoding="utf-8")


def _metadata(name: str, experiment: Experiment, results: Results | None, licence: str) -> str:
    """The YAML that the hub reads."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="densemtl",
        license=licence,
        tags=["multi-task-learning", "dense-prediction", *experiment.task_names()],
        model_name=name.rpartition("/")[2],
        eval_results=list(_scores(results)) if results else None,
    )
    return str(data.to_yaml())


def _scores(results: Results) -> Iterator[EvalResult]:
    """Each task's primary metric, unless it had nothing to score."""
    from huggingface_hub import EvalResult

    dataset = results.run["dataset"]
    for task, result in results.tasks.items():
        if result.metrics[result.primary] is not None:
            yield EvalResult(
                task_type="image-segmentation",
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split=results.split,
                metric_type=result.primary,
                metric_name=f"{task} {result.primary}",
                metric_value=result.value,
            )


def _body(
    folder: Path, name: str, experiment: Experiment, results: Results | None, licence: str
) -> Iterator[str]:
    tasks = experiment.task_names()
    yield f"# {name}\n"
    yield (
        f"One network for {', '.join(tasks)}: architecture `{experiment.decoder.name}`, heads"
        f" `{experiment.head.name}`, backbone `{experiment.backbone.name}` (timm), trained by"
        f" densemtl on `{experiment.data.name}`.\n"
    )
    if (folder / PICTURE).exists():
        yield f"![Predictions above labels]({PICTURE})\n"
    yield _USE.format(name=name, tasks=", ".join(tasks))
    yield "## Results\n"
    yield from _results(results) if results else ["Not evaluated.\n"]
    yield _training(experiment)
    stated = "Not stated." if licence == "other" else f"Weights: {licence}."
    yield _LICENCES.format(licence=stated, dataset=experiment.data.name)


def _results(results: Results) -> Iterator[str]:
    compared = bool(results.baselines)
    head = ["task", "metric", "value", *["single task", "delta %"] * compared]
    lines = [_line(task, each, results) for task, each in results.tasks.items()]
    yield markdown_table([head, *lines], num_text_columns=2)
    if results.delta_m is not None:
        yield f"Multi-task performance Delta_m, in percent better: **{results.delta_m:+.2f}**.\n"
    stopped = "" if results.complete else " The run was stopped before its end."
    yield (
        f"Protocol `{results.protocol}`, at original image size, on the {results.images} images of"
        f" `{results.run['dataset']}` {results.split}; one run, seed {results.seed}; weights"
        f" `{results.weights}`.{stopped} Reported are the best validated weights of the run.\n"
    )
    every = [
        [task, metric, _number(value)]
        for task, each in results.tasks.items()
        for metric, value in each.metrics.items()
    ]
    yield "<details><summary>Every metric</summary>\n"
    yield markdown_table([["task", "metric", "value"], *every], num_text_columns=2)
    yield "</details>\n"


def _line(task: str, result: TaskResult, results: Results) -> list[str]:
    metric = f"{result.primary} {ARROWS[result.higher_is_better]}"
    cells = [task, metric, _number(result.metrics[result.primary])]
    if not results.baselines:
        return cells
    delta = "" if result.delta is None else f"{result.delta:+.2f}"
    return [*cells, _number(results.baselines[task].value), delta]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _training(experiment: Experiment) -> str:
    height, width = experiment.input.size
    return (
        f"## Training\n\nInput {height}x{width} ({experiment.input.fit}),"
        f" batches of {experiment.loader.batch_size}, epochs: {experiment.train.epochs},"
        f" {experiment.optim.name} at {experiment.optim.lr:g}, balancing"
        f" `{experiment.balancing.name}`; all of it in `config.yaml`, which trains it again.\n"
    )
