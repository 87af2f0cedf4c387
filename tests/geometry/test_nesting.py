"""Structures that hold others, taken apart."""

from __future__ import annotations

import numpy as np
import pytest

from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.nesting import apart, made_of
from shapeguide.geometry.volume import LabelMap, Structure

TUMOUR, CORE = Structure("tumour", (1, 2, 3)), Structure("core", (2, 3))
ACTIVE, OTHER = Structure("active", (3,)), Structure("other", (7,))


def test_structures_that_share_nothing_stay_as_they_are() -> None:
    assert apart((CORE, OTHER)) == ((CORE, OTHER), ())


def test_a_whole_is_made_of_what_it_holds_and_of_what_that_leaves() -> None:
    parts, wholes = apart((TUMOUR, CORE, ACTIVE, OTHER))
    assert wholes == (TUMOUR, CORE)
    rest, inner = Structure("tumour_rest", (1,)), Structure("core_rest", (2,))
    assert parts == (rest, inner, ACTIVE, OTHER)
    assert made_of(TUMOUR, parts) == (0, 1, 2)
    assert made_of(CORE, parts) == (1, 2)


def test_parts_that_leave_nothing_need_no_rest() -> None:
    whole = Structure("whole", (1, 2))
    first, second = Structure("first", (1,)), Structure("second", (2,))
    assert apart((first, whole, second)) == ((first, second), (whole,))
    assert apart((first, second, whole)) == apart((whole, *apart((first, second, whole))[0]))


def test_structures_that_only_share_some_ids_or_have_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match="unless one holds all of the other"):
        apart((CORE, Structure("across", (1, 2))))
    with pytest.raises(ConfigError, match="share label ids 2, 3"):
        apart((CORE, Structure("again", (3, 2))))
    with pytest.raises(ConfigError, match="tumour_rest, which is another structure"):
        apart((TUMOUR, CORE, Structure("tumour_rest", (9,))))


def test_a_label_map_shows_wholes_and_has_no_class_for_them() -> None:
    data = np.arange(8).reshape(2, 2, 2)
    labels = LabelMap(data, Grid((2, 2, 2), np.eye(4)), (TUMOUR, CORE, OTHER))
    assert labels.mask("tumour").sum() == 3
    assert labels.mask("core").sum() == 2
    with pytest.raises(ConfigError, match=r"tumour.*core.*share"):
        labels.class_indices()
