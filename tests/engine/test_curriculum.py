"""Tests of the curriculum: absent tasks, weights of added tasks, anchor, probe and resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from densemtl import registry
from densemtl.config.curriculum import CurriculumConfig
from densemtl.engine import curriculum_probe
from densemtl.engine.curriculum import Curriculum
from densemtl.engine.curriculum_probe import Batches, choose_tasks
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.run_log import read_log
from densemtl.engine.train_batches import TrainBatches
from densemtl.engine.train_step import TrainStep
from densemtl.engine.trainer import train
from densemtl.errors import ConfigError
from densemtl.runtime.rng_state import get_rng_state
from densemtl.tasks.base import Task
from tests.engine.test_gradient_accumulation import make_batch, make_step
from tests.engine.test_trainer import assert_equal_runs, make_run
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.small_network import TASK_OPTIONS

ALL_TASKS = ("semseg", "depth", "normals")
PHASES = [{"until": 0.5, "tasks": ["depth"]}, {"until": 1}]
curriculum_probe_measure = curriculum_probe._measure


def make_tasks(*names: str) -> list[Task]:
    options = {**TASK_OPTIONS, "semseg": {"class_names": ["wall", "floor", "chair"]}}
    return [registry.create("tasks", name, name, options=options[name]) for name in names]


def make_curriculum(step: TrainStep, num_steps: int = 100, **options: object) -> Curriculum:
    config = CurriculumConfig.model_validate({"phases": PHASES, **options})
    names = [task.name for task in step.tasks]
    return Curriculum(config, step.model, names, num_steps)  # type: ignore[arg-type]


def begin(step: TrainStep, curriculum: Curriculum, number: int) -> None:
    """Set a training step to step `number` of its curriculum."""
    step.curriculum = curriculum
    curriculum.begin_phase(number, lambda tasks, count: tasks[:count])
    curriculum.set_step(number)
    step.balancer.set_active(curriculum.active)


@pytest.mark.parametrize("method", sorted({*registry.list_names("balancing")} - {"rlw"}))
@pytest.mark.filterwarnings("ignore:.*plain sum")
def test_a_task_that_is_not_trained_is_absent(method: str) -> None:
    """Compare with a training in which the task does not exist."""
    torch.manual_seed(0)
    with_task = make_step(make_tasks(*ALL_TASKS), method, {})
    phases = [{"until": 1, "tasks": ["semseg", "depth"]}]
    begin(with_task, make_curriculum(with_task, phases=phases), 0)
    torch.manual_seed(0)
    without = make_step(make_tasks(*ALL_TASKS[:2]), method, {})
    start = with_task.model.get_parameter("heads.normals.weight").clone()
    for step in (with_task, without):
        for number in range(3):
            torch.manual_seed(number)
            step.run([make_batch(number)])
            step.balancer.end_epoch()
    for name, expected in without.model.named_parameters():
        actual = with_task.model.get_parameter(name)
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
    assert torch.equal(with_task.model.get_parameter("heads.normals.weight"), start)


def test_random_weights_are_shared_among_the_trained_tasks() -> None:
    step = make_step(make_tasks(*ALL_TASKS), "rlw", {})
    begin(step, make_curriculum(step, phases=[{"until": 1, "tasks": ["semseg", "depth"]}]), 0)
    log = step.run([make_batch(0)])
    weights = [float(log[f"weight/{task}"]) for task in ALL_TASKS]
    assert weights[2] == 0
    assert sum(weights) == pytest.approx(2)


def test_weights_of_added_tasks_increase_after_balancing() -> None:
    step = make_step(make_tasks("semseg", "depth"), "fixed", {})
    curriculum = make_curriculum(step, ramp=0.04)
    weights, factors = torch.tensor([3.0, 5.0]), []
    for number in (0, 49, 50, 51, 53, 54, 99):
        begin(step, curriculum, number)
        factors.append((curriculum.scale_weights(weights) / weights).tolist())
    assert factors == [[1, 1], [1, 1], [0.25, 1], [0.5, 1], [1, 1], [1, 1], [1, 1]]


@pytest.mark.parametrize("method", ["fixed", "pcgrad"])
def test_the_ramp_scales_the_gradient_of_shared_parameters(method: str) -> None:
    """With one trained task, gradient methods follow its loss too."""
    grads = []
    for ramp in (0.0, 0.04):
        step = make_step(make_tasks("semseg", "depth"), method, {})
        phases = [{"until": 0.5, "tasks": ["depth"]}, {"until": 1, "tasks": ["semseg"]}]
        curriculum = make_curriculum(step, ramp=ramp, phases=phases)
        begin(step, curriculum, 0)
        begin(step, curriculum, 50)
        step.run([make_batch(0)])
        grads.append(step.model.get_parameter("first.weight").grad)
    torch.testing.assert_close(grads[1], grads[0] / 4)


def test_anchor_pulls_to_the_start_of_the_phase_in_its_first_half() -> None:
    step = make_step(make_tasks("semseg", "depth"), "fixed", {})
    curriculum = make_curriculum(step, anchor=0.5)
    weight = step.model.get_parameter("first.weight")
    begin(step, curriculum, 0)
    assert curriculum.compute_penalty() is None
    begin(step, curriculum, 50)
    start = weight.detach().clone()
    with torch.no_grad():
        weight += 2
    penalty = curriculum.compute_penalty()
    assert penalty is not None
    penalty.backward()
    torch.testing.assert_close(weight.grad, 0.5 * (weight.detach() - start))
    assert step.model.get_parameter("heads.depth.weight").grad is None
    begin(step, curriculum, 75)
    assert curriculum.compute_penalty() is None


def test_one_phase_of_all_tasks_changes_nothing() -> None:
    first, second = (make_step(make_tasks(*ALL_TASKS), "uncertainty", {}) for _ in range(2))
    curriculum = make_curriculum(second, phases=[{"until": 1}], ramp=0.5, anchor=1)
    for number in range(2):
        begin(second, curriculum, number)
        logs = [step.run([make_batch(number)]) for step in (first, second)]
        assert logs[0] == logs[1]
    for expected, actual in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(expected, actual)


def test_resume_is_bit_exact_and_a_task_is_chosen(tmp_path: Path) -> None:
    """The run also has a prior on task layers, whose covariances change after each step."""
    phases = "[{until: 0.6, tasks: 1}, {until: 1}]"
    options = (
        *("train.steps=3", "data.val_images=2", "train.checkpoint_every_steps=1"),
        f"curriculum={{phases: {phases}, ramp: 0.6, anchor: 1, probe_steps: 1}}",
        *("balancing={name: uncertainty}", "relationship={every: 1, update: [task, output]}"),
    )
    whole = make_run(tmp_path / "whole", *options)
    train(whole)
    for max_steps in (1, None):
        resumed = make_run(tmp_path / "resumed", *options)
        train(resumed, max_steps)
    assert_equal_runs(tmp_path / "whole", tmp_path / "resumed")
    priors = [run.state.relationship for run in (whole, resumed)]
    assert None not in priors
    first, second = (prior.state_dict() for prior in priors if prior is not None)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.state.curriculum is not None
    added_at = whole.state.curriculum.state_dict()["added_at"]
    assert sorted(added_at.values()) == [0, 2]
    log = read_log(tmp_path / "whole" / "log.jsonl")
    sharing = [line["relationship/mean/depth<-semseg"] for line in log if line["kind"] == "sharing"]
    assert sharing[0] == 0
    assert 0 < abs(sharing[-1]) < 1
    lines = [line for line in log if line["kind"] == "train"]
    trained = [{task for task in added_at if task in line} for line in lines]
    chosen = {task for task, step in added_at.items() if step == 0}
    assert trained == [chosen, chosen, set(added_at)]
    assert ["anchor" in line for line in lines] == [False, False, True]


def test_probe_prefers_small_scores_and_restores_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, "data.val_images=2", f"curriculum={{phases: {PHASES}}}")
    assert run.state.curriculum is not None
    before = {name: value.clone() for name, value in run.state.model.state_dict().items()}
    rng = get_rng_state()["cpu"]
    config = run.state.curriculum.config.model_copy(update={"probe_steps": 1})
    scores = {}

    def measure(run: TrainingRun, config: CurriculumConfig, task: str, batches: Batches) -> float:
        measured = curriculum_probe_measure(run, config, task, batches)
        assert any(
            not torch.equal(a, b) for a, b in zip(before.values(), _values(run), strict=True)
        )
        assert measured > 1  # one step: the loss at the end is that at the start
        scores[task] = measured
        return {"semseg": 3.0, "depth": 2.0}[task]

    monkeypatch.setattr(curriculum_probe, "_measure", measure)
    batches = TrainBatches(run)
    chosen = choose_tasks(run, config, ["semseg", "depth"], 1, lambda: batches.iterate(0, 0, 4))
    assert chosen == ["depth"]
    assert scores.keys() == {"semseg", "depth"}
    assert all(torch.equal(a, b) for a, b in zip(before.values(), _values(run), strict=True))
    assert not run.state.optimizer.state_dict()["state"]
    assert torch.equal(rng, get_rng_state()["cpu"])


def _values(run: TrainingRun) -> list[torch.Tensor]:
    return list(run.state.model.state_dict().values())


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("[{until: 0.5}]", "curriculum: until must increase from phase to phase, up to 1"),
        ("[{until: 0.5}, {until: 0.5}, {until: 1}]", "curriculum: until must increase"),
        ("[{until: 1, tasks: [dept]}]", "phases.0.tasks: no task 'dept', did you mean"),
        ("[{until: 1, tasks: [depth]}]", "curriculum.phases: task 'semseg' is in no phase"),
        ("[{until: 0.5, tasks: 2}, {until: 1, tasks: 1}]", "a number of tasks cannot be smaller"),
        ("[{until: 1, tasks: 3}]", "phases.0.tasks: there are only 2 tasks"),
        ("[{until: 1, tasks: []}]", "must be all, a list of tasks, or the number"),
        ("[]", "curriculum.phases: "),
    ],
)
def test_wrong_phases_are_errors(phases: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_tiny_experiment(f"curriculum={{phases: {phases}}}")
    assert message in str(caught.value)


def test_configurations_without_a_curriculum_keep_their_hash() -> None:
    experiment = make_tiny_experiment()
    assert "curriculum" not in experiment.to_semantic_dict()
    changed = make_tiny_experiment("curriculum={phases: [{until: 1}]}")
    assert changed.compute_config_hash() != experiment.compute_config_hash()
    assert changed.to_single_task("depth").curriculum is None
