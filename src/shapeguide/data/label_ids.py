"""Which label ids a label map holds, told with their names and sizes for someone to choose from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shapeguide.data.case import Case
from shapeguide.errors import ShapeguideError
from shapeguide.geometry.volume import LabelMap

MOST_LISTED = 250
"""More than an atlas names; a description or label map of noise could hold millions."""


def listed_ids(label_map: LabelMap, labels: Mapping[int, str]) -> str:
    """Label ids of a label map for a message, one a line: the id, its name, its size.

    Args:
        label_map: Label ids on a grid.
        labels: Label id to name, as far as known; names of ids that do not occur are counted.
    """
    sizes = {
        label_id: f"{count * label_map.grid.voxel_volume_mm3:.0f} mm3"
        for label_id, count in label_map.voxels_of_ids().items()
    }
    return _lines(labels, sizes)


def listed_ids_of(cases: Iterable[Case], labels: Mapping[int, str]) -> str:
    """Label ids of a dataset for a message, their sizes those of the first readable label map.

    Args:
        cases: Labelled cases.
        labels: Label id to name, as far as known.
    """
    for case in cases:
        try:
            label_map = case.read_stored_label_map()
        except ShapeguideError:
            continue
        return f"label ids, with their sizes in {case.id}:\n{listed_ids(label_map, labels)}"
    return f"label ids:\n{_lines(labels, {})}"


def _lines(labels: Mapping[int, str], sizes: Mapping[int, str]) -> str:
    ids = sorted({*(sizes or labels)} - {0})
    lines = []
    for label_id in ids[:MOST_LISTED]:
        parts = (f"{label_id:>5}", labels.get(label_id, ""), sizes.get(label_id, ""))
        lines.append("  " + "  ".join(part for part in parts if part))
    if len(ids) > MOST_LISTED:
        lines.append(f"  and {len(ids) - MOST_LISTED} more")
    absent = labels.keys() - {*ids}
    if absent:
        lines.append(f"  and {len(absent)} that have names and do not occur there")
    return "\n".join(lines) or "  none but the background"
