"""The table of segmenters: same grid in and out, divisors, files, and what each paper fixes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.geometry.volume import Structure
from shapeguide.models.block_unet import as_blocks, as_voxels
from shapeguide.models.fcn import Fcn
from shapeguide.models.model_files import (
    MODEL_FILE,
    write_description,
    write_weights,
)
from shapeguide.models.segmenter import (
    BLOCKS,
    SEGMENTERS,
    SegmenterDescription,
    SegmenterNetwork,
    build_segmenter,
    divisor_of,
)
from shapeguide.models.unet import UNet
from shapeguide.models.unet2d import UNet2d
from shapeguide.models.vnet import VNet
from shapeguide.training.settings import groups
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.vocabulary import SEGMENTER_NAMES, SegmenterName

NAMES = tuple(SEGMENTERS)
CHANNELS = (2, 4, 8)


def gradients(network: SegmenterNetwork, images: torch.Tensor) -> list[torch.Tensor]:
    network(images).square().sum().backward()
    found = [parameter.grad for parameter in network.parameters()]
    return [gradient for gradient in found if gradient is not None]


def recorded_shapes(modules: nn.ModuleList) -> list[tuple[int, ...]]:
    """Filled with the spatial shapes that the modules give, in the order of their calls."""
    shapes: list[tuple[int, ...]] = []
    for module in modules:
        module.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape[2:])))
    return shapes


def test_the_vocabulary_names_the_segmenters_of_the_table() -> None:
    assert set(SEGMENTERS) == set(SEGMENTER_NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [(4,), (4, 8), CHANNELS, (2, 2, 2, 2)])
def test_logits_lie_on_the_grid_of_the_image(name: str, channels: tuple[int, ...]) -> None:
    if name == BLOCKS and len(channels) == 1:
        pytest.skip("blocks stand in place of the first level, so there is one below")
    network = build_segmenter(name, channels, classes=3)
    images = torch.randn((2, 1, 16, 8, 24))
    assert network(images).shape == (2, 3, 16, 8, 24)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("again", [False, True])
def test_every_parameter_of_every_segmenter_learns(name: str, again: bool) -> None:
    network = build_segmenter(name, CHANNELS, classes=2, activation_checkpoints=again)
    found = gradients(network, torch.randn((1, 1, 8, 8, 12)))
    assert len(found) == len(list(network.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in found)


@pytest.mark.parametrize("name", NAMES)
def test_grids_that_cannot_be_halved_are_refused(name: str) -> None:
    network = build_segmenter(name, CHANNELS, classes=2)
    with pytest.raises(ValueError, match=r"needs multiples of 4, found \(8, 10"):
        network(torch.randn((1, 1, 8, 10, 8)))
    with pytest.raises(ValueError, match=r"single voxel left of \(4, 4.*take a larger"):
        network(torch.randn((1, 1, 4, 4, 4)))


@pytest.mark.parametrize("name", NAMES)
def test_the_divisor_is_known_without_the_network(name: str) -> None:
    for levels in (2, 4, 6) if name == BLOCKS else (1, 2, 4, 6):
        channels = (2,) * levels
        assert divisor_of(name, channels) == build_segmenter(name, channels, classes=2).divisor
        assert divisor_of(name, channels) == 2 ** (levels - 1)


def test_unknown_names_and_no_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'unet'; choose one of unet3d, unet3d_blocks, "):
        build_segmenter("unet", CHANNELS, classes=2)
    with pytest.raises(ConfigError, match="unknown segmenter"):
        divisor_of("unet", CHANNELS)
    for name in NAMES:
        with pytest.raises(ConfigError, match="at least one level"):
            build_segmenter(name, (), classes=2)
        with pytest.raises(ConfigError, match="at least one level"):
            divisor_of(name, ())
    with pytest.raises(ConfigError, match="below full resolution, needs at least one level"):
        build_segmenter(BLOCKS, (8,), classes=2)


def test_an_untrained_network_of_blocks_expects_background_everywhere() -> None:
    logits = build_segmenter(BLOCKS, CHANNELS, classes=3)(torch.randn((1, 1, 8, 8, 12)))
    assert bool((logits.argmax(dim=1) == 0).all())


def test_blocks_stand_in_place_of_the_first_level() -> None:
    network = build_segmenter(BLOCKS, CHANNELS, classes=3, image_channels=2)
    below = UNet(16, 24, CHANNELS[1:])
    below.load_state_dict(network.state_dict())
    images = torch.randn((1, 2, 8, 8, 12))
    assert torch.equal(network(images), as_voxels(below(as_blocks(images))))


def test_the_3d_unet_draws_its_weights_in_the_order_of_earlier_versions() -> None:
    torch.manual_seed(0)
    network = UNet(1, 3, (4, 8))
    torch.manual_seed(0)
    double = [nn.Conv3d(1, 4, 3, bias=False), nn.Conv3d(4, 4, 3, bias=False)]
    double += [nn.Conv3d(4, 8, 3, bias=False), nn.Conv3d(8, 8, 3, bias=False)]
    rise = nn.ConvTranspose3d(8, 4, 2, stride=2)
    back = [nn.Conv3d(8, 4, 3, bias=False), nn.Conv3d(4, 4, 3, bias=False)]
    head = nn.Conv3d(4, 3, 1)
    weights = network.state_dict()
    expected: dict[str, torch.Tensor | None] = {
        "encoders.0.0.weight": double[0].weight,
        "encoders.0.3.weight": double[1].weight,
        "encoders.1.0.weight": double[2].weight,
        "encoders.1.3.weight": double[3].weight,
        "upsamplers.0.weight": rise.weight,
        "upsamplers.0.bias": rise.bias,
        "decoders.0.0.weight": back[0].weight,
        "decoders.0.3.weight": back[1].weight,
        "head.weight": head.weight,
        "head.bias": head.bias,
    }
    for name, value in expected.items():
        assert value is not None
        assert torch.equal(weights[name], value)
    normalised = {name for name in weights if name not in expected}
    assert normalised == {
        f"{part}.{layer}.{kind}"
        for part in ("encoders.0", "encoders.1", "decoders.0")
        for layer in (1, 4)
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("name", NAMES)
def test_gradients_computed_again_are_the_same(name: str) -> None:
    torch.manual_seed(0)
    images = torch.randn((1, 1, 8, 8, 8))
    plain = build_segmenter(name, CHANNELS, classes=2)
    again = build_segmenter(name, CHANNELS, classes=2, activation_checkpoints=True)
    again.load_state_dict(plain.state_dict())
    pairs = zip(gradients(plain, images), gradients(again, images), strict=True)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in pairs)


def test_levels_are_computed_again_only_when_gradients_are_wanted() -> None:
    network = UNet(1, 2, CHANNELS, activation_checkpoints=True)
    starts: list[nn.Module] = []
    for level in [*network.encoders, *network.decoders]:
        level.register_forward_pre_hook(lambda module, _: starts.append(module))
    with torch.no_grad():
        network(torch.randn((1, 1, 8, 8, 8)))
    assert len(starts) == 5
    gradients(network, torch.randn((1, 1, 8, 8, 8)))
    assert len(starts) == 5 + 5 + 5


def test_the_2d_unet_sees_each_axial_slice_alone() -> None:
    network = UNet2d(1, 2, (4, 8))
    images = torch.randn((2, 1, 8, 8, 5))
    changed = images.clone()
    changed[1, 0, :, :, 3] += 1 + torch.rand((8, 8))
    with torch.no_grad():
        before, after = network(images), network(changed)
        turned = network(images.flip(-1))
    differs = (before != after).flatten(1, 3).any(1)
    assert differs.tolist() == [[False] * 5, [False, False, False, True, False]]
    assert torch.allclose(turned.flip(-1), before, atol=1e-5)


def test_the_fcn_scores_at_strides_8_16_and_32() -> None:
    network = Fcn(1, 2, (1, 1, 1, 2, 2, 2))
    shapes = recorded_shapes(network.scores)
    network(torch.randn((1, 1, 64, 32, 32)))
    assert shapes == [(8, 4, 4), (4, 2, 2), (2, 1, 1)]


def test_the_fcn_with_few_levels_scores_the_deepest() -> None:
    network = Fcn(1, 2, (1, 2, 2, 2))
    shapes = recorded_shapes(network.scores)
    network(torch.randn((1, 1, 16, 8, 8)))
    assert shapes == [(8, 4, 4), (4, 2, 2), (2, 1, 1)]


def test_the_fcn_upsampling_starts_as_linear_interpolation_of_each_class() -> None:
    upsampler = Fcn(1, 2, CHANNELS).upsamplers[0]
    scores = torch.randn((1, 2, 6, 6, 6))
    wanted = functional.interpolate(scores, scale_factor=2, mode="trilinear")
    inner = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    assert torch.allclose(upsampler(scores)[inner], wanted[inner], atol=1e-5)


def kernels_of_5(level: nn.Module) -> int:
    """How many convolutions of 5 voxels a level has."""
    found = [part for part in level.modules() if isinstance(part, nn.Conv3d)]
    assert all(part.kernel_size == (5, 5, 5) for part in found)
    return len(found)


def test_the_vnet_has_the_published_convolutions_and_channels() -> None:
    network = VNet(1, 2, (1, 2, 4, 8, 16))  # a sixteenth of the published channels
    assert [kernels_of_5(level) for level in network.encoders] == [1, 2, 3, 3, 3]
    assert [kernels_of_5(level) for level in network.decoders] == [1, 2, 3, 3]
    widths = [next(iter(level.parameters())).shape[0] for level in network.decoders]
    assert widths == [2, 4, 8, 16]


def test_a_vnet_level_whose_convolutions_are_silent_gives_back_its_input() -> None:
    network = VNet(1, 2, (2, 4))
    level = network.decoders[0]
    for part in level.modules():
        if isinstance(part, nn.InstanceNorm3d):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    features = torch.rand((1, 4, 4, 4, 4))  # positive: PReLU leaves it as it is
    assert torch.equal(level(features), features)


def write_run(folder: Path, name: SegmenterName) -> SegmenterNetwork:
    network = build_segmenter(name, CHANNELS, classes=2)
    folder.mkdir()
    description = SegmenterDescription(
        made_by="a test",
        structures=(Structure("horn", (1,)),),
        space=WorkingSpace((1.0, 1.0, 1.0), (8, 8, 8), "volume", "volume"),
        segmenter=name,
        channels=CHANNELS,
        weights={"last": write_weights(network, folder, "last")},
    )
    write_description(description, folder)
    return network


@pytest.mark.parametrize("name", NAMES)
def test_a_run_folder_brings_back_the_network_it_names(tmp_path: Path, name: SegmenterName) -> None:
    network = write_run(tmp_path / "run", name)
    loaded = sg.load_segmenter(tmp_path / "run", device="cpu")
    images = torch.randn((1, 1, 8, 8, 8))
    assert type(loaded.network) is type(network)
    assert torch.equal(loaded.network(images), network(images))
    assert loaded.divisor == 4


def test_a_run_folder_of_an_older_version_holds_a_3d_unet(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "unet3d")
    path = tmp_path / "run" / MODEL_FILE
    stated = json.loads(path.read_text())
    del stated["segmenter"]
    path.write_text(json.dumps(stated))
    assert isinstance(sg.load_segmenter(tmp_path / "run", device="cpu").network, UNet)


def test_a_run_folder_with_an_unknown_or_another_network_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "fcn")
    path = tmp_path / "run" / MODEL_FILE
    stated = json.loads(path.read_text())
    path.write_text(json.dumps({**stated, "segmenter": "resnet"}))
    with pytest.raises(CheckpointError, match=r"segmenter"):
        sg.load_segmenter(tmp_path / "run", device="cpu")
    path.write_text(json.dumps({**stated, "segmenter": "vnet"}))
    with pytest.raises(CheckpointError, match="cannot load"):
        sg.load_segmenter(tmp_path / "run", device="cpu")


def two_iterations(name: str, *, again: bool = False) -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        guidance="none",
        segmentation=quick.segmentation.changed(
            segmenter=name, channels=(2, 4), dice_iterations=2, guided_iterations=0
        ),
        machine=quick.machine.changed(device="cpu", precision="bf16", activation_checkpoints=again),
    )


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    description = sg.write_cohort(
        folder, count=2, seed=1, spatial_shape=(16, 24, 16), spacing_mm=(3.0, 3.0, 3.0)
    )
    return sg.read_dataset(description)


@pytest.mark.parametrize("name", NAMES)
def test_every_segmenter_trains_and_predicts(cohort: Dataset, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    segmenter = sg.train(cohort, out=run, settings=two_iterations(name), progress=False)
    assert json.loads((run / MODEL_FILE).read_text())["segmenter"] == name
    prediction = sg.predict(segmenter, cohort[0].read_volume())
    assert prediction.data.shape == cohort[0].read_volume().data.shape


@pytest.mark.parametrize(("voxels", "name"), [(64**3, "unet3d"), (1000, BLOCKS)])
def test_a_training_takes_the_segmenter_that_suits_what_it_sees_at_once(
    cohort: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, voxels: int, name: str
) -> None:
    monkeypatch.setattr(groups, "SMALL_WINDOW_VOXELS", voxels)
    run = tmp_path / "run"
    found = sg.train(cohort, out=run, settings=two_iterations("auto"), progress=False)
    assert json.loads((run / MODEL_FILE).read_text())["segmenter"] == name
    assert sg.predict(found, cohort[0].read_volume()).data.shape == (16, 24, 16)


def test_activation_checkpoints_leave_the_trained_weights_as_they_are(
    cohort: Dataset, tmp_path: Path
) -> None:
    trained = [
        sg.train(
            cohort,
            out=tmp_path / f"again_{again}",
            settings=two_iterations("unet3d", again=again),
            progress=False,
        ).network.state_dict()
        for again in (False, True)
    ]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
