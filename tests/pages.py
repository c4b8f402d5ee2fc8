"""Output folders and opened pages, as the tests of the views handle them."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from sdcorrect.output.folder import OutputFolder

#: A path that would end the script it stands in, and mark up the page that shows it as it is.
HOSTILE = """<img src=x onerror="document.title='run'">'&amp; #1?%41/</script><b>.png"""
NAMES = ["bicycle.png", "church.png", "ghost.png", "tent.png"]


@dataclass
class Folder:
    """An output folder and the pictures it was made of."""

    out: Path
    pictures: Path

    @property
    def page(self) -> Path:
        return self.out / "report.html"


@dataclass
class Opened:
    """A page in the browser, with all that it asked for and complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def write_evaluation(out: Path, values: dict[tuple[str, str], tuple[object, ...]]) -> None:
    """An `evaluation.csv` of the metrics ssim and lpips, by picture and variant."""
    with (out / "evaluation.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("variant", "path", "ssim", "lpips"))
        writer.writerows((variant, path, *row) for (path, variant), row in values.items())


def multiply(folder: Folder, count: int) -> None:
    """Record `count` more pictures, all alike, as the job would have."""
    record = OutputFolder(folder.out).records()["church.png", "sdedit"]
    lines = []
    for number in range(count):
        name = f"more/{number:05}.png"
        for variant in ("sdedit", "correct"):
            path = folder.out / variant / name
            path.parent.mkdir(exist_ok=True)
            path.hardlink_to(folder.out / variant / "church.png")
            update = {
                "input": record.input.model_copy(update={"path": name}),
                "output": record.output.model_copy(update={"path": f"{variant}/{name}"}),
                "variant": variant,
            }
            lines.append(record.model_copy(update=update).as_json())
    with (folder.out / "records" / "0-of-1.jsonl").open("ab") as stream:
        stream.writelines(lines)


def serious(page: Page) -> list[str]:
    """What axe finds on the page as it is that is serious or critical, with the element."""
    violations = Axe().run(page).response["violations"]
    return [
        f"{violation['id']}: {node['html']}"
        for violation in violations
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]
