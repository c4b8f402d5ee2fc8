"""The job: a YAML file, `--set` and flags, merged and checked before a model is loaded.

Imports no torch.
"""

from sdcorrect.config.job import Input, Job, Output
from sdcorrect.config.load import absolute_paths, load_job, parse_set
from sdcorrect.config.templates import placeholders

__all__ = ["Input", "Job", "Output", "absolute_paths", "load_job", "parse_set", "placeholders"]
