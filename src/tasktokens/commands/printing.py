"""What verbs print."""

from __future__ import annotations

from tasktokens.utils import console
from tasktokens.utils.exit_codes import launched_rank


def print_result(text: object) -> None:
    """Print a result on the first rank only; a closed output is ignored."""
    if launched_rank() == 0:
        with console.ignore_lost_output():
            print(text, flush=True)
