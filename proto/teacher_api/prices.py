"""What a question costs at a cloud API: units, monthly tiers, free units. Prices are data: price_books/.

Both programs read the same books: the trainer for its account and its forecasts, the server for the
budgets of its keys.
"""

import tomllib
from datetime import date
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

_BOOKS = files("teacher_api") / "price_books"


class PriceBookError(ValueError):
    """A price book is missing or wrong: names the field, the value and the remedy."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tier(_Strict):
    """A price that holds up to a number of units in one calendar month; None: for all above."""

    up_to: Annotated[int, Field(gt=0)] | None = None
    usd_per_1000: Annotated[Decimal, Field(ge=0)]


class Tariff(_Strict):
    """One feature's price.

    Attributes:
        name: book and feature, as in "google-natural-language/sentiment".
        as_of: the day on which the figures were last checked; the book says against what.
        source: where the seller gives them today.
        unit_characters: Unicode characters in a unit; each request is rounded up.
        minimum_units: the least that a request counts.
        free_units: units of a calendar month that cost nothing; tiers count from the month's first unit.
        tiers: ascending, the last one without `up_to`.
    """

    name: str
    as_of: date
    source: Annotated[str, Field(min_length=1)]
    unit_characters: Annotated[int, Field(gt=0)]
    minimum_units: Annotated[int, Field(gt=0)] = 1
    free_units: Annotated[int, Field(ge=0)] = 0
    tiers: Annotated[tuple[Tier, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        *bounded, last = self.tiers
        if last.up_to is not None:
            raise ValueError("tiers: the last one must hold for all units above; drop its up_to")
        bounds = [self.free_units, *(tier.up_to or 0 for tier in bounded)]
        if bounds != sorted(bounds) or len(set(bounds[1:])) < len(bounded):
            raise ValueError(f"tiers: free_units and up_to must ascend, not {bounds}; sort them")
        return self

    def units(self, characters: int) -> int:
        """Units of one request of so many characters; an empty one counts the minimum."""
        return max(self.minimum_units, -(-characters // self.unit_characters))

    def usd(self, units: int, before: int = 0) -> Decimal:
        """Price of `units` asked after `before` others in the same calendar month: exact, not rounded."""
        return self._month(before + units) - self._month(before)

    def usd_spread(self, units: int, months: int) -> Decimal:
        """Price of `units` spread as evenly as whole units can be over so many months."""
        least, more = divmod(units, months)
        return more * self.usd(least + 1) + (months - more) * self.usd(least)

    def worst(self, units: int) -> Decimal:
        """The most that `units` can cost, whatever was asked before them."""
        return units * max(tier.usd_per_1000 for tier in self.tiers) / 1000

    def _month(self, units: int) -> Decimal:
        """Price of a month's first `units`."""
        total, start = Decimal(0), self.free_units
        for tier in self.tiers:
            end = units if tier.up_to is None else min(units, tier.up_to)
            total += max(0, end - start) * tier.usd_per_1000 / 1000
            start = max(start, end)
        return total


UNPRICED = Tariff(
    name="unpriced",
    as_of=date.min,
    source="no price book was chosen",
    unit_characters=1000,
    tiers=(Tier(usd_per_1000=Decimal(0)),),
)


def books() -> list[str]:
    """Names of the price books that come with the package."""
    return sorted(book.name.removesuffix(".toml") for book in _BOOKS.iterdir() if book.name.endswith(".toml"))


def features(book: str | Path) -> list[str]:
    """Names of a book's tariffs."""
    return sorted(_read(book)["features"])


def load_tariff(book: str | Path, feature: str) -> Tariff:
    """One tariff of a book that comes with the package, or of a TOML file of the same form.

    Raises:
        PriceBookError: no such book or feature, or the book is broken.
    """
    content = _read(book)
    known = content["features"]
    if feature not in known:
        raise PriceBookError(f"{book}: no feature {feature!r}; choose one of {', '.join(sorted(known))}")
    head = {"name": f"{Path(book).stem}/{feature}"} | {
        k: content[k] for k in ("as_of", "source") if k in content
    }
    if not isinstance(known[feature], dict):
        raise PriceBookError(f"{book}: features.{feature} is {known[feature]!r}; make it a table")
    try:
        return Tariff.model_validate(known[feature] | head)
    except ValidationError as error:
        raise PriceBookError(_explained(book, feature, error)) from error


def _read(book: str | Path) -> dict[str, Any]:
    """A book's content; prices as exact decimals."""
    try:
        content = tomllib.loads(_find(book).read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise PriceBookError(
            f"{book}: no such price book; give a TOML file or one of {', '.join(books())}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PriceBookError(f"{book}: not TOML: {error}") from error
    if not isinstance(content.get("features"), dict):
        raise PriceBookError(
            f"{book}: no table 'features'; add [features.NAME] with unit_characters and tiers"
        )
    return content


def _find(book: str | Path) -> Traversable | Path:
    return _BOOKS / f"{book}.toml" if book in books() else Path(book)


def _explained(book: str | Path, feature: str, error: ValidationError) -> str:
    """All that is wrong at once, each with its place and value."""
    faults = []
    for fault in error.errors():
        place = ".".join(map(str, fault["loc"]))
        top = fault["loc"] and fault["loc"][0] in ("as_of", "source")
        where = place if top else ".".join(filter(None, ("features", feature, place)))
        value = f" (is {fault['input']!r})" if fault["loc"] and fault["type"] != "missing" else ""
        faults.append(f"{where}: {fault['msg'].removeprefix('Value error, ')}{value}")
    return f"{book}: " + "; ".join(faults)
