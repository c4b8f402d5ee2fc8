"""The command line: the only place that prints or exits.

Commands import torch only when they need it, so that help and validation answer at once.
"""

from sdcorrect.cli import (
    bench,
    dissect,
    evaluate,
    folder,
    init,
    inspect,
    machine,
    report,
    slurm,
    translate,
)
from sdcorrect.cli.console import app

__all__ = [
    "app",
    "bench",
    "dissect",
    "evaluate",
    "folder",
    "init",
    "inspect",
    "machine",
    "report",
    "slurm",
    "translate",
]
