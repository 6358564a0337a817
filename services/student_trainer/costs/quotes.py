"""What asking would cost, before anything is asked."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from teacher_api.prices import Tariff

CENT = Decimal("0.01")


def quote_queries(tariff: Tariff, queries: int, characters: int = 0, months: int = 1) -> dict[str, Any]:
    """Price of so many requests of so many characters each, spread over months: ready for JSON."""
    return (
        _head(tariff, months)
        | {"queries": queries}
        | _cell(tariff, queries * tariff.units(characters), months)
    )


def quote_texts(
    tariff: Tariff,
    characters: Iterable[int],
    distinct: Iterable[int],
    epochs: int = 3,
    ratio: Decimal = Decimal(1),
    months: int = 1,
) -> dict[str, Any]:
    """Price of asking about real texts before anything is spent: {full, selected} x {no cache, cache}.

    Args:
        characters: of each instance of the data set.
        distinct: of each instance that differs from all before it: what a cache leaves to be paid.
        epochs: passes over the data.
        ratio: the share r of each batch that selection asks about.
        months: calendar months over which the questions are spread.

    Returns:
        Ready for JSON. Selection with a cache is a range: each epoch may choose the same instances, or
        others (facts: between r and min(1, r·epochs) of the distinct ones).
    """
    sizes = [tariff.units(length) for length in characters]
    unlike = [tariff.units(length) for length in distinct]
    every, once = sum(sizes), sum(unlike)

    def cell(units: Decimal | int) -> dict[str, Any]:
        return _cell(tariff, int(Decimal(units).to_integral_value(ROUND_HALF_UP)), months)

    return _head(tariff, months) | {
        "instances": len(sizes),
        "distinct": len(unlike),
        "epochs": epochs,
        "ratio": float(ratio),
        "full": {"no_cache": cell(every * epochs), "cache": cell(once)},
        "selected": {
            "no_cache": cell(ratio * every * epochs),
            "cache_least": cell(ratio * once),
            "cache_most": cell(min(Decimal(1), ratio * epochs) * once),
        },
    }


def _head(tariff: Tariff, months: int) -> dict[str, Any]:
    return {
        "tariff": tariff.name,
        "as_of": tariff.as_of.isoformat(),
        "source": tariff.source,
        "months": months,
    }


def _cell(tariff: Tariff, units: int, months: int) -> dict[str, Any]:
    usd = tariff.usd_spread(units, months).quantize(CENT, ROUND_HALF_UP)
    return {"units": units, "usd": float(usd)}
