"""Checks of single training steps: types, waiting for the device, balancing, compilation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from gpu_context import CONFIGS, TINY_NETWORK, Context, require

from densemtl import registry
from densemtl.analysis.speed.network import make_framework_step
from densemtl.analysis.speed.target import BenchmarkTarget
from densemtl.analysis.speed.timing import PeakMemory
from densemtl.distributed.devices import get_local_device
from densemtl.engine.train_step import TrainStep
from densemtl.errors import UserError

RESNET50 = CONFIGS / "nyud" / "resnet50" / "hard_sharing.yaml"


def check_decoders(context: Context) -> str:
    """Take two steps with each decoder in each autocast type."""
    # The decoders of tasks need another backbone.
    without = {"single_task", "mixture", "task_adapters", "task_prompts"}
    names = [name for name in registry.list_names("decoders") if name not in without]
    chosen = names[:3] if context.small else names
    for name in chosen:
        for amp in ("bf16", "fp16"):
            overrides = [f"decoder={{name: {name}}}", f"train.amp={amp}"]
            target = context.make_target(context.load(TINY_NETWORK, *overrides))
            step = target.make_train_step()
            for _ in range(2):
                total = step.run([target.batch])["total"]
            require(bool(total.isfinite()), f"{name} in {amp}: the loss is {float(total)}")
    return f"{len(chosen)} of {len(names)} decoders in bf16 and fp16"


def check_synchronization(context: Context) -> str:
    """Take steps in which waiting for the device is an error, or is counted."""
    counts = {}
    for name in ("fixed", "uncertainty", "famo", "mgda"):
        target = context.make_target(context.load(RESNET50, f"balancing={{name: {name}}}"))
        step = make_framework_step(target)
        step()
        with _waits_counted(context) as lines:
            step()
        counts[name] = len(lines)
        require(name == "mgda" or not lines, f"{name} waits: {lines[:1]}")
    return ", ".join(f"{name} {count}" for name, count in counts.items()) + " waits per step"


@contextmanager
def _waits_counted(context: Context) -> Iterator[list[str]]:
    """Record the places where the host waits for the GPU."""
    lines: list[str] = []
    if not context.on_gpu:
        yield lines
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield lines
        lines += [f"{each.filename}:{each.lineno}" for each in caught]
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_loss_layouts(context: Context) -> str:
    """Time the cross-entropy of 40 classes at full size in both memory layouts."""
    target = context.make_target(context.load(TINY_NETWORK))
    task = next(task for task in target.tasks if task.name == "semseg")
    size = (48, 64) if context.small else (480, 640)
    device = target.precision.device
    label = torch.randint(0, task.channels, (1, *size), device=device, dtype=torch.uint8)
    results = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        logits = torch.randn(1, task.channels, *size, device=device).to(memory_format=layout)
        logits.requires_grad_()

        def run(logits: torch.Tensor = logits) -> None:
            task.compute_loss(logits, label).backward()  # type: ignore[no-untyped-call]

        results[str(layout).removeprefix("torch.")] = context.time(run, 5)
    return ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in results.items())


def check_graddrop(context: Context) -> str:
    """Compare the time of GradDrop with that of MGDA."""
    seconds = {}
    for name in ("mgda", "graddrop"):
        target = context.make_target(context.load(RESNET50, f"balancing={{name: {name}}}"))
        seconds[name] = context.time(make_framework_step(target), 3)
    ratio = seconds["graddrop"] / seconds["mgda"]
    return f"graddrop takes {ratio:.2f} of the time of mgda"


def check_compilation(context: Context) -> str:
    """Compare losses of compiled steps, and count graphs for batches of several sizes."""
    texts = []
    for name in ("fixed", "mgda"):
        totals = {}
        for compiles in ("false", "true"):
            torch._dynamo.reset()
            overrides = [f"balancing={{name: {name}}}", f"train.compile={compiles}"]
            target = context.make_target(context.load(TINY_NETWORK, *overrides))
            step = target.make_train_step()
            totals[compiles] = [float(step.run([target.batch])["total"]) for _ in range(3)]
        difference = max(abs(a - b) / abs(a) for a, b in zip(*totals.values(), strict=True))
        require(difference < 0.01, f"{name}: compiled losses differ by {difference:.2%}")
        texts.append(f"{name} differs by {difference:.1e}")
    return ", ".join([*texts, f"{_count_eval_graphs(context)} graphs for batches of 8, 6 and 1"])


def _count_eval_graphs(context: Context) -> int:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    target = context.make_target(context.load(TINY_NETWORK))
    model = target.model.eval()
    model.compile()
    size = target.batch.image.shape[1:]
    for count in (8, 6, 1):
        with torch.inference_mode():
            image = torch.zeros(count, *size, dtype=torch.uint8, device=target.precision.device)
            target.precision.forward(model, image, full_size=False)
    return int(counters["stats"]["unique_graphs"])


def check_loss_scaling(context: Context) -> str:
    """Inject an infinite gradient with fp16 and gradient methods: the step must be skipped."""
    cases = [(name, scope) for name in ("mgda", "pcgrad") for scope in ("features", "parameters")]
    for name, scope in cases:
        overrides = [f"balancing={{name: {name}, scope: {scope}}}", "train.amp=fp16"]
        target = context.make_target(context.load(TINY_NETWORK, *overrides))
        step = target.make_train_step()
        step.run([target.batch])
        _check_skipped(step, target, f"{name} {scope}")
    return f"{len(cases)} cases skip the step and halve the scale"


def _check_skipped(step: TrainStep, target: BenchmarkTarget, name: str) -> None:
    parameter = max(step.model.parameters(), key=lambda each: each.numel())
    handle = parameter.register_hook(  # type: ignore[no-untyped-call]
        lambda gradient: torch.full_like(gradient, torch.inf)
    )
    before = [weight.detach().clone() for weight in step.model.parameters()]
    scale = step.scaler.get_scale()
    step.run([target.batch])
    handle.remove()
    if not step.scaler.is_enabled():
        return
    same = all(map(torch.equal, before, step.model.parameters()))
    require(same, f"{name}: weights changed in a step with infinite gradients")
    require(step.scaler.get_scale() < scale, f"{name}: the loss scale did not decrease")


def check_activation_checkpointing(context: Context) -> str:
    """Compare losses and memory with and without activation checkpointing."""
    losses, peaks = [], []
    for value in ("false", "true"):
        target = context.make_target(context.load(RESNET50, f"train.grad_checkpointing={value}"))
        step = target.make_train_step()
        peak = PeakMemory(target.precision.device)
        with peak.measure():
            losses.append([float(step.run([target.batch])["total"]) for _ in range(2)])
        peaks.append(peak.bytes)
        del target, step
    difference = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
    require(difference < 0.01, f"losses differ by {difference:.2%}")
    require(peaks[1] < peaks[0] or not context.on_gpu, "the memory did not decrease")
    return f"memory {peaks[1] / peaks[0]:.2f}, losses differ by {difference:.1e}"


def check_unknown_device(context: Context) -> str:
    """Ask for a GPU that does not exist."""
    try:
        get_local_device("cuda:9")
    except UserError as error:
        return str(error)
    return "this machine has ten GPUs" if context.on_gpu else "no error"
