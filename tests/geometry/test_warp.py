import math

import pytest
import torch
from torch import Tensor

from shapeguide.errors import ConfigError, GeometryError
from shapeguide.geometry.warp import (
    displacement_field,
    draw_affine_warps,
    draw_displacements,
    draw_warps_of,
    middles_mm,
    warp_classes,
    warp_images,
    warp_one_hot,
)
from shapeguide.geometry.warp_limits import WarpLimits

ANISOTROPIC_MM = (1.0, 1.5, 2.0)


def drawn(count: int, seed: int = 0, limits: WarpLimits | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return draw_affine_warps(limits or WarpLimits(), count=count, generator=generator)


def affine(linear: Tensor, translation_mm: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    shift = torch.tensor(translation_mm, dtype=torch.float64)
    return torch.cat([linear.double(), shift[:, None]], dim=1)[None]


def positions_mm(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Tensor:
    axes = [
        (torch.arange(length, dtype=torch.float64) - (length - 1) / 2) * step
        for length, step in zip(shape, spacing_mm, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def centroid_mm(weights: Tensor, spacing_mm: tuple[float, float, float]) -> Tensor:
    i, j, k = weights.shape
    where = positions_mm((i, j, k), spacing_mm)
    return (weights[..., None] * where).sum((0, 1, 2)) / weights.sum()


def ellipsoid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    centre_mm: tuple[float, float, float],
    radii_mm: tuple[float, float, float],
) -> Tensor:
    where = positions_mm(shape, spacing_mm) - torch.tensor(centre_mm)
    return ((where / torch.tensor(radii_mm)) ** 2).sum(-1) < 1


def two_touching_structures(batch: int) -> Tensor:
    classes = torch.zeros(batch, 30, 26, 20, dtype=torch.uint8)
    for item in range(batch):
        classes[item, 8 + item : 18, 7:15, 5:14] = 1
        classes[item, 8 + item : 18, 15:20, 5:14] = 2
    return classes


def as_one_hot(classes: Tensor) -> Tensor:
    return torch.stack([classes == 1, classes == 2], dim=1).float()


def test_draws_do_not_depend_on_the_batch_split() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [draw_affine_warps(WarpLimits(), count=n, generator=generator) for n in (1, 2, 37)]
    assert torch.equal(torch.cat(parts), drawn(40))


def test_draws_fill_the_limits_and_stay_inside() -> None:
    warps = drawn(2000, limits=WarpLimits(translation_mm=10.0))
    scales = torch.linalg.det(warps[:, :, :3]) ** (1 / 3)
    assert warps.dtype == torch.float64
    assert 0.85 <= scales.min() < 0.86
    assert 1.14 < scales.max() <= 1.15
    assert 9.9 < warps[:, :, 3].abs().max() <= 10
    rotations = warps[:, :, :3] / scales[:, None, None]
    turned = torch.rad2deg(torch.acos((rotations.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2))
    assert 8 < turned.max() < 8 * math.sqrt(3) + 0.1


def test_rotation_keeps_lengths_and_handedness() -> None:
    linear = drawn(5, limits=WarpLimits(rotation_deg=30, scale=(1, 1)))[:, :, :3]
    identity = torch.eye(3, dtype=torch.float64).expand(5, 3, 3)
    torch.testing.assert_close(linear @ linear.mT, identity)
    torch.testing.assert_close(torch.linalg.det(linear), torch.ones(5, dtype=torch.float64))


def test_zero_limits_draw_the_identity() -> None:
    warps = drawn(2, limits=WarpLimits(rotation_deg=0, scale=(1, 1), translation_mm=0))
    assert torch.equal(warps, affine(torch.eye(3)).expand(2, 3, 4))


@pytest.mark.parametrize("limits", [{"scale": (1.1, 0.9)}, {"scale": (0, 1)}, {"rotation_deg": -1}])
def test_impossible_limits_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="found"):
        WarpLimits(**limits)  # type: ignore[arg-type]


def test_negative_translation_is_refused() -> None:
    with pytest.raises(ConfigError, match="translation_mm"):
        WarpLimits(translation_mm=-1)


def test_a_draw_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="count=0"):
        drawn(0)


def test_identity_changes_nothing() -> None:
    classes = two_touching_structures(2)
    images = torch.rand(2, 1, 30, 26, 20, generator=torch.Generator().manual_seed(1))
    warps = affine(torch.eye(3)).expand(2, 3, 4)
    warped = warp_images(images, warps, spacing_mm=ANISOTROPIC_MM)
    torch.testing.assert_close(warped, images, atol=1e-5, rtol=0)
    one_hot = warp_one_hot(as_one_hot(classes), warps, spacing_mm=ANISOTROPIC_MM)
    torch.testing.assert_close(one_hot, as_one_hot(classes), atol=1e-5, rtol=0)
    assert torch.equal(warp_classes(classes, warps, spacing_mm=ANISOTROPIC_MM), classes)


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_volume_scales_with_the_cube_of_the_scale(scale: float) -> None:
    mask = ellipsoid((48, 36, 28), ANISOTROPIC_MM, (1, -2, 2), (12, 14, 13))
    warp = affine(scale * torch.eye(3))
    soft = warp_one_hot(mask[None, None], warp, spacing_mm=ANISOTROPIC_MM)
    hard = warp_classes(mask[None].byte(), warp, spacing_mm=ANISOTROPIC_MM)
    assert float(soft.sum() / mask.sum()) == pytest.approx(scale**3, rel=0.01)
    assert float(hard.sum() / mask.sum()) == pytest.approx(scale**3, rel=0.02)


def test_centroids_land_where_the_warp_says() -> None:
    mask = ellipsoid((60, 44, 32), ANISOTROPIC_MM, (6, -5, 4), (9, 11, 8))
    warps = drawn(4, limits=WarpLimits(rotation_deg=25, translation_mm=10.0))
    batch = mask.byte().expand(4, *mask.shape)
    soft = warp_one_hot(batch[:, None], warps, spacing_mm=ANISOTROPIC_MM)
    hard = warp_classes(batch, warps, spacing_mm=ANISOTROPIC_MM)
    start = centroid_mm(mask.double(), ANISOTROPIC_MM)
    for warp, weights, classes in zip(warps, soft[:, 0], hard, strict=True):
        expected = warp[:, :3] @ start + warp[:, 3]
        found = centroid_mm(weights.double(), ANISOTROPIC_MM)
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
        found = centroid_mm(classes.double(), ANISOTROPIC_MM)
        torch.testing.assert_close(found, expected, atol=0.15, rtol=0)


def test_a_quarter_turn_about_the_third_axis_moves_a_voxel_by_hand() -> None:
    classes = torch.zeros(1, 5, 5, 5, dtype=torch.uint8)
    classes[0, 4, 2, 2] = 7
    quarter = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    warped = warp_classes(classes, affine(quarter), spacing_mm=(1.0, 1.0, 1.0))
    assert warped[0].nonzero().tolist() == [[2, 4, 2]]
    assert warped[0, 2, 4, 2] == 7


def test_translation_is_in_mm() -> None:
    classes = torch.zeros(1, 9, 9, 9, dtype=torch.uint8)
    classes[0, 4, 4, 4] = 1
    warp = affine(torch.eye(3), (2.0, 3.0, -4.0))
    warped = warp_classes(classes, warp, spacing_mm=ANISOTROPIC_MM)
    assert warped[0].nonzero().tolist() == [[6, 6, 2]]


def heaviest(weights: Tensor) -> Tensor:
    """Voxels of largest weight of maps (B, I, J, K), so many as the weights sum to."""
    inside = torch.zeros_like(weights, dtype=torch.bool)
    for n, weight in enumerate(weights):
        ordered = weight.flatten().sort(descending=True).values
        inside[n] = weight > ordered[int(weight.sum().round())]
    return inside


def test_image_and_labels_stay_aligned() -> None:
    classes = two_touching_structures(3)
    warps = drawn(3)
    images = warp_images(as_one_hot(classes), warps, spacing_mm=ANISOTROPIC_MM)
    one_hot = warp_one_hot(as_one_hot(classes), warps, spacing_mm=ANISOTROPIC_MM)
    hard = warp_classes(classes, warps, spacing_mm=ANISOTROPIC_MM)
    torch.testing.assert_close(images, one_hot, atol=1e-5, rtol=0)
    expected = torch.where(heaviest(images.sum(1)), images.argmax(1) + 1, 0)
    # Weights that tie but for rounding may change places.
    assert (hard.long() != expected).flatten(1).sum(1).max() <= 2


def test_images_go_on_beyond_the_grid_and_masks_do_not() -> None:
    ones = torch.ones(1, 1, 8, 8, 8)
    warp = affine(torch.eye(3), (4.0, 0.0, 0.0))
    assert torch.equal(warp_images(ones, warp, spacing_mm=(1.0, 1.0, 1.0)), ones)
    masks = warp_one_hot(ones, warp, spacing_mm=(1.0, 1.0, 1.0))
    assert masks[0, 0, :4].abs().max() < 1e-6
    torch.testing.assert_close(masks[0, 0, 4:], ones[0, 0, 4:])


def test_the_same_warps_give_the_same_result_for_any_batch_split() -> None:
    classes, warps = two_touching_structures(4), drawn(4)
    images = torch.rand(4, 2, 30, 26, 20, generator=torch.Generator().manual_seed(1))
    for apply, whole in (
        (warp_images, images),
        (warp_one_hot, as_one_hot(classes)),
        (warp_classes, classes),
    ):
        together = apply(whole, warps, spacing_mm=ANISOTROPIC_MM)
        parts = [
            apply(whole[part], warps[part], spacing_mm=ANISOTROPIC_MM)
            for part in (slice(0, 1), slice(1, 4))
        ]
        assert torch.equal(torch.cat(parts), together)


def test_the_box_gives_exactly_the_values_of_the_whole_grid() -> None:
    one_hot = as_one_hot(two_touching_structures(4))
    one_hot[1] = 0
    one_hot[2, 0] *= torch.rand(30, 26, 20, generator=torch.Generator().manual_seed(1))
    warps = drawn(4, seed=3)
    fast = warp_one_hot(one_hot, warps, spacing_mm=ANISOTROPIC_MM)
    whole = warp_one_hot(one_hot.clone().requires_grad_(), warps, spacing_mm=ANISOTROPIC_MM)
    assert torch.equal(fast, whole.detach())
    assert fast[1].abs().max() == 0


def test_a_structure_at_the_edge_is_cut_as_on_the_whole_grid() -> None:
    classes = torch.zeros(2, 12, 12, 12, dtype=torch.uint8)
    classes[0, 8:, :, :5] = 1
    classes[1, :3, 5:7, 11:] = 2
    warps = drawn(2, limits=WarpLimits(rotation_deg=40, translation_mm=5))
    weights = warp_one_hot(as_one_hot(classes).requires_grad_(), warps, spacing_mm=ANISOTROPIC_MM)
    hard = warp_classes(classes, warps, spacing_mm=ANISOTROPIC_MM)
    assert ((hard > 0) != heaviest(weights.sum(1).detach())).flatten(1).sum(1).max() <= 2


def test_rotation_and_translation_leave_the_volume_as_it_was() -> None:
    classes = two_touching_structures(4)
    warps = drawn(4, limits=WarpLimits(scale=(1.0, 1.0), translation_mm=1.0))
    warped = warp_classes(classes, warps, spacing_mm=ANISOTROPIC_MM)
    before, after = ((maps > 0).flatten(1).sum(1) for maps in (classes, warped))
    assert (after - before).abs().max() <= 0.005 * before.min()


def test_a_structure_that_leaves_the_grid_is_gone() -> None:
    classes = two_touching_structures(1)
    warp = affine(torch.eye(3), (100.0, 0.0, 0.0))
    assert warp_classes(classes, warp, spacing_mm=ANISOTROPIC_MM).sum() == 0
    assert warp_one_hot(as_one_hot(classes), warp, spacing_mm=ANISOTROPIC_MM).sum() == 0


def test_touching_structures_keep_touching() -> None:
    classes = two_touching_structures(4)
    hard = warp_classes(classes, drawn(4), spacing_mm=ANISOTROPIC_MM)
    union = warp_classes((classes > 0).byte(), drawn(4), spacing_mm=ANISOTROPIC_MM)
    assert torch.equal(hard > 0, union > 0)
    assert set(hard.flatten().tolist()) == {0, 1, 2}


def test_gradient_flows_to_every_voxel_that_lands_in_the_grid() -> None:
    one_hot = torch.zeros(1, 1, 8, 8, 8, requires_grad=True)
    warp = affine(torch.eye(3), (2.0, 0.0, 0.0))
    total = warp_one_hot(one_hot, warp, spacing_mm=(1.0, 1.0, 1.0)).sum()
    (gradient,) = torch.autograd.grad(total, one_hot)
    torch.testing.assert_close(gradient[0, 0, :6], torch.ones(6, 8, 8))
    assert gradient[0, 0, 6:].abs().max() < 1e-5


def test_gradient_of_images_matches_finite_differences() -> None:
    images = torch.rand(1, 1, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    warps = drawn(1, limits=WarpLimits(translation_mm=0.5))
    assert torch.autograd.gradcheck(
        lambda values: warp_images(values, warps, spacing_mm=ANISOTROPIC_MM), (images,)
    )


def test_half_precision_is_sampled_in_single_precision() -> None:
    images = torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    warped = warp_images(images, drawn(1), spacing_mm=ANISOTROPIC_MM)
    exact = warp_images(images.float(), drawn(1), spacing_mm=ANISOTROPIC_MM)
    assert warped.dtype == torch.bfloat16
    assert torch.equal(warped, exact.bfloat16())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_map_of_one_layer_is_warped_like_any_other(axis: int) -> None:
    layer = torch.zeros(8, 9, dtype=torch.uint8)
    layer[2:5, 3:7] = 3
    classes = layer.unsqueeze(axis)[None]
    moved = torch.zeros_like(classes)
    moved[0].select(axis, 0)[2:5, 4:8] = 3
    shift = [0.0, 0.0, 0.0]
    shift[2 if axis < 2 else 1] = 1.0
    warp = affine(torch.eye(3), (shift[0], shift[1], shift[2]))
    assert torch.equal(warp_classes(classes, warp, spacing_mm=(1.0, 1.0, 1.0)), moved)
    soft = warp_one_hot((classes == 3)[:, None], warp, spacing_mm=(1.0, 1.0, 1.0))
    assert torch.equal(soft[:, 0] > 0.5, moved == 3)


def test_an_empty_label_map_stays_empty() -> None:
    empty = torch.zeros(2, 6, 6, 6, dtype=torch.uint8)
    assert warp_classes(empty, drawn(2), spacing_mm=ANISOTROPIC_MM).sum() == 0


@pytest.mark.parametrize("shape", [(8, 8, 8), (1, 2, 8, 8, 8)])
def test_classes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="class indices"):
        warp_classes(torch.zeros(shape, dtype=torch.uint8), drawn(1), spacing_mm=(1, 1, 1))


def test_misfits_are_refused() -> None:
    images = torch.zeros(2, 1, 4, 4, 4)
    with pytest.raises(GeometryError, match="each of 2 items"):
        warp_images(images, drawn(1), spacing_mm=(1, 1, 1))
    with pytest.raises(GeometryError, match="spacing_mm"):
        warp_images(images, drawn(2), spacing_mm=(1, 0, 1))
    with pytest.raises(GeometryError, match="singular"):
        warp_images(images, torch.zeros(2, 3, 4), spacing_mm=(1, 1, 1))
    with pytest.raises(GeometryError, match=r"B, C, I, J, K"):
        warp_one_hot(images[0], drawn(1), spacing_mm=(1, 1, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_follows_the_tensor() -> None:
    classes, warps = two_touching_structures(3), drawn(3)
    on_gpu = warp_classes(classes.cuda(), warps, spacing_mm=ANISOTROPIC_MM)
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), warp_classes(classes, warps, spacing_mm=ANISOTROPIC_MM))
    soft = warp_one_hot(as_one_hot(classes).cuda(), warps, spacing_mm=ANISOTROPIC_MM)
    expected = warp_one_hot(as_one_hot(classes), warps, spacing_mm=ANISOTROPIC_MM)
    torch.testing.assert_close(soft.cpu(), expected, atol=1e-5, rtol=0)


def test_warp_onto_coarser_voxels_reads_the_middle_of_each_block() -> None:
    ramp = torch.arange(8.0)[None, None, :, None, None].expand(1, 1, 8, 6, 5).contiguous()
    shift = torch.tensor([[[1.0, 0, 0, 4.0], [0, 1, 0, 0], [0, 0, 1, 0]]], dtype=torch.float64)
    found = warp_images(ramp, shift, spacing_mm=(2.0, 2.0, 2.0), coarsening=2)
    assert found.shape == (1, 1, 4, 3, 3)
    # Blocks have their middle at 0.5, 2.5, 4.5 and 6.5 voxels; all moved up by 2 voxels.
    assert torch.allclose(found[0, 0, :, 0, 0], torch.tensor([0.0, 0.5, 2.5, 4.5]))


@pytest.mark.parametrize("margin", [(0, 0, 0), (3, 0, 2)])
def test_a_margin_is_what_the_result_leaves_out(margin: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand((2, 1, 20, 18, 16), generator=generator)
    classes = torch.zeros((2, 20, 18, 16), dtype=torch.uint8)
    classes[:, 8:10, 6:12, 6:10] = 1
    classes[:, 10:12, 6:12, 6:10] = 2
    warps = draw_affine_warps(WarpLimits(translation_mm=1.0), count=2, generator=generator)
    i, j, k = (slice(off, n - off) for off, n in zip(margin, (20, 18, 16), strict=True))
    found = warp_images(images, warps, spacing_mm=(1.0, 1.2, 0.8), margin=margin)
    whole = warp_images(images, warps, spacing_mm=(1.0, 1.2, 0.8))
    assert torch.allclose(found, whole[..., i, j, k], atol=1e-5)
    labels = warp_classes(classes, warps, spacing_mm=(1.0, 1.2, 0.8), margin=margin)
    every = warp_classes(classes, warps, spacing_mm=(1.0, 1.2, 0.8))[..., i, j, k]
    assert (every > 0).sum() > 50
    assert torch.equal(labels, every)  # whole in view, its edge is decided in the same way


def test_a_displacement_that_is_the_same_everywhere_is_a_translation() -> None:
    classes = two_touching_structures(2)
    moved_mm = torch.tensor([2.0, -1.0, 3.0])
    field = moved_mm[None, :, None, None, None].expand(2, 3, *classes.shape[1:])
    # What is read further on is what was moved back.
    translation = affine(torch.eye(3), (-2.0, 1.0, -3.0)).expand(2, -1, -1)
    still = affine(torch.eye(3)).expand(2, -1, -1)
    for warp, maps in ((warp_classes, classes), (warp_images, as_one_hot(classes))):
        displaced = warp(maps, still, spacing_mm=ANISOTROPIC_MM, displacements_mm=field)
        expected = warp(maps, translation, spacing_mm=ANISOTROPIC_MM)
        torch.testing.assert_close(displaced, expected, atol=1e-4, rtol=0)


def test_labels_stay_on_images_under_warps_with_displacements() -> None:
    classes = two_touching_structures(4)
    generator = torch.Generator().manual_seed(0)
    coarse = draw_displacements(2.0, count=4, cells=(2, 2, 2), generator=generator)
    field = displacement_field(coarse, classes.shape[1:])
    images = warp_images(
        as_one_hot(classes), drawn(4), spacing_mm=ANISOTROPIC_MM, displacements_mm=field
    )
    hard = warp_classes(classes, drawn(4), spacing_mm=ANISOTROPIC_MM, displacements_mm=field)
    sure = (images - 0.5).abs() > 0.3
    assert sure.float().mean() > 0.9
    assert torch.equal((images > 0.5)[sure], (as_one_hot(hard) > 0.5)[sure])
    assert (hard != warp_classes(classes, drawn(4), spacing_mm=ANISOTROPIC_MM)).sum() > 100


def test_displacements_are_as_drawn_at_the_corners_and_linear_between() -> None:
    coarse = draw_displacements(1.5, count=40, cells=(3, 4, 2), generator=torch.Generator())
    assert coarse.shape == (40, 3, 4, 5, 3)
    assert coarse.std().item() == pytest.approx(1.5, rel=0.05)
    field = displacement_field(coarse, (7, 9, 5))
    torch.testing.assert_close(field[..., ::2, ::2, ::2], coarse)
    torch.testing.assert_close(
        field[..., 1, 0, 0], (coarse[..., 0, 0, 0] + coarse[..., 1, 0, 0]) / 2
    )


def test_displacements_of_another_shape_are_refused() -> None:
    classes = two_touching_structures(1)
    field = torch.zeros(1, 3, 4, 4, 4)
    with pytest.raises(GeometryError, match="three for each voxel"):
        warp_classes(classes, drawn(1), spacing_mm=ANISOTROPIC_MM, displacements_mm=field)


def test_objects_turn_and_grow_where_they_are() -> None:
    """Far from the middle of the grid, a warp about it would carry the object off."""
    centre_mm = (8.0, -9.0, 12.0)
    ball = ellipsoid((40, 32, 36), ANISOTROPIC_MM, centre_mm, (7.0, 7.0, 9.0))
    classes = ball.to(torch.uint8).expand(6, -1, -1, -1)
    limits = WarpLimits(rotation_deg=25, scale=(0.8, 1.2), translation_mm=0, centre="object")
    generator = torch.Generator().manual_seed(4)
    warps = draw_warps_of(limits, classes, spacing_mm=ANISOTROPIC_MM, generator=generator)
    for item in warp_classes(classes, warps, spacing_mm=ANISOTROPIC_MM):
        found = centroid_mm(item.double(), ANISOTROPIC_MM)
        torch.testing.assert_close(found, torch.tensor(centre_mm).double(), atol=0.4, rtol=0)
    about_grid = drawn(6, 4, limits)
    torch.testing.assert_close(warps[:, :, :3], about_grid[:, :, :3])
    moved = warp_classes(classes, about_grid, spacing_mm=ANISOTROPIC_MM)[0]
    assert (centroid_mm(moved.double(), ANISOTROPIC_MM) - torch.tensor(centre_mm)).norm() > 2


def test_translations_of_objects_are_as_drawn() -> None:
    ball = ellipsoid((40, 32, 36), ANISOTROPIC_MM, (6.0, -5.0, 8.0), (7.0, 7.0, 9.0))
    limits = WarpLimits(rotation_deg=0, scale=(1, 1), translation_mm=6, centre="object")
    generator = torch.Generator().manual_seed(4)
    warps = draw_warps_of(limits, ball[None], spacing_mm=ANISOTROPIC_MM, generator=generator)
    torch.testing.assert_close(warps, drawn(1, 4, limits))


def test_the_middle_of_what_is_above_zero_is_found_in_mm_and_that_of_nothing_is_the_grids() -> None:
    objects = torch.zeros(2, 3, 9, 8, 7)
    objects[0, 0, 8, 0, 3] = 0.5
    objects[0, 2, 8, 2, 3] = 7.0
    objects[0, 1] -= 4
    found = middles_mm(objects, spacing_mm=(1.0, 2.0, 3.0))
    expected = torch.tensor([[4.0, (1 - 3.5) * 2, 0.0], [0.0, 0.0, 0.0]]).double()
    torch.testing.assert_close(found, expected)
