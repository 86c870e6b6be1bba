"""The keys of `check`: what `agentguard check` lets be, each with its reason."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ._key_types import Keys, Text, says

Reason = Annotated[Text, Field(min_length=10)]


class CheckKeys(Keys):
    """How `agentguard check` grades; runs do not read it."""

    waive: dict[Text, Reason] = says(
        "Check, or tool:check, and the reason why it need not pass here.", {}
    )


CHECK = says("How agentguard check grades.", CheckKeys())
