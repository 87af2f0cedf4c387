"""Nested structures: some that hold others, such as a hippocampus and its anterior part."""

from __future__ import annotations

from collections.abc import Sequence

from shapeguide.errors import ConfigError
from shapeguide.geometry.volume import Structure, check_structures


def apart(structures: Sequence[Structure]) -> tuple[tuple[Structure, ...], tuple[Structure, ...]]:
    """Structures that share nothing, and those that are made of several of them.

    A structure that holds others is made of them, and of one more where they leave some of its
    label ids over: of `tumour` and its `core`, the parts are `core` and `tumour_rest`.

    Args:
        structures: Of any two, one holds the other or they share nothing.

    Returns:
        The parts, in the order of the structures, which label maps and networks tell apart; and the
        structures that are not among them, as they were given.

    Raises:
        ConfigError: If two structures have the same name or the same label ids, or share some.
    """
    check_structures(tuple(structures), nested=True)
    names = {one.name for one in structures}
    parts: list[Structure] = []
    wholes: list[Structure] = []
    for one in structures:
        within = [other for other in structures if _holds(one, other)]
        taken = {label_id for other in within for label_id in other.label_ids}
        rest = tuple(label_id for label_id in one.label_ids if label_id not in taken)
        if not within:
            parts.append(one)
            continue
        wholes.append(one)
        if rest:
            name = f"{one.name}_rest"
            if name in names:
                raise ConfigError(
                    f"label ids {rest} of {one.name} are in none of the structures that it holds "
                    f"and would be called {name}, which is another structure; rename that one"
                )
            parts.append(Structure(name, rest))
    return tuple(parts), tuple(wholes)


def made_of(whole: Structure, parts: Sequence[Structure]) -> tuple[int, ...]:
    """Places of the parts that a structure is made of."""
    ids = set(whole.label_ids)
    return tuple(place for place, part in enumerate(parts) if set(part.label_ids) <= ids)


def _holds(whole: Structure, part: Structure) -> bool:
    return set(part.label_ids) < set(whole.label_ids)
