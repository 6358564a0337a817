"""What a question costs: the price books that the settings name."""

from collections.abc import Iterable

from student_trainer.config import DistillSettings
from teacher_api.prices import UNPRICED, PriceBookError, Tariff, load_tariff


def tariffs_of(settings: DistillSettings) -> list[Tariff]:
    """Each teacher's. Raises PriceBookError: a book or feature of no use, or two of one name that differ."""
    teachers = len(settings.teacher)
    if not settings.price_book:
        return [UNPRICED] * teachers
    books, features = (
        names * teachers if len(names) == 1 else names
        for names in (settings.price_book, settings.price_feature)
    )
    tariffs = [named("price_book", book, feature) for book, feature in zip(books, features, strict=True)]
    refuse_one_name(tariffs)
    return tariffs


def named(field: str, book: str, feature: str) -> Tariff:
    """Raises PriceBookError, which names the book's field, for a book or feature of no use."""
    try:
        return load_tariff(book, feature)
    except PriceBookError as error:
        raise PriceBookError(f"{field}: {error}") from None


def refuse_one_name(tariffs: Iterable[Tariff]) -> None:
    """For two that differ, of one account: the ledger counts tiers and free units by name."""
    by_name: dict[str, Tariff] = {}
    for tariff in tariffs:
        if by_name.setdefault(tariff.name, tariff) != tariff:
            raise PriceBookError(
                f"price_book: two books that differ have a tariff {tariff.name!r}; by it the ledger counts "
                "free units and tiers; give one of the files another name"
            )
