"""How near translated pictures are to their sources, to the truth and to their prompts."""

from sdcorrect.evaluate.clip import Clip, nearest_styles, style_accuracy
from sdcorrect.evaluate.results import CSV_NAME, JSON_NAME, Evaluation, Row, write_csv, write_json
from sdcorrect.evaluate.run import Request, Run

__all__ = [
    "CSV_NAME",
    "JSON_NAME",
    "Clip",
    "Evaluation",
    "Request",
    "Row",
    "Run",
    "nearest_styles",
    "style_accuracy",
    "write_csv",
    "write_json",
]
