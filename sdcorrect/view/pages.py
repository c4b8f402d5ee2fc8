"""What the HTML pages are rendered by."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """The templates of this package; every name in them is shown as text."""
    return Environment(
        loader=PackageLoader("sdcorrect.view"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
