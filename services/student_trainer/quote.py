"""`student-trainer price`: a number of requests, or real texts, at a tariff of a price book."""

from typing import Any

from student_trainer.config import PriceSettings
from student_trainer.costs.quotes import quote_queries, quote_texts
from student_trainer.data import DataSettings, load_texts
from student_trainer.tariffs import named


def quote(settings: PriceSettings) -> dict[str, Any]:
    """Ready for JSON. Raises PriceBookError, DataError."""
    tariff = named("book", settings.book, settings.feature)
    if settings.queries is not None:
        return quote_queries(tariff, settings.queries, settings.characters, settings.months)
    names = DataSettings.model_fields.keys() & PriceSettings.model_fields.keys()
    texts = load_texts(DataSettings(**settings.model_dump(include=names)))
    sizes = [instance.characters for instance in texts]
    once = [instance.characters for instance in dict.fromkeys(texts)]
    return quote_texts(tariff, sizes, once, settings.epochs, settings.ratio, settings.months)


def shown(quoted: dict[str, Any]) -> str:
    """The same for people."""
    head = f"{quoted['tariff']} as of {quoted['as_of']} ({quoted['source']}), {quoted['months']} month(s)"
    if "queries" in quoted:
        return f"{head}\n{quoted['queries']:,} requests, {quoted['units']:,} units: ${quoted['usd']:,.2f}"
    full, selected = quoted["full"], quoted["selected"]
    least, most = selected["cache_least"], selected["cache_most"]
    return "\n".join(
        [
            head,
            f"{quoted['instances']:,} instances, {quoted['distinct']:,} distinct, {quoted['epochs']} epochs",
            f"full:             ${full['no_cache']['usd']:,.2f}, with a cache ${full['cache']['usd']:,.2f}",
            f"selected, r = {quoted['ratio']:<4g}: ${selected['no_cache']['usd']:,.2f}, "
            f"with a cache ${least['usd']:,.2f} to ${most['usd']:,.2f}",
        ]
    )
