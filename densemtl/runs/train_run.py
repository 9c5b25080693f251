"""Complete run: single-task baselines, training, results and plots."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.check import DataWarning
from densemtl.data.dataloader import translate_worker_errors
from densemtl.data.splits import Splits
from densemtl.distributed.collectives import barrier, is_main_process
from densemtl.engine.async_updates import check_async_updates
from densemtl.engine.build_distillation import compute_teacher_costs
from densemtl.engine.checkpoint import has_checkpoint
from densemtl.engine.final_metrics import compute_final_metrics
from densemtl.engine.optimizer import make_optimizer
from densemtl.engine.run_log import LOG_FILE, RELATIONS, SHARING, read_log
from densemtl.engine.sequential_heads import check_sequential_heads
from densemtl.engine.trainer import train
from densemtl.errors import ConfigError
from densemtl.factory import (
    build_auxiliary_tasks,
    build_balancer,
    build_splits,
    build_tasks,
    build_trackers,
    save_task_defaults,
)
from densemtl.io.paths import parse_path
from densemtl.models.memory_layout import choose_layout
from densemtl.results.baselines import add_baselines, load_baselines
from densemtl.results.results import BASELINES, RESULTS_FILE, ComparisonKey, Results
from densemtl.runs.class_weights import compute_class_weights, keep_class_weights
from densemtl.runs.data_check import (
    check_before_training,
    select_warnings,
    warn_about_random_frozen,
)
from densemtl.runs.extension import (
    Extension,
    add_history,
    describe_shorter_baselines,
    extend_experiment,
)
from densemtl.runs.feature_cache import check_feature_cache
from densemtl.runs.initial_model import InitialModel, build_initial_model
from densemtl.runs.record import build_results
from densemtl.runs.run_dir import choose_amp, reserve_run_dir, write_config
from densemtl.runs.run_lock import lock_run_dir
from densemtl.runs.teacher_cache import fill_missing_labels
from densemtl.runs.teachers import load_teachers
from densemtl.runs.training_run import (
    build_relationship,
    build_training_run,
    list_parameter_groups,
    list_weight_sections,
)
from densemtl.runs.transfer import transfer_weights
from densemtl.runs.value_classes import fit_value_classes
from densemtl.runs.warm_start import require_task_networks, warm_start
from densemtl.runtime.execution import ExecutionConfig, make_execution_config
from densemtl.runtime.progress_bar import print_message
from densemtl.runtime.versions import get_versions
from densemtl.visualization.matrix_history import plot_matrix_history
from densemtl.visualization.training_curves import plot_balancing, plot_training_curves

CURVES_FILE = "curves.png"
BALANCING_FILE = "balancing.png"


@translate_worker_errors()
def train_experiment(
    experiment: ExperimentConfig,
    folder: Path,
    device: str | None = None,
    max_steps: int | None = None,
    extension: Extension | None = None,
) -> Results:
    """Train an experiment and its single-task baselines, or resume them from their checkpoints.

    Args:
        experiment: the experiment to train.
        folder: the run folder; baselines are saved next to it, in `baselines/`.
        device: "cpu", "cuda", "cuda:1" or "mps"; None selects a GPU if there is one.
        max_steps: number of optimizer steps after which each run stops; another call resumes it.
        extension: further epochs after the end of a finished run. Baselines are not extended.

    Returns:
        The results of the best validated weights, including Delta_m if there are baselines.

    Raises:
        UserError: if the user can fix the cause; the folder keeps everything that was finished.
        CheckpointError: if another process is training in the folder.
    """
    get_versions()  # cached before training, since source files may change during a long run
    execution = make_execution_config(experiment.train, device)
    with lock_run_dir(folder):
        if extension is not None:
            experiment = extend_experiment(experiment, folder, extension)
        return _train_locked(experiment, folder, execution, max_steps)


def _train_locked(
    experiment: ExperimentConfig,
    folder: Path,
    execution: ExecutionConfig,
    max_steps: int | None,
) -> Results:
    experiment, teachers = load_teachers(save_task_defaults(experiment), execution)
    experiment, execution = choose_amp(experiment, folder, execution)
    initial = _prepare(experiment, folder)
    splits = build_splits(experiment)
    warnings = [
        *warn_about_random_frozen(experiment),
        *check_before_training(experiment, splits),
    ]
    weighted = compute_class_weights(reserve_run_dir(folder, experiment), splits.train)
    filled, filling_warnings = fill_missing_labels(experiment, splits, teachers)
    teachers.clear()  # frees the memory of their models
    baseline_runs = _train_baselines(
        experiment, splits, folder.parent, execution, max_steps, warnings, weighted
    )
    experiment = keep_class_weights(experiment, weighted)
    init_from = _resolve_init_from(experiment, baseline_runs)
    warnings += filling_warnings
    results = _train_run(
        experiment, filled, folder, execution, max_steps, initial, warnings, init_from
    )
    if baseline_runs:
        results = _compare(results, baseline_runs, reserve_run_dir(folder, experiment))
        if is_main_process() and _is_replaceable(results, folder):
            results.save(folder / RESULTS_FILE)
    return results


def _compare(
    results: Results, baseline_runs: Mapping[str, Path], experiment: ExperimentConfig
) -> Results:
    """Add baselines and Delta_m, and a warning if only the run was extended."""
    lines = describe_shorter_baselines(experiment)
    for line in lines:
        print_message(f"warning: {line}")
    warnings = {"warnings": [*results.warnings, *lines]}
    return add_baselines(results, baseline_runs).model_copy(update=warnings)


def _prepare(experiment: ExperimentConfig, folder: Path) -> InitialModel:
    """Build the model, and check everything that could fail after hours of single-task training."""
    tasks = build_tasks(experiment)
    initial = build_initial_model(experiment, tasks)
    all_tasks = [*tasks, *build_auxiliary_tasks(experiment)]
    balancer = build_balancer(experiment, all_tasks)
    balancer.validate_model(initial.model)
    build_relationship(experiment, initial.model, all_tasks)
    check_sequential_heads(experiment.train, initial.model, balancer)
    check_async_updates(experiment.train, balancer, all_tasks, list_weight_sections(experiment))
    groups = list_parameter_groups(initial.model, initial.distillation)
    make_optimizer(experiment.optim, groups, balancer, initial.model)
    build_trackers(experiment)
    for name, cost in compute_teacher_costs(initial.distillation).items():
        print_message(f"distill: {name}: {cost}")
    if experiment.loader.cache == "features":
        check_feature_cache(experiment, initial.model)
    if isinstance(experiment.init_from, dict):
        warm_start(initial.model, experiment.init_from)
    elif experiment.init_from == "baselines":
        require_task_networks(initial.model)
    elif isinstance(experiment.init_from, Path) and not has_checkpoint(folder):
        report = transfer_weights(
            initial.model, experiment.init_from, strict=experiment.init_strict
        )
        if is_main_process():
            print(report)
    return initial


def _train_baselines(
    experiment: ExperimentConfig,
    splits: Splits,
    parent_dir: Path,
    execution: ExecutionConfig,
    max_steps: int | None,
    warnings: Sequence[DataWarning],
    weighted: ExperimentConfig,
) -> Mapping[str, Path]:
    """Return {task: run folder or results file}, after training the baselines if necessary.

    They use the computed class weights of `weighted` if these are from the same images.
    """
    if experiment.baselines == "none":
        return {}
    if isinstance(experiment.baselines, dict):
        load_baselines(_make_comparison_key(experiment, splits, max_steps), experiment.baselines)
        return experiment.baselines
    folders = {}
    for name in experiment.list_task_names():
        single = experiment.to_single_task(name)
        in_memory = experiment.loader.cache == "memory"
        data = splits.select_tasks([name]) if in_memory else build_splits(single)
        folder = (
            parent_dir
            / BASELINES
            / f"{experiment.data.name}-{name}-{_make_baseline_key(single, data)}"
        )
        if list(data.train.ids) == list(splits.train.ids):
            single = keep_class_weights(single, weighted)
        initial = build_initial_model(single, build_tasks(single))
        with lock_run_dir(folder, wait=True):  # another run may train the same baseline
            _train_run(single, data, folder, execution, max_steps, initial, warnings)
        folders[name] = folder
    return folders


def _resolve_init_from(
    experiment: ExperimentConfig, baseline_runs: Mapping[str, Path]
) -> Mapping[str, Path]:
    """Return {task: single-task run from whose weights its network still has to be started}.

    Raises:
        ConfigError: if the run should start from baselines but has none.
    """
    if experiment.init_from != "baselines":
        return {}
    if not baseline_runs:
        raise ConfigError(
            "init_from: baselines: this run has no baselines; set baselines=auto, or list runs"
        )
    return baseline_runs


def _make_comparison_key(
    experiment: ExperimentConfig, splits: Splits, max_steps: int | None
) -> ComparisonKey:
    """Return the key that user-supplied baselines must match, checked before training."""
    protocol = experiment.protocol
    return ComparisonKey(
        protocol=protocol,
        dataset=experiment.data.name,
        split_fingerprint=splits.val.fingerprint(),
        backbone=experiment.backbone.name,
        primary_metrics={
            task.name: task.get_primary_metric(protocol) for task in build_tasks(experiment)
        },
        complete=max_steps is None,
    )


def _make_baseline_key(experiment: ExperimentConfig, splits: Splits) -> str:
    """Return a hash of data, configuration and the content of the weights file of the backbone.

    Equal baselines are therefore trained only once, and others are not used by mistake.
    """
    images = f"{splits.train.fingerprint()[:4]}{splits.val.fingerprint()[:4]}"
    key = f"{experiment.compute_config_hash()}-{images}"
    file = experiment.backbone.options.get("weights")
    if not file:
        return key
    return f"{key}-{hashlib.sha256(parse_path(file).read_bytes()).hexdigest()[:8]}"


def _train_run(
    experiment: ExperimentConfig,
    splits: Splits,
    folder: Path,
    execution: ExecutionConfig,
    max_steps: int | None,
    initial: InitialModel,
    warnings: Sequence[DataWarning],
    init_from: Mapping[str, Path] | None = None,
) -> Results:
    experiment = reserve_run_dir(folder, experiment)
    experiment = compute_class_weights(experiment, splits.train)  # if not those of `weighted`
    experiment, execution = choose_layout(experiment, initial.model, execution)
    write_config(folder, experiment)
    if not has_checkpoint(folder):
        fit_value_classes(initial.model, splits.train)
    run = build_training_run(experiment, splits, folder, execution, init_from, initial)
    train(run, max_steps)
    compute_final_metrics(run)
    data_warnings = select_warnings(warnings, experiment.list_all_task_names())
    results = build_results(experiment, splits, run, initial.gflop, data_warnings)
    results = add_history(results, experiment, folder)
    barrier()  # all ranks have read the earlier results
    if is_main_process():
        _write_outputs(results, folder)
    barrier()
    return results


def _is_replaceable(results: Results, folder: Path) -> bool:
    """Return whether `results.json` may be replaced: not before an extension is finished."""
    return results.complete or not (results.history and (folder / RESULTS_FILE).exists())


def _write_outputs(results: Results, folder: Path) -> None:
    if _is_replaceable(results, folder):
        results.save(folder / RESULTS_FILE)
    lines = read_log(folder / LOG_FILE)
    metrics = {name: result.validation_metric for name, result in results.tasks.items()}
    plot_training_curves(folder / CURVES_FILE, lines, metrics)
    plot_balancing(folder / BALANCING_FILE, lines)
    for kind in (SHARING, RELATIONS):
        plot_matrix_history(folder / f"{kind}.png", lines, kind)
