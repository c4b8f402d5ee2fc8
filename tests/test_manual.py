"""README and manual: links lead somewhere, commands are understood, and those that can run do."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

import click
import pytest
import typer

from sdcorrect.cli import app
from sdcorrect.reference import SECTIONS

ROOT = Path(__file__).parents[1]
MANUAL = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + MANUAL
#: A command that has it in a comment cannot run in the suite; what it needs follows.
NEEDS = "needs:"
#: Programs that are not ours: their lines are read, not understood.
OTHERS = {"pip", "uv", "git", "cd", "docker", "sbatch", "mkdocs", "source", "pre-commit"}
LONGEST_README = 150

names = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def commands(page: Path) -> Iterator[str]:
    """The command lines of the page's blocks of shell, each on one line, with its comment."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                yield line


def words(line: str) -> list[str]:
    """The command's own words, without comment, redirection and the variables set before it."""
    found = shlex.split(line.partition(" > ")[0], comments=True)
    return [*dropwhile(lambda word: re.match(r"[A-Z]+=", word), found)]


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@names
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
        # the built pages have nothing beside them
        assert page not in MANUAL or target.is_relative_to(ROOT / "docs"), link


@names
def test_every_command_is_one_that_there_is(page: Path) -> None:
    known: dict[str, click.Command] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in commands(page):
        program, *arguments = words(line)
        if program == "sdcorrect":
            # reads its options, and runs nothing
            known[arguments[0]].make_context(arguments[0], arguments[1:])
        elif program in {"bash", "python", ".venv/bin/python"}:
            assert (ROOT / arguments[0]).is_file(), line
        else:
            assert program in OTHERS, line


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= LONGEST_README


def test_every_section_of_a_job_has_its_table_in_the_manual() -> None:
    marks = re.findall(r"<!-- settings: (\w+) -->", "".join(page.read_text() for page in MANUAL))
    assert sorted(marks) == sorted(section or "job" for section in SECTIONS)


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    assert all(f"- {page.name}\n" in text for page in MANUAL)


@pytest.mark.slow
def test_the_manual_is_built_without_a_warning(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path)
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    jobs = (tmp_path / "jobs" / "index.html").read_text()
    assert "<code>guidance_scale</code>" in jobs and "must be given" in jobs


@pytest.fixture
def clone(page: Path, tmp_path: Path) -> Path:
    """A folder as someone has it who follows the manual, with some pictures and jobs of their own."""
    for name in ("configs", "scripts", "sdcorrect", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "photos").mkdir()
    for picture in ("church.png", "ghost.png"):
        shutil.copy(ROOT / "sdcorrect" / "assets" / "pictures" / picture, tmp_path / "photos")
    (tmp_path / "pictures").symlink_to("photos")
    if not any("-o job.yaml" in line for line in commands(page)):
        job = "input: {path: photos}\noutput: {path: out/job}\nprompt: in 3d render style\n"
        (tmp_path / "job.yaml").write_text(job)
    return tmp_path


@pytest.mark.slow
@names
def test_commands_run_in_order(page: Path, clone: Path) -> None:
    """All but those that say what they need, and setting up. One page's commands build on each other."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for line in commands(page):
        program = words(line)[0]
        if NEEDS in line or program in OTHERS or program == "bash":
            continue
        # the quickstart's output, which pages take for granted
        if "out/quickstart" in line and not (clone / "out" / "quickstart").exists():
            quick = "sdcorrect translate -c configs/quickstart.yaml --limit 2"
            subprocess.run(["bash", "-c", quick], cwd=clone, env=environment, check=True)
        result = subprocess.run(
            ["bash", "-c", line], cwd=clone, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, f"{line}\n{result.stdout}{result.stderr}"
