"""Every figure of Google's published tiers that the paper's bill rests on, and books that are broken."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student_trainer.costs.quotes import CENT, quote_queries, quote_texts
from teacher_api.prices import UNPRICED, PriceBookError, Tariff, books, features, load_tariff

SENTIMENT = load_tariff("google-natural-language", "sentiment")

BOOK = """
as_of = 2026-01-31
source = "our contract"
[features.ours]
unit_characters = 10
minimum_units = 2
free_units = 5
tiers = [{ up_to = 20, usd_per_1000 = 3.00 }, { usd_per_1000 = 1.50 }]
"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "ours.toml"
    path.write_text(BOOK)
    return path


@pytest.mark.parametrize(
    ("units", "usd"),
    [
        (5_000, "0.00"),
        (67_349, "62.35"),
        (392_702, "387.70"),
        (785_404, "780.40"),
        (3_927_020, "2458.51"),
        (7_854_040, "3708.51"),
        (23_562_120, "7635.53"),
    ],
)
def test_sentiment_is_priced_as_published(units: int, usd: str) -> None:
    assert SENTIMENT.usd(units).quantize(CENT) == Decimal(usd)


@pytest.mark.parametrize(
    ("feature", "usd"),
    [
        ("entities", "3708.51"),
        ("classification", "3100.40"),
        ("syntax", "1854.26"),
        ("entity-sentiment", "7417.02"),
    ],
)
def test_the_full_pass_as_other_features(feature: str, usd: str) -> None:
    assert load_tariff("google-natural-language", feature).usd(7_854_040).quantize(CENT) == Decimal(usd)


def test_a_request_is_rounded_up_alone() -> None:
    assert [SENTIMENT.units(n) for n in (800, 1_500, 600)] == [1, 2, 1]  # 4 units, not 3
    assert [SENTIMENT.units(n) for n in (0, 1, 1_000, 1_001)] == [1, 1, 1, 2]


def test_aws_counts_three_units_at_the_least() -> None:
    tariff = load_tariff("aws-comprehend", "sentiment")
    assert [tariff.units(n) for n in (0, 1, 300, 301, 1_000)] == [3, 3, 3, 4, 10]
    assert tariff.usd(1) == Decimal("0.0001")


def test_the_month_matters() -> None:
    assert SENTIMENT.usd_spread(7_854_040, 12).quantize(CENT) == Decimal("7794.04")
    assert SENTIMENT.usd_spread(7_854_040, 1) == SENTIMENT.usd(7_854_040)


@pytest.mark.parametrize("name", books())
def test_every_feature_of_every_book_loads(name: str) -> None:
    for feature in features(name):
        tariff = load_tariff(name, feature)
        assert tariff.source.startswith("https://")
        assert tariff.as_of.year >= 2026


@settings(deadline=None)
@given(
    before=st.integers(0, 10_000_000),
    parts=st.lists(st.integers(0, 3_000_000), max_size=8),
    feature=st.sampled_from(features("google-natural-language")),
)
def test_parts_in_any_cut_cost_what_the_whole_costs(before: int, parts: list[int], feature: str) -> None:
    tariff = load_tariff("google-natural-language", feature)
    asked, total = before, Decimal(0)
    for units in parts:
        price = tariff.usd(units, before=asked)
        assert 0 <= price <= tariff.worst(units)
        asked, total = asked + units, total + price
    assert total == tariff.usd(sum(parts), before=before)


def test_unpriced_costs_nothing() -> None:
    assert UNPRICED.usd(10**9) == 0


def test_a_users_own_book(book: Path) -> None:
    tariff = load_tariff(book, "ours")
    assert tariff.name == "ours/ours"
    assert tariff.units(9) == 2
    assert tariff.usd(30) == Decimal("0.045") + Decimal("0.015")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "unit_characters = 10",
            "unit_characters = 0",
            r"features\.ours\.unit_characters.*greater than 0.*is 0",
        ),
        ("3.00", "-1.0", r"features\.ours\.tiers\.0\.usd_per_1000.*greater than or equal to 0"),
        ("up_to = 20", "up_to = 4", r"must ascend, not \[5, 4\]"),
        (
            ", { usd_per_1000 = 1.50 }",
            "",
            r"tiers: the last one must hold for all units above; drop its up_to",
        ),
        ("minimum_units", "minimal_units", r"features\.ours\.minimal_units.*not permitted"),
        ('source = "our contract"', "", r"source: Field required"),
        ("as_of = 2026-01-31", "as_of = 'soon'", r"ours.toml: as_of: .*date.*is 'soon'"),
        ("[features.ours]", "[ours]", r"no table 'features'; add"),
        ("tiers = [", "tiers = ", r"not TOML"),
        ("[features.ours]", "[features.theirs]", r"no feature 'ours'; choose one of theirs"),
    ],
)
def test_a_broken_book_says_what_is_wrong(book: Path, old: str, new: str, said: str) -> None:
    book.write_text(BOOK.replace(old, new))
    with pytest.raises(PriceBookError, match=said):
        load_tariff(book, "ours")


def test_a_missing_book_names_those_there_are() -> None:
    with pytest.raises(PriceBookError, match="one of aws-comprehend, google-natural-language"):
        load_tariff("nowhere", "sentiment")


def test_a_quote_of_queries_is_json() -> None:
    quote = json.loads(json.dumps(quote_queries(SENTIMENT, 7_854_040)))
    assert quote["usd"] == 3708.51
    assert quote["units"] == quote["queries"] == 7_854_040
    assert quote["tariff"] == "google-natural-language/sentiment"
    assert quote_queries(SENTIMENT, 10_000, characters=1_500)["units"] == 20_000


def test_a_quote_of_texts_shows_all_four_cells() -> None:
    characters = [800, 1_500, 600] * 10_000  # 40,000 units an epoch
    distinct = [800, 1_500, 600] * 5_000
    quote = json.loads(json.dumps(quote_texts(SENTIMENT, characters, distinct, 3, Decimal("0.1"))))
    assert (quote["instances"], quote["distinct"]) == (30_000, 15_000)
    assert quote["full"]["no_cache"] == {"units": 120_000, "usd": 115.0}
    assert quote["full"]["cache"] == {"units": 20_000, "usd": 15.0}
    assert quote["selected"]["no_cache"] == {"units": 12_000, "usd": 7.0}
    assert quote["selected"]["cache_least"] == {"units": 2_000, "usd": 0.0}
    assert quote["selected"]["cache_most"] == {"units": 6_000, "usd": 1.0}


def test_tariffs_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SENTIMENT.free_units = 10**9  # type: ignore[misc]
    assert isinstance(SENTIMENT, Tariff)
