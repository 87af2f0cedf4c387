from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from shapeguide.errors import CheckpointError
from shapeguide.training.engine.checkpoint import (
    CHECKPOINT_FILE,
    TrainingState,
    load_checkpoint,
    read_tensors,
    write_tensors,
)
from shapeguide.training.engine.fabric import to_device
from shapeguide.training.engine.log import LOG_FILE, read_log
from shapeguide.training.engine.loop import (
    LoopPlan,
    LoopTask,
    TrainingFailed,
    cosine_decay,
    train_loop,
)
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.engine.weight_average import WeightAverage
from shapeguide.training.stages.variation import Warps


@dataclass
class Terms:
    total: Tensor

    def watched(self) -> dict[str, Tensor]:
        return {"loss": self.total.detach()}


class Numbers(Dataset[Tensor]):
    def __getitem__(self, iteration: int) -> Tensor:
        return torch.randn((4, 3), generator=generator_for(0, iteration))


class KilledError(Exception):
    pass


def state() -> TrainingState:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return TrainingState(network, torch.optim.Adam(network.parameters()))


def train(live: TrainingState, plan: LoopPlan, task: LoopTask, folder: Path) -> None:
    train_loop(live, plan, task, run_dir=folder, fabric=Fabric(accelerator="cpu", devices=1))


def saved_iteration(folder: Path) -> int:
    """Iteration of the checkpoint; 0 without one."""
    path = folder / CHECKPOINT_FILE
    return json.loads(read_tensors(path)[1]["progress"])["iteration"] if path.is_file() else 0


def run(
    folder: Path,
    *,
    fail_at: int | None = None,
    iterations: int = 30,
    workers: int = 0,
    decay: float = 0.0,
) -> TrainingState:
    live = state()
    live.average = WeightAverage(live.network, decay) if decay else None

    def step(batch: Tensor, iteration: int) -> Terms:
        if iteration == fail_at:
            raise KilledError
        return Terms((live.network(batch) - batch.sum(1, keepdim=True)).square().mean())

    plan = LoopPlan(
        "test", iterations, cosine_decay(0.1, 30), 7, num_workers=workers, progress=False
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    train_loop(live, plan, LoopTask(Numbers(), step), run_dir=folder, fabric=fabric)
    return live


def test_weights_that_are_no_numbers_never_replace_a_checkpoint(tmp_path: Path) -> None:
    live = state()

    def step(batch: Tensor, iteration: int) -> Terms:
        if iteration == 11:
            with torch.no_grad():
                next(live.network.parameters()).fill_(torch.nan)
        return Terms((live.network(batch) - 1).square().mean())

    plan = LoopPlan("test", 30, cosine_decay(0.1, 30), 7, progress=False)
    fabric = Fabric(accelerator="cpu", devices=1)
    with pytest.raises(TrainingFailed, match="weights that are not finite by iteration 14"):
        train_loop(live, plan, LoopTask(Numbers(), step), run_dir=tmp_path, fabric=fabric)
    kept = state()
    load_checkpoint(kept, tmp_path / CHECKPOINT_FILE)
    assert kept.iteration == 7
    assert all(bool(weight.isfinite().all()) for weight in kept.network.parameters())


def test_resumed_training_equals_the_undisturbed_one_to_the_bit(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    for fail_at in (3, 8, 25):
        with pytest.raises(KilledError):
            run(tmp_path / "killed", fail_at=fail_at)
    resumed = run(tmp_path / "killed")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_resumed_log_holds_every_iteration_once(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, fail_at=26)
    with (tmp_path / LOG_FILE).open("a") as opened:
        opened.write('{"iteration": 2')
    run(tmp_path)
    assert [row["iteration"] for row in read_log(tmp_path / LOG_FILE)] == [10, 20, 30]


def test_finished_training_does_nothing_more(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, fail_at=0)
    assert again.iteration == 30
    assert torch.equal(
        next(iter(first.network.parameters())), next(iter(again.network.parameters()))
    )


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    checkpoint = tmp_path / CHECKPOINT_FILE
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
        run(tmp_path)


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    network = nn.Linear(5, 5)
    other = TrainingState(network, torch.optim.Adam(network.parameters()))
    plan = LoopPlan("test", 40, cosine_decay(0.1, 40), 7, progress=False)
    with pytest.raises(CheckpointError, match="no checkpoint of this training"):
        train_loop(
            other,
            plan,
            LoopTask(Numbers(), lambda batch, _: Terms(batch.mean())),
            run_dir=tmp_path,
            fabric=Fabric(accelerator="cpu", devices=1),
        )


@pytest.mark.parametrize(
    ("rate", "rates"),
    [
        (lambda n: 0.1 * (n + 1), [0.1, 0.2, 0.3, 0.4]),
        # Half a cosine from 2 to a hundredth of it: 2 * (0.01 + 0.99 * (1 + cos(pi n / 4)) / 2).
        (cosine_decay(2.0, 4), [2.0, 1.71003571, 1.01, 0.30996429]),
    ],
)
def test_each_iteration_steps_at_its_own_learning_rate(
    tmp_path: Path, rate: Callable[[int], float], rates: list[float]
) -> None:
    """Plain descent on the sum of the weights moves each of them by exactly the learning rate."""
    network = nn.Linear(1, 1, bias=False)
    live = TrainingState(network, torch.optim.SGD(network.parameters(), lr=77.0))
    before: list[float] = []

    def step(batch: Tensor, iteration: int) -> Terms:
        before.append(network.weight.item())
        return Terms(network.weight.sum())

    train(live, LoopPlan("test", 4, rate, 7, progress=False), LoopTask(Numbers(), step), tmp_path)
    after = [*before[1:], network.weight.item()]
    moved = [start - end for start, end in zip(before, after, strict=True)]
    assert moved == pytest.approx(rates, rel=1e-5)
    assert read_log(tmp_path / LOG_FILE)[-1]["learning_rate"] == pytest.approx(rates[-1])


def test_a_resumed_training_goes_on_at_the_rate_of_its_iteration(tmp_path: Path) -> None:
    used: list[float] = []

    def attempt(*, fail_at: int | None) -> None:
        live = state()

        def step(batch: Tensor, iteration: int) -> Terms:
            used.append(live.optimizer.param_groups[0]["lr"])
            if iteration == fail_at:
                raise KilledError
            return Terms(live.network(batch).square().mean())

        plan = LoopPlan("test", 10, lambda n: n + 1.0, 4, progress=False)
        train(live, plan, LoopTask(Numbers(), step), tmp_path)

    with pytest.raises(KilledError):
        attempt(fail_at=6)
    attempt(fail_at=None)
    assert used == [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10]


def interrupted(folder: Path, *, at: int, times: int) -> None:
    """Train, and press Ctrl-C so many times during an iteration."""
    live = state()

    def step(batch: Tensor, iteration: int) -> Terms:
        for _ in range(times if iteration == at else 0):
            signal.raise_signal(signal.SIGINT)
        return Terms((live.network(batch) - 1).square().mean())

    plan = LoopPlan("test", 30, cosine_decay(0.1, 30), 7, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(live, plan, LoopTask(Numbers(), step), folder)


def test_ctrl_c_says_at_once_what_will_happen_and_then_saves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tmp_path, at=9, times=1)
    assert caplog.messages == [
        "stopping: finishing iteration 10 of the test, then saving; again to stop at once and "
        "lose what was done since iteration 7"
    ]
    assert saved_iteration(tmp_path) == 10


def test_a_second_ctrl_c_stops_at_once_without_saving(tmp_path: Path) -> None:
    interrupted(tmp_path, at=9, times=2)
    assert saved_iteration(tmp_path) == 7


def test_a_checkpoint_is_saved_when_the_last_one_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, live = [0.0], state()
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("shapeguide.training.engine.loop.time", clock)
    seen: list[int] = []

    def step(batch: Tensor, iteration: int) -> Terms:
        now[0] += 76.0
        seen.append(saved_iteration(tmp_path))
        return Terms(live.network(batch).square().mean())

    plan = LoopPlan("test", 12, lambda _: 0.1, 50, checkpoint_seconds=300.0, progress=False)
    train(live, plan, LoopTask(Numbers(), step), tmp_path)
    assert seen == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"progress": '{"iteration": 1000000, "best_score": null, "best_iteration": null}'},
            "1000000",
        ),
        ({"progress": '{"iteration": -1, "best_score": null, "best_iteration": null}'}, "-1"),
        ({"progress": '{"iteration": true, "best_score": null, "best_iteration": null}'}, "True"),
        ({"progress": '{"iteration": ' + "9" * 5000 + "}"}, "its progress"),
        ({"progress": "[" * 100_000}, "its progress"),
        ({"progress": "7"}, "no object"),
        ({"progress": '{"iteration": 7, "best_score": "x", "best_iteration": 7}'}, "best score"),
        ({"progress": '{"iteration": 7, "best_score": 1, "best_iteration": 8}'}, "best iteration"),
        ({"progress": '{"iteration": 14, "best_score": null, "best_iteration": null}'}, "checksum"),
        ({}, "progress"),
    ],
)
def test_a_checkpoint_that_claims_what_cannot_be_is_refused(
    tmp_path: Path, content: dict[str, str], message: str
) -> None:
    run(tmp_path, iterations=7)
    path = tmp_path / CHECKPOINT_FILE
    tensors, metadata = read_tensors(path)
    write_tensors(tensors, path, metadata={**metadata, **content} if content else {})
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path)


@pytest.mark.parametrize("found", [torch.zeros(32, dtype=torch.uint8), torch.ones(1), None])
def test_a_checkpoint_with_another_checksum_or_none_is_refused(
    tmp_path: Path, found: torch.Tensor | None
) -> None:
    run(tmp_path, iterations=7)
    path = tmp_path / CHECKPOINT_FILE
    tensors, metadata = read_tensors(path)
    del tensors["checksum"]
    changed = tensors if found is None else {**tensors, "checksum": found}
    write_tensors(changed, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="checksum"):
        run(tmp_path)


@pytest.mark.parametrize("name", ["optimizer.first.exp_avg", "optimizer.99.step", "evil", "..", ""])
def test_a_checkpoint_with_a_foreign_tensor_is_refused(tmp_path: Path, name: str) -> None:
    run(tmp_path, iterations=7)
    path = tmp_path / CHECKPOINT_FILE
    tensors, metadata = read_tensors(path)
    write_tensors({**tensors, name: torch.ones(1)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="start again"):
        run(tmp_path)


@pytest.mark.parametrize(
    "line",
    [b"5\n", b'{"step": 1}\n', b'{"iteration": ' + b"9" * 5000 + b"}\n", b"\xff\xfe\n", b'{"it'],
)
def test_a_damaged_log_stops_no_training(tmp_path: Path, line: bytes) -> None:
    run(tmp_path, iterations=20)
    whole = (tmp_path / LOG_FILE).read_bytes()
    (tmp_path / LOG_FILE).write_bytes(line + whole + line)
    (tmp_path / CHECKPOINT_FILE).unlink()
    run(tmp_path / "undisturbed", iterations=30)
    run(tmp_path, iterations=30)
    logs = [read_log(folder / LOG_FILE) for folder in (tmp_path, tmp_path / "undisturbed")]
    assert logs[0] == logs[1]


def test_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    live = state()
    plan = LoopPlan("test", 10, cosine_decay(0.1, 10), 5, progress=False)
    with pytest.raises(TrainingFailed, match="last checkpoint is kept"):
        train_loop(
            live,
            plan,
            LoopTask(Numbers(), lambda batch, _: Terms(live.network(batch).sum() * float("nan"))),
            run_dir=tmp_path,
            fabric=Fabric(accelerator="cpu", devices=1),
        )


def test_best_score_is_kept_once_reached(tmp_path: Path) -> None:
    live, scores, kept = state(), iter([0.2, 0.9, 0.4]), []
    plan = LoopPlan("test", 30, cosine_decay(0.1, 30), 7, validate_every=10, progress=False)
    train_loop(
        live,
        plan,
        LoopTask(
            Numbers(),
            lambda batch, _: Terms(live.network(batch).square().mean()),
            validate=lambda: {"score": next(scores)},
            keep_best=lambda: kept.append(live.iteration),
        ),
        run_dir=tmp_path,
        fabric=Fabric(accelerator="cpu", devices=1),
    )
    assert kept == [10, 20]
    assert (live.best_score, live.best_iteration) == (0.9, 20)


def test_workers_give_the_same_training_as_none(tmp_path: Path) -> None:
    without, with_one = (run(tmp_path / str(n), iterations=8, workers=n) for n in (0, 1))
    for name, value in without.network.state_dict().items():
        assert torch.equal(value, with_one.network.state_dict()[name])


def test_generators_of_neighbouring_iterations_differ() -> None:
    draws = {float(torch.rand(1, generator=generator_for(0, 2, n))) for n in range(100)}
    assert len(draws) == 100


def test_average_of_weights_follows_the_published_recursion() -> None:
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0.0)
    average = WeightAverage(network, 0.5)
    naive = 0.0
    for done, weight in enumerate((8.0, 4.0, -2.0, 6.0, 1.0), start=1):
        with torch.no_grad():
            network.weight.fill_(weight)
        average.update(done)
        kept = min(0.5, (1 + done) / (10 + done))
        naive = kept * naive + (1 - kept) * weight
    assert average.tensors["weight"].item() == pytest.approx(naive)


def test_average_covers_running_statistics_and_copies_counters() -> None:
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, 0.9)
    network(torch.full((4, 2), 10.0) + torch.randn((4, 2), generator=generator_for(0)))
    average.update(1)
    kept = 2 / 11
    assert network.running_mean is not None
    moved = (1 - kept) * network.running_mean
    assert torch.allclose(average.tensors["running_mean"], moved)
    assert average.tensors["num_batches_tracked"].item() == 1


def test_resumed_average_equals_the_undisturbed_one_to_the_bit(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", decay=0.9).average
    with pytest.raises(KilledError):
        run(tmp_path / "killed", fail_at=17, decay=0.9)
    resumed = run(tmp_path / "killed", decay=0.9).average
    assert whole is not None
    assert resumed is not None
    for name, value in whole.tensors.items():
        assert torch.equal(value, resumed.tensors[name])


def test_average_changes_nothing_about_the_training(tmp_path: Path) -> None:
    without, with_one = run(tmp_path / "without"), run(tmp_path / "with", decay=0.9)
    assert with_one.average is not None
    for name, value in without.network.state_dict().items():
        assert torch.equal(value, with_one.network.state_dict()[name])
        assert not torch.equal(value, with_one.average.tensors[name])


def test_checkpoint_without_an_average_starts_one_from_its_weights(tmp_path: Path) -> None:
    old = run(tmp_path, iterations=5)
    live = state()
    live.average = WeightAverage(live.network, 0.9)
    load_checkpoint(live, tmp_path / CHECKPOINT_FILE)
    for name, value in old.network.state_dict().items():
        assert torch.equal(live.average.tensors[name], value)
    plain = state()
    run(tmp_path / "averaged", iterations=5, decay=0.9)
    load_checkpoint(plain, tmp_path / "averaged" / CHECKPOINT_FILE)
    assert plain.iteration == 5


def test_a_batch_goes_as_float32_to_a_device_without_float64_and_else_as_it_is() -> None:
    third, chosen = torch.eye(3, 4, dtype=torch.float64)[None] / 3, torch.tensor([True])
    batch = (Warps(third, chosen), [{"m": third}, None, 2.5])
    for device, kind in (("mps", torch.float32), ("cpu", torch.float64)):
        fabric = SimpleNamespace(device=SimpleNamespace(type=device), to_device=lambda given: given)
        found = to_device(batch, fabric)  # type: ignore[arg-type]
        assert isinstance(found[0], Warps)
        assert found[0].matrices.dtype == found[1][0]["m"].dtype == kind
        assert torch.equal(found[0].matrices, third.to(kind))
        assert found[0].chosen is chosen
        assert found[1][1:] == [None, 2.5]
