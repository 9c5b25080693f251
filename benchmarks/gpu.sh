#!/usr/bin/env bash
# Check correctness and speed on a GPU, in at most eight minutes: see benchmarks/gpu_checks.
# Without a GPU, try the script by: bash benchmarks/gpu.sh --device cpu --small
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH="$PWD" exec timeout 480 "${PYTHON:-python3}" benchmarks/gpu_checks/run_gpu_checks.py "$@"
