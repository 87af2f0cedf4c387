"""Stage 2: train the segmenter on Dice, then on Dice and the shape loss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

import shapeguide
from shapeguide.data.dataset import Dataset
from shapeguide.data.preprocess import PreparedCases
from shapeguide.errors import ConfigError
from shapeguide.losses import LossTerms, ShapeLoss, cross_entropy_loss, dice_loss
from shapeguide.models.model_files import (
    WEIGHTS_FILES,
    hash_of,
    space_to,
    structures_to,
    write_description,
    write_weights,
)
from shapeguide.models.segmenter import (
    Segmenter,
    SegmenterDescription,
    build_segmenter,
    load_segmenter,
)
from shapeguide.models.shape_model import ShapeModel
from shapeguide.training.checkpoint import TrainingState
from shapeguide.training.config import TrainSettings, resolve
from shapeguide.training.loop import LoopPlan, generator_for, learning_rate_of, train_loop
from shapeguide.training.preparation import Preparation, prepare, start_fabric
from shapeguide.training.run_folder import BRANCH_FILE, branch, claim_run_folder
from shapeguide.training.segmentation_batches import (
    STAGE,
    CaseBatches,
    one_hot,
    vary_intensities,
    warp_batch,
)
from shapeguide.training.shape_stage import warp_limits

logger = logging.getLogger(__name__)


def train_segmenter(
    dataset: Dataset,
    shape_network: ShapeModel | None = None,
    *,
    run_dir: str | Path,
    settings: TrainSettings | str = "default",
    branch_from: str | Path | None = None,
    progress: bool = True,
) -> Segmenter:
    """Train a segmenter, guided by a shape network when one is given.

    The same call on the folder of a killed run resumes it; on that of a finished one it loads the
    result. With and without a shape network, equal settings see the same cases under the same warps
    in the same order.

    Args:
        dataset: Cases with label maps and structures.
        shape_network: A trained shape network of the same structures; None for the plain baseline.
        run_dir: Folder for settings, log, checkpoint and model.
        settings: Settings, or the name of a preset.
        branch_from: Run folder of the same data and settings, guidance apart, whose Dice iterations
            are taken over instead of being computed again; the last weights are the same to the
            bit.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the folder belongs to another run, or the shape network has other
        structures,
            another space, or is collapsed, or the run to branch from is another one.
        DataError: If a case cannot be used.
    """
    folder, settings = Path(run_dir), resolve(settings)
    settings = settings.changed(guidance="shape" if shape_network else "none")
    preparation = prepare(dataset, settings)
    shape_loss = _shape_loss(shape_network, dataset, preparation, settings)
    if claim_run_folder(
        folder,
        stage="segmentation",
        settings=settings,
        train=preparation.train,
        validation=preparation.validation,
    ):
        return load_segmenter(folder, device=settings.machine.device)
    if branch_from is not None:
        branch(Path(branch_from), folder)
    fabric = start_fabric(settings)
    network = _new_network(dataset, settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.segmentation.learning_rate)
    wrapped, optimizer = fabric.setup(network, optimizer)
    state = TrainingState(network, optimizer)
    step = SegmentationStep(wrapped, preparation.space.spacing_mm, settings)
    if shape_loss is not None:
        step.shape_loss = shape_loss.to(fabric.device)
    _run(state, step, wrapped, preparation, folder, settings, fabric, progress)
    _write(state, preparation, dataset, folder, settings)
    return load_segmenter(folder, device=settings.machine.device)


@dataclass
class SegmentationStep:
    """One training step: vary, predict, and sum the loss terms."""

    network: nn.Module
    spacing_mm: tuple[float, float, float]
    settings: TrainSettings
    shape_loss: ShapeLoss | None = field(default=None)

    def __call__(self, batch: tuple[Tensor, Tensor], iteration: int) -> LossTerms:
        """Loss terms of a batch of images (B, 1, I, J, K) and class indices (B, I, J, K)."""
        images, classes = self.varied(batch, iteration)
        return self.terms(self.network(images).float(), classes, iteration)

    def varied(self, batch: tuple[Tensor, Tensor], iteration: int) -> tuple[Tensor, Tensor]:
        """The batch under warps and intensity changes drawn for this iteration."""
        generator = generator_for(self.settings.seed, STAGE, iteration)
        images, classes = warp_batch(
            *batch, warp_limits(self.settings), spacing_mm=self.spacing_mm, generator=generator
        )
        if self.settings.segmentation.intensity_augmentation:
            images = vary_intensities(images, generator=generator)
        return images, classes

    def terms(self, logits: Tensor, classes: Tensor, iteration: int) -> LossTerms:
        """Loss terms of logits (B, 1 + structures, I, J, K)."""
        chosen = self.settings.segmentation
        reference = one_hot(classes, logits.shape[1])
        probabilities = logits.softmax(dim=1)
        dice = dice_loss(probabilities[:, 1:], reference[:, 1:])
        cross_entropy = None
        if chosen.cross_entropy_weight:
            cross_entropy = chosen.cross_entropy_weight * cross_entropy_loss(logits, classes)
        if self.shape_loss is None or iteration < chosen.dice_iterations:
            return LossTerms(dice, cross_entropy)
        distances, present = self.shape_loss.distances(probabilities[:, 1:], reference[:, 1:])
        return LossTerms(
            dice,
            cross_entropy,
            shape=self.alpha(iteration) * self.shape_loss.reduce(distances, present),
            shape_distance=(distances * present).sum() / present.sum().clamp(min=1),
            capped_share=self.shape_loss.capped_share(distances, present),
        )

    def alpha(self, iteration: int) -> float:
        """Weight of the shape loss in an iteration: a ramp, if there is one, then alpha."""
        guidance = self.settings.shape_loss
        done = iteration + 1 - self.settings.segmentation.dice_iterations
        ramp = min(1.0, done / guidance.ramp_iterations) if guidance.ramp_iterations else 1.0
        return guidance.alpha * ramp


@torch.no_grad()
def validation_dice(network: nn.Module, cases: PreparedCases, names: list[str]) -> dict[str, float]:
    """Mean Dice score of each structure over prepared cases, and their mean as `score`.

    A structure that neither prediction nor reference holds counts for nothing.
    """
    network.eval()
    device = next(network.parameters()).device
    sums = torch.zeros(len(names))
    counts = torch.zeros(len(names))
    for case in cases:
        image = torch.from_numpy(case.image).to(device)[None, None]
        found = network(image).argmax(dim=1)[0].cpu()
        reference = torch.from_numpy(case.classes)
        for index in range(len(names)):
            one, other = found == index + 1, reference == index + 1
            size = one.sum() + other.sum()
            if size > 0:
                sums[index] += 2 * (one & other).sum() / size
                counts[index] += 1
    means = sums / counts.clamp(min=1)
    named = {f"dice/{name}": float(mean) for name, mean in zip(names, means, strict=True)}
    return {"score": float(means.mean()), **named}


def _shape_loss(
    model: ShapeModel | None, dataset: Dataset, preparation: Preparation, settings: TrainSettings
) -> ShapeLoss | None:
    if model is None:
        return None
    if model.structures != dataset.structures:
        raise ConfigError(
            f"the shape network was trained on {model.structures}, the dataset has "
            f"{dataset.structures}; train a shape network on the same structures"
        )
    if model.network.pose == "grid" and model.space != preparation.space:
        raise ConfigError(
            f"the shape network looks at the whole grid of {model.space}, the segmenter works in "
            f"{preparation.space}; state spacing and shape, or use the canonical pose"
        )
    guidance = settings.shape_loss
    if model.collapsed and not guidance.accept_collapsed:
        raise ConfigError(
            f"the shape network has collapsed for {', '.join(model.collapsed)}: it tells "
            "two people apart little better than chance, so it cannot guide "
            f"({_figures(model)}). Train it with the objective 'surface', or set "
            "shape_loss.accept_collapsed to go on all the same"
        )
    return ShapeLoss(
        model.network,
        spacing_mm=preparation.space.spacing_mm,
        cap=guidance.cap,
        cap_form=guidance.cap_form,
        distance=guidance.distance,
    )


def _figures(model: ShapeModel) -> str:
    return "; ".join(
        f"{row['structure']}: ratio {row['ratio']:.2f}, AUC {row['auc']:.2f}"
        for row in model.quality
    )


def _new_network(dataset: Dataset, settings: TrainSettings) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(settings.seed, STAGE).initial_seed())
        channels = settings.segmentation.channels
        return build_segmenter(channels, classes=1 + len(dataset.structures))


def _run(
    state: TrainingState,
    step: SegmentationStep,
    wrapped: nn.Module,
    preparation: Preparation,
    folder: Path,
    settings: TrainSettings,
    fabric: Fabric,
    progress: bool,
) -> None:
    chosen = settings.segmentation
    validate: Callable[[], dict[str, float]] | None = None
    if preparation.validation is not None:
        held_out = preparation.prepared_validation()
        names = [structure.name for structure in preparation.train.structures]

        def validate() -> dict[str, float]:
            return validation_dice(wrapped, held_out, names)

    plan = LoopPlan(
        title="guided segmenter" if step.shape_loss else "plain segmenter",
        iterations=chosen.iterations,
        learning_rate=learning_rate_of(chosen.decay, chosen.learning_rate, chosen.iterations),
        checkpoint_every=settings.machine.checkpoint_every,
        validate_every=chosen.validate_every,
        num_workers=settings.machine.num_workers,
        progress=progress,
    )
    cases = preparation.prepared_train()
    cases.prepare_all()
    train_loop(
        state,
        plan,
        run_dir=folder,
        batches=CaseBatches(cases, batch_size=chosen.batch_size, seed=settings.seed),
        step=step,
        fabric=fabric,
        validate=validate,
        keep_best=lambda: _keep_best(state, folder),
        milestones={chosen.dice_iterations: folder / BRANCH_FILE},
    )


def _keep_best(state: TrainingState, folder: Path) -> None:
    write_weights(state.network, folder, "best")


def _write(
    state: TrainingState,
    preparation: Preparation,
    dataset: Dataset,
    folder: Path,
    settings: TrainSettings,
) -> None:
    weights: dict[Literal["last", "best"], str] = {}
    weights["last"] = write_weights(state.network, folder, "last")
    if state.best_iteration is not None:
        weights["best"] = hash_of(folder / WEIGHTS_FILES["best"])
    description = SegmenterDescription(
        made_by=f"shapeguide {shapeguide.__version__}",
        structures=structures_to(dataset.structures),
        space=space_to(preparation.space),
        channels=settings.segmentation.channels,
        weights=weights,
        notes={
            "dataset": dataset.name,
            "training_cases": len(preparation.train),
            "guidance": settings.guidance,
            "iterations": state.iteration,
            "best_iteration": state.best_iteration,
            "best_score": state.best_score,
        },
    )
    write_description(description, folder)
