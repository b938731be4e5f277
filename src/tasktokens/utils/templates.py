"""Pages of HTML from the templates of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def page_templates() -> Environment:
    """The templates of ``assets/``: values are escaped, a name that is not given is an error.

    Examples:
        >>> page_templates().from_string("{{ name }}").render(name="a<b")
        'a&lt;b'
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("tasktokens", "assets"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
