"""Check correctness and speed on a GPU, in at most eight minutes.

`bash benchmarks/gpu.sh` prints a line per check, and writes JSON with `--output`. The checks need
no data and no download. With `--device cpu --small`, they run on tiny networks, to try the script.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from densemtl import cli
from densemtl.errors import UserError

SECONDS = 450


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="gpu_checks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CHECK", help="names of checks (default: all)")
    parser.add_argument("--small", action="store_true", help="tiny networks and images")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"no check starts later (default: {SECONDS})"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the checks and print their results; the exit code is 1 if a check failed.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    import gpu_runs
    import gpu_speed
    import gpu_steps
    from gpu_context import Check, Context

    from densemtl.analysis.speed.report import describe_machine
    from densemtl.distributed.devices import get_local_device
    from densemtl.io.atomic import write_json

    get_local_device(args.device)
    checks: list[Check] = [
        *(gpu_steps.check_unknown_device, gpu_steps.check_decoders),
        *(gpu_steps.check_synchronization, gpu_steps.check_loss_scaling, gpu_runs.check_resume),
        *(gpu_speed.measure_networks, gpu_speed.measure_precisions, gpu_steps.check_compilation),
        *(gpu_steps.check_activation_checkpointing, gpu_runs.check_nccl, gpu_steps.check_graddrop),
        *(gpu_steps.check_loss_layouts, gpu_runs.check_checkpoint, gpu_runs.check_evaluation),
        *(gpu_runs.check_two_processes, gpu_runs.check_loading, gpu_speed.measure_profile),
    ]
    names = {check.__name__.partition("_")[2]: check for check in checks}
    for name in args.names:
        if name not in names:
            raise UserError(f"CHECK: no check {name!r}; choose from {', '.join(names)}")
    machine = describe_machine(args.device)
    print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    started = time.perf_counter()
    results: list[dict[str, Any]] = []
    for name in args.names or names:
        if time.perf_counter() - started > args.seconds:
            print(f"left out   {name}", flush=True)
            results.append({"check": name, "result": "left out"})
            continue
        with TemporaryDirectory() as folder:
            context = Context(args.device, args.small, Path(folder))
            results.append(_run(name, names[name], context))
    if args.output:
        write_json(args.output, {"machine": machine, "checks": results})
    if any(each["result"] == "failed" for each in results):
        sys.exit(1)


def _run(name: str, check: Callable[[Any], str], context: Any) -> dict[str, Any]:
    """Run one check, and print its result in a line."""
    from gpu_context import SkippedCheckError

    begun = time.perf_counter()
    try:
        text, result = check(context), "passed"
    except SkippedCheckError as error:
        text, result = str(error), "skipped"
    except Exception as error:
        text, result = f"{type(error).__name__}: {error}", "failed"
        traceback.print_exc()
    seconds = time.perf_counter() - begun
    print(f"{result}  {seconds:5.1f} s  {name}: {text}", flush=True)
    return {"check": name, "result": result, "seconds": seconds, "text": text}


if __name__ == "__main__":
    cli.run_main(main)
