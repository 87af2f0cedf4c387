"""Autoencoders of label maps: shapes, files, and restoring as a post-processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import shapeguide as sg
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.geometry.volume import Structure
from shapeguide.models.autoencoder_model import (
    AutoencoderDescription,
    AutoencoderModel,
    build_autoencoder,
)
from shapeguide.models.mask_autoencoder import MaskAutoencoder
from shapeguide.models.model_files import write_description, write_weights
from shapeguide.models.quality import ReconstructionQuality
from shapeguide.vocabulary import AutoencoderName

STRUCTURES = (Structure("horn", (1,)), Structure("lobe", (2, 3)))
ODD = (9, 12, 7)


def autoencoder(
    flavour: AutoencoderName, spatial_shape: tuple[int, int, int] = ODD
) -> MaskAutoencoder:
    torch.manual_seed(0)
    return build_autoencoder(
        flavour, classes=3, spatial_shape=spatial_shape, channels=(4, 8), code_length=5
    ).eval()


def model(flavour: AutoencoderName) -> AutoencoderModel:
    space = WorkingSpace((1.0, 1.0, 1.0), ODD)
    row = ReconstructionQuality(structure="horn", cases=2, held_out=True, dice=0.4)
    rows = (row, replace(row, structure="lobe", dice=0.9))
    return AutoencoderModel(autoencoder(flavour), flavour, STRUCTURES, space, rows)


def test_dense_code_has_its_length_and_the_map_its_odd_shape() -> None:
    network = autoencoder("acnn")
    maps = torch.rand((2, 3, *ODD))
    code = network.encode(maps)
    assert code.shape == (2, 5)
    assert network.decode(code, spatial_shape=ODD).shape == network(maps).shape == maps.shape


def test_convolutional_code_is_a_feature_map_of_the_lowest_resolution() -> None:
    network = autoencoder("srn")
    assert network.encode(torch.rand((1, 3, *ODD))).shape == (1, 8, 3, 3, 2)
    assert network(torch.rand((1, 3, 16, 10, 11))).shape == (1, 3, 16, 10, 11)


def test_dense_autoencoder_refuses_another_grid_and_both_other_classes() -> None:
    with pytest.raises(ValueError, match=r"grid of \(9, 12, 7\)"):
        autoencoder("acnn").encode(torch.rand((1, 3, 8, 8, 8)))
    with pytest.raises(ValueError, match="takes 3 classes"):
        autoencoder("srn").encode(torch.rand((1, 2, *ODD)))


def test_everything_passes_the_code() -> None:
    network = autoencoder("acnn")
    maps = torch.rand((1, 3, *ODD))
    with torch.no_grad():
        for parameter in network.to_code.parameters():
            parameter.zero_()
        assert torch.equal(network(maps), network(torch.zeros_like(maps)))


def test_autoencoder_without_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one level"):
        MaskAutoencoder(2, spatial_shape=ODD, channels=())


def test_autoencoder_comes_back_from_its_files(tmp_path: Path) -> None:
    for flavour in ("acnn", "srn"):
        before = model("acnn" if flavour == "acnn" else "srn")
        folder = tmp_path / flavour
        folder.mkdir()
        weights = write_weights(before.network, folder, "last")
        description = AutoencoderDescription(
            made_by="test",
            structures=STRUCTURES,
            space=before.space,
            channels=(4, 8),
            weights={"last": weights},
            flavour=before.flavour,
            code_length=5,
            quality=before.quality,
        )
        write_description(description, folder)
        after = sg.load_autoencoder(folder)
        assert (after.flavour, after.structures, after.space) == (flavour, STRUCTURES, before.space)
        maps = torch.rand((1, 3, *ODD))
        assert torch.equal(after.network(maps), before.network(maps))
    with pytest.raises(CheckpointError, match="SegmenterDescription"):
        sg.load_segmenter(tmp_path / "srn")


def test_structures_that_are_not_reproduced_are_named() -> None:
    assert model("acnn").failed == ("horn",)


def test_restored_probabilities_are_those_of_the_network_and_sum_to_one() -> None:
    given = np.random.default_rng(0).random((3, *ODD), dtype=np.float32)
    srn = model("srn")
    restored = sg.restore(srn, given)
    expected = srn.network(torch.from_numpy(given)[None]).softmax(1)[0].detach().numpy()
    assert np.array_equal(restored, expected)
    assert np.allclose(restored.sum(0), 1, atol=1e-5)


def test_autoencoder_of_acnn_is_no_post_processor() -> None:
    with pytest.raises(ConfigError, match=r"only an autoencoder of 'srn'.*found 'acnn'"):
        sg.restore(model("acnn"), np.zeros((3, *ODD), dtype=np.float32))
