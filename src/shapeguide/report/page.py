"""One HTML page that needs nothing but itself: numbers, words and pictures of a comparison."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shapeguide.errors import DataError, reason
from shapeguide.storage.whole import write_text

TEMPLATE = "page.html.jinja"
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Card:
    """One metric on top of the page: its value for each method."""

    title: str
    values: tuple[tuple[str, str], ...]
    """Name of the method and its value, as text."""
    verdict: str
    """How the first of the compared methods stands: better, worse or no clear difference."""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text; numbers stay as they were written."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure with its caption; a second file for dark pages, if there is one."""

    path: Path
    alt: str
    caption: str
    dark_path: Path | None = None


@dataclass(frozen=True)
class Section:
    """A part of the page: words, then tables, then pictures."""

    title: str
    words: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    """Shown as a list."""
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Page:
    """Everything that the page shows."""

    title: str
    headline: str
    lead: str
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]
    files: tuple[tuple[str, str], ...]
    """Path beside the page and what it holds."""
    footer: str


def write_page(page: Page, path: Path) -> None:
    """Write the page as one HTML file with its pictures inside, whole or not at all.

    Raises:
        DataError: If a picture is missing or is neither PNG nor JPEG.
    """
    write_text(path, render_page(page))


def render_page(page: Page) -> str:
    """The page as HTML; every text of it is escaped.

    Raises:
        DataError: If a picture is missing or is neither PNG nor JPEG.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("shapeguide.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["with_units"] = with_units
    return environment.get_template(TEMPLATE).render(page=page, sources=_sources(page))


def with_units(text: str) -> str:
    """The text, of which no line ends between a number and its unit."""
    return re.sub(r"(?<=\d) (?=%|mm\b)", NO_BREAK_SPACE, text)


def _sources(page: Page) -> Mapping[Path, str]:
    pictures = [picture for section in page.sections for picture in section.pictures]
    paths = [path for picture in pictures for path in (picture.path, picture.dark_path) if path]
    return {path: _data_url(path) for path in paths}


def _data_url(path: Path) -> str:
    media_type = MEDIA_TYPES.get(path.suffix)
    if media_type is None:
        raise DataError(f"{path}: a page shows {' and '.join(MEDIA_TYPES)} files only")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the picture cannot be read ({reason(error)}); make it again"
        ) from error
    return f"data:{media_type};base64,{b64encode(content).decode('ascii')}"
