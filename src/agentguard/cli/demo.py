"""`agentguard demo`: the story of the README, from a checkout."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from .shell import Failure, PlainCommand

_MODULE = "examples.refund_and_close_ticket.demo"
_CHECKOUT = Path(__file__).resolve().parents[3]


@click.command(
    "demo", cls=PlainCommand, context_settings={"ignore_unknown_options": True},
)  # fmt: skip
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> int:
    """Show a run that is killed, resumed, approved and kept within its budget.

    ARGUMENTS: --slo plays another story, in which a workflow loses its autonomy and gets it back;
    --resume goes on with what you have decided; --dir DIRECTORY keeps everything there.
    """
    path = _CHECKOUT / (_MODULE.replace(".", "/") + ".py")
    if not path.is_file():
        raise Failure(
            "the demo is not part of the installed package: clone the repository and run"
            " `python3 run.py demo` there"
        )
    sys.path.insert(0, str(_CHECKOUT))
    code: int = importlib.import_module(_MODULE).main(list(arguments))
    return code
