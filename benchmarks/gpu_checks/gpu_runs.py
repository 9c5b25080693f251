"""Checks of runs: resuming, checkpoints, evaluation, several processes and data loading."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from gpu_context import CONFIGS, Context, SkippedCheckError, require
from torch import Tensor

from densemtl.config.experiment import ExperimentConfig
from densemtl.engine.checkpoint import LAST_DIR, read_checkpoint
from densemtl.engine.checkpoint_writer import CheckpointWriter
from densemtl.engine.run_components import TrainingRun
from densemtl.evaluation.evaluate import evaluate
from densemtl.factory import build_splits, build_tasks, build_train_loader
from densemtl.runs.train_run import train_experiment
from densemtl.runs.training_run import build_training_run
from densemtl.runtime.execution import make_execution_config

QUICK = CONFIGS / "synthetic" / "quick.yaml"
TOOL = CONFIGS.parent / "tools" / "train.py"

STEPS = 6
RUN_OPTIONS = (
    *("data.train_images=48", "data.val_images=7", "loader.batch_size=8", "loader.num_workers=0"),
    *("train.epochs=1", "train.visualize_every=0", "train.log_every_steps=1"),
)
"""Options of a run of six steps, whose validation images do not fill two ranks evenly."""


def load_quick(context: Context, *overrides: str) -> ExperimentConfig:
    """Load a short run on synthetic rooms."""
    return context.load(QUICK, *RUN_OPTIONS, *overrides)


def _build_run(context: Context, experiment: ExperimentConfig, name: str) -> TrainingRun:
    execution = make_execution_config(experiment.train, context.device)
    folder = context.folder / name
    folder.mkdir()
    return build_training_run(experiment, build_splits(experiment), folder, execution)


def check_resume(context: Context) -> str:
    """Compare six deterministic steps with six others, and with three and three resumed."""
    experiment = load_quick(context, "train.deterministic=true")
    weights = []
    for name, stops in (("once", [STEPS]), ("again", [STEPS]), ("resumed", [3, STEPS])):
        for steps in stops:
            train_experiment(experiment, context.folder / name, context.device, max_steps=steps)
        weights.append(_read_weights(context.folder / name))
    torch.use_deterministic_algorithms(False)
    again, resumed = (_find_difference(weights[0], others) for others in weights[1:])
    require(
        again == resumed == 0, f"weights differ by {again:.2g} (again), {resumed:.2g} (resumed)"
    )
    return "six steps, six again, and three and three resumed have equal bits"


def _read_weights(folder: Path) -> dict[str, Tensor]:
    checkpoint = read_checkpoint(folder)
    require(checkpoint is not None, f"{folder}: no checkpoint")
    assert checkpoint is not None
    return checkpoint[0].tensors


def _find_difference(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    return max(float((one[name].float() - two[name].float()).abs().max()) for name in one)


def check_checkpoint(context: Context) -> str:
    """Measure the time and size of a checkpoint of ResNet-50."""
    name = "test_resnet" if context.small else "resnet50"
    run = _build_run(context, load_quick(context, f"backbone.name={name}"), "checkpoint")
    run.train_step.run([next(iter(run.train_loader))])
    seconds = context.time(lambda: run.state.save(run.folder, run.config_yaml), 2)
    size = sum(file.stat().st_size for file in (run.folder / LAST_DIR).iterdir())
    writer = CheckpointWriter(in_background=True)
    for _ in range(2):  # the first copy allocates memory
        waited = writer.save(run.state, run.folder, run.config_yaml)
        writer.wait()
    return f"{seconds:.2f} s for {size / 1e6:.0f} MB; {waited:.3f} s in the background"


def check_evaluation(context: Context) -> str:
    """Compare the time of an evaluation with that of its forward passes."""
    count = 8 if context.small else 64
    overrides = ["tasks=[semseg,depth,normals,edge]", f"data.val_images={count}"]
    run = _build_run(context, load_quick(context, *overrides), "evaluation")
    batches = list(run.val_loader)
    model, execution = run.state.eval_model, run.train_step.precision

    def forward() -> None:
        model.eval()
        with torch.inference_mode():
            for batch in batches:
                execution.forward(model, batch.to(execution.device).model_input, full_size=False)

    def score() -> None:
        evaluate(model, batches, run.tasks, run.protocol, execution)

    times = context.time(forward, 2), context.time(score, 2)
    per_image = [1000 * seconds / count for seconds in times]
    return (
        f"{per_image[1]:.2f} ms per image, of which forward {per_image[0]:.2f}:"
        f" {times[1] / times[0]:.2f}x"
    )


def check_two_processes(context: Context) -> str:
    """Compare the losses of two processes with gloo on the CPU with those of one process."""
    losses = [_train_in_processes(context, count, "cpu") for count in (1, 2)]
    difference = max(
        abs(one[task] - two[task]) / abs(one[task])
        for one, two in zip(*losses, strict=True)
        for task in ("semseg", "depth", "normals")
    )
    require(difference < 1e-4, f"losses differ by {difference:.1e}")
    return f"losses differ by {difference:.1e} in {len(losses[0])} steps"


def check_nccl(context: Context) -> str:
    """Train with FSDP on one rank with NCCL, resume it, and evaluate."""
    if not context.on_gpu:
        raise SkippedCheckError("needs a GPU")
    losses = _train_in_processes(context, 1, "cuda", "train.fsdp=true", through_torchrun=True)
    return f"{len(losses)} steps with FSDP, last loss {losses[-1]['total']:.3f}"


def _train_in_processes(
    context: Context, count: int, device: str, *overrides: str, through_torchrun: bool = False
) -> list[dict[str, float]]:
    """Train with the tool in several processes; return the logged losses of each step."""
    folder = context.folder / f"{device}_{count}_{len(overrides)}"
    options = [
        *("backbone.pretrained=false", "backbone.name=test_resnet", "baselines=none", *RUN_OPTIONS),
        *("train.amp=none", "train.channels_last=true", *overrides),
    ]
    launcher = [sys.executable]
    if count > 1 or through_torchrun:
        launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    command = [*launcher, str(TOOL), str(QUICK), *options, "--device", device]
    done = subprocess.run(
        [*command, "--output", str(folder)], capture_output=True, text=True, check=False
    )
    require(done.returncode == 0, f"{' '.join(command)}: {done.stderr[-500:]}")
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [entry for entry in entries if entry["kind"] == "train"]


def check_loading(context: Context) -> str:
    """Measure images per second of the data loader with several numbers of workers."""
    rates = []
    for workers in (0, 2) if context.small else (2, 4, 8):
        experiment = load_quick(
            context, f"loader.num_workers={workers}", "data.train_images=160", "loader.cache=none"
        )
        tasks = build_tasks(experiment)
        loader = build_train_loader(experiment, build_splits(experiment).train, tasks, True)
        batches = iter(loader)
        next(batches)
        started, images = time.perf_counter(), 0
        for batch in batches:
            images += len(batch)
        rates.append(f"{workers} workers {images / (time.perf_counter() - started):.0f}")
    return ", ".join(rates) + " images/s"
