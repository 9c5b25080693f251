"""Throughput of training steps of several networks, in several precisions."""

from __future__ import annotations

import statistics
import time

import torch
from gpu_context import CONFIGS, Context

from densemtl.analysis.speed.network import make_framework_step
from densemtl.analysis.speed.target import BenchmarkTarget
from densemtl.analysis.speed.timing import PeakMemory, measure_peak_flops

NETWORKS = {
    "resnet50": ("nyud/resnet50/hard_sharing.yaml", ()),
    "hrnet18": ("nyud/hrnet18/hard_sharing.yaml", ()),
    "vit_base": ("nyud/modern/hard_sharing.yaml", ("backbone.name=vit_base_patch16_224",)),
    "vit_large": ("nyud/modern/hard_sharing.yaml", ("backbone.name=vit_large_patch16_224",)),
}
"""{name: (configuration, overrides)}"""

SIZES = {"nyud": (480, 640), "pascal": (512, 512)}

PRECISIONS = {
    "fp32": ("train.amp=none", "train.tf32=false"),
    "tf32": ("train.amp=none", "train.tf32=true"),
    "bf16": ("train.amp=bf16",),
}

Row = dict[str, float | str]


def measure_precisions(context: Context) -> str:
    """Compare the precisions at batch size 8."""
    texts = []
    for name in list(NETWORKS)[:1] if context.small else NETWORKS:
        rows = [
            measure_step(_make_target(context, name, "nyud", 8, *options), context)
            for options in PRECISIONS.values()
        ]
        rates = [f"{key} {row['images/s']:.3g}" for key, row in zip(PRECISIONS, rows, strict=True)]
        texts.append(f"{name}: {', '.join(rates)}")
    return "; ".join(texts) + " images/s"


def measure_networks(context: Context) -> str:
    """Measure each network in bf16 at both sizes, in batches of 8 and 32."""
    rows = []
    for name in list(NETWORKS)[:1] if context.small else NETWORKS:
        for size in SIZES:
            for batch_size in (8, 32):
                try:
                    target = _make_target(context, name, size, batch_size, *PRECISIONS["bf16"])
                    row = measure_step(target, context)
                except torch.OutOfMemoryError:
                    row = {"images/s": "out of memory"}
                rows.append({"network": name, "size": size, "batch": batch_size, **row})
    return "\n" + _format_table(rows)


def _make_target(
    context: Context, name: str, size: str, batch_size: int, *options: str
) -> BenchmarkTarget:
    file, overrides = NETWORKS[name]
    height, width = SIZES[size]
    sizes = (f"input.size=[{height},{width}]", f"loader.batch_size={batch_size}")
    return context.make_target(context.load(CONFIGS / file, *overrides, *sizes, *options))


def measure_step(target: BenchmarkTarget, context: Context) -> Row:
    """Measure the step of a network: rate, time until it is submitted, peak share and memory.

    Args:
        target: the network.
        context: the device.

    Returns:
        {column: value}.
    """
    if context.on_gpu:
        torch.cuda.empty_cache()
    memory = PeakMemory(target.precision.device)
    step = make_framework_step(target)
    with memory.measure():
        for _ in range(1 if context.small else 5):
            step()
    context.synchronize()
    submitted = []
    started = time.perf_counter()
    for _ in range(2 if context.small else 20):
        begun = time.perf_counter()
        step()
        submitted.append(time.perf_counter() - begun)
    context.synchronize()
    seconds = (time.perf_counter() - started) / len(submitted)
    row: Row = {
        "GiB": memory.bytes / 2**30,
        "images/s": len(target.batch) / seconds,
        "ms": 1000 * seconds,
        "submit ms": 1000 * statistics.median(submitted),
    }
    if context.on_gpu:
        dtype = target.precision.autocast_dtype or torch.float32
        peak = measure_peak_flops(target.precision.device, dtype, 3)
        row["% of peak"] = 100 * target.count_step_flop() / seconds / peak
    return row


def measure_profile(context: Context) -> str:
    """List the operations of a step of the largest network that take most time on the device."""
    from torch.profiler import ProfilerActivity, profile

    name = "resnet50" if context.small else "vit_large"
    step = make_framework_step(_make_target(context, name, "nyud", 8, *PRECISIONS["bf16"]))
    step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if context.on_gpu else [])]
    with profile(activities=activities) as profiler:
        step()
        context.synchronize()
    key = "self_cuda_time_total" if context.on_gpu else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=50)
    return f"\n{table}"


def _format_table(rows: list[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows:
        values = [row.get(column, "") for column in columns]
        lines.append(" | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values))
    return "\n".join(f"| {line} |" for line in lines)
