"""What all groups of settings share: frozen, checked on creation, unknown names refused.

Nothing here imports torch, so that the command line can show its help at once.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shapeguide.errors import ConfigError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
T = TypeVar("T")
SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def changed(self: SettingsT, **changes: Any) -> SettingsT:
        """A copy with other values, checked like a new one.

        Raises:
            ConfigError: If a value is out of range or a name unknown.
        """
        return build(type(self), {**self.model_dump(), **changes})


def build(kind: type[SettingsT], content: dict[str, Any]) -> SettingsT:
    """Settings from plain values, for instance from a file.

    Raises:
        ConfigError: Naming each value that does not fit.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ConfigError(f"{kind.__name__}: {faults}") from error


def affordable(batch_size: int, *, each: int, most: int, fewest: int = 1) -> int:
    """So many cases, or fewer where they would be too many voxels together.

    Args:
        batch_size: Cases that are asked for.
        each: Voxels of a case.
        most: About so many voxels may be in a batch.
        fewest: Cases that are taken, if they are asked for, whatever their size.
    """
    return min(batch_size, max(fewest, round(most / each)))


def given(value: T | None, usual: T) -> T:
    """A value, or the usual one where none is given."""
    return usual if value is None else value
