"""The report: one HTML page with a job's pictures, which needs no network."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from jinja2 import Environment
from markupsafe import Markup

from sdcorrect import __version__
from sdcorrect.output.files import write_atomically
from sdcorrect.pages import environment
from sdcorrect.report.cards import Card, counts, problems
from sdcorrect.report.gallery import STATES, Gallery


def write_report(gallery: Gallery, cards: Sequence[Card], page: Path) -> None:
    """Write the page that shows the `cards` of `gallery`.

    Raises:
        SdcorrectError: it cannot be written.
    """
    # settings may contain a path that is not UTF-8
    html = render(gallery, cards).encode(errors="backslashreplace")
    temporary = page.with_suffix(".tmp")
    write_atomically(page, html, temporary=temporary)


def render(gallery: Gallery, cards: Sequence[Card]) -> str:
    templates = environment("sdcorrect.report")
    templates.filters["seconds"] = _seconds
    # the page allows only these by their hashes, whatever names contain
    style, script = (_inline(templates, name) for name in ("report.css", "report.js"))
    job_file = gallery.job_file
    return templates.get_template("report.html.j2").render(
        version=__version__,
        style=style,
        script=script,
        hash_of_style=_hash(style),
        hash_of_script=_hash(script),
        job=job_file.job,
        job_file=job_file,
        states=STATES,
        variants=[_summary(gallery, cards, index) for index in range(len(gallery.variants))],
        metrics=gallery.metrics,
        seconds=gallery.seconds,
        shards=gallery.shards,
        cards=cards,
        left_out=gallery.left_out,
        problems=list(problems(cards, gallery.labels)),
        settings=_settings(gallery),
        data={
            "variants": gallery.labels,
            "metrics": gallery.metrics,
            "states": STATES,
            "pictures": [asdict(card) for card in cards],
        },
    )


def _summary(gallery: Gallery, cards: Sequence[Card], index: int) -> dict[str, Any]:
    """The results of one variant: counts by state, means of known values, evaluations."""
    sides = [card.sides[index] for card in cards]
    name = gallery.variants[index]
    columns = zip(*(side.scores for side in sides if side.scores), strict=True)
    means = [_mean(column) for column in columns]
    return {
        "name": gallery.labels[index],
        "counts": counts(cards, index),
        "seconds": _mean([side.seconds for side in sides]),
        "evaluations": gallery.evaluations.get(name),
        "means": means or [None] * len(gallery.metrics),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _settings(gallery: Gallery) -> str:
    """The job as YAML that runs it again, without defaults."""
    content = gallery.job_file.job.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(content, sort_keys=False, width=100)


def _seconds(value: float) -> str:
    """A duration for people, such as `3 min 20 s`."""
    if value < 60:
        return f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _inline(environment: Environment, name: str) -> Markup:
    assert environment.loader
    source, _, _ = environment.loader.get_source(environment, name)
    return Markup(source)


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
