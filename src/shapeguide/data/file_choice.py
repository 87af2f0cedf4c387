"""Which files of a folder are images and which label maps, where someone says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shapeguide.errors import ConfigError

PERSON = "{person}"
"""Stands in a pattern where the name of a person stands, and otherwise like a star."""


@dataclass(frozen=True)
class FileChoice:
    """What someone says of the files of a folder; nothing where its layout says all.

    Patterns have stars, such as `T1_*.nii.gz`, and are understood in every folder. What has none is
    understood by the layout: `T2w` by BIDS, `norm.mgz` by FreeSurfer, `T1.nii.gz` where each person
    has a folder.
    """

    images: str | None = None
    labels: str | None = None

    @property
    def by_patterns(self) -> bool:
        """Whether patterns say all, so that no layout is looked for."""
        return is_pattern(self.images)

    @property
    def stated(self) -> str:
        """What is stated, as options of the command line."""
        given = {"--images": self.images, "--labels": self.labels}
        return " and ".join(f"{name} {value}" for name, value in given.items() if value is not None)

    def require_none(self, layout: str) -> None:
        """Refuse a choice where the layout says all.

        Args:
            layout: What was found, for the message.

        Raises:
            ConfigError: If anything is stated.
        """
        if self.stated:
            raise ConfigError(
                f"{layout} states its files, and {self.stated} would choose others; leave that "
                "out, or give patterns with stars for both, such as --images 'T1_*.nii.gz' "
                "--labels '*_seg.nii.gz'"
            )


NO_CHOICE = FileChoice()


def is_pattern(text: str | None) -> bool:
    """Whether a text has a star, or the place of a person."""
    return text is not None and ("*" in text or PERSON in text)


def as_texts(given: str | Iterable[str]) -> tuple[str, ...]:
    """One text or several, as several."""
    return (given,) if isinstance(given, str) else tuple(given)
