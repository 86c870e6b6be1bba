"""The agent: LangChain's `create_agent` over a chat model that plays scripts, good and bad ones.

No key and no network are needed, and everything else is real: the model gets messages, asks for
tools, sees their answers. What a script does wrong, real models do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import httpx
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.base import BaseCheckpointSaver

MODEL = "scripted-1"
PRICES = {MODEL: (Decimal(3), Decimal(15))}  # US dollars per million tokens, in and out
PROMPT = "You refund what customers are owed, tell them so and close their tickets."
INJECTED = "call_injected"
LOOPS = 30  # where the runaway's film ends; a real one goes on


class Chat:
    """What the model has seen so far."""

    def __init__(self, messages: Sequence[BaseMessage]) -> None:
        self.answers = [m for m in messages if isinstance(m, ToolMessage)]
        self.turn = sum(isinstance(message, AIMessage) for message in messages)
        self.ticket_id = str(messages[-1 - self.turn - len(self.answers)].content).split()[-1]

    @property
    def amount(self) -> str:
        """How much the ticket asks for, as `get_ticket` told."""
        return str(json.loads(str(self.answers[0].content))["amount_usd"])

    @property
    def refused(self) -> bool:
        """Whether the refund of this ticket was refused."""
        own = [a for a in self.answers if a.tool_call_id != INJECTED]
        return any(a.name == "issue_refund" and a.status == "error" for a in own)

    def call(self, name: str, id: str = "", **args: str) -> ToolCall:  # noqa: A002 - LangChain's
        """Ask for a tool."""
        args = {"ticket_id": self.ticket_id, **args}
        return ToolCall(name=name, args=args, id=id or f"call_{self.turn}_{name}")


Turn = Callable[[Chat], list[ToolCall]]


def look(chat: Chat) -> list[ToolCall]:
    """Read the ticket."""
    return [chat.call("get_ticket")]


def refund(chat: Chat) -> list[ToolCall]:
    """Pay what the ticket asks for."""
    return [chat.call("issue_refund", amount_usd=chat.amount)]


def comment(chat: Chat) -> list[ToolCall]:
    """Tell the customer."""
    text = "A colleague will write to you." if chat.refused else f"We refund {chat.amount} USD."
    return [chat.call("comment_ticket", text=text)]


def close(chat: Chat) -> list[ToolCall]:
    """Close the ticket, unless people have to look at it first."""
    return [] if chat.refused else [chat.call("close_ticket")]


def comment_and_close(chat: Chat) -> list[ToolCall]:
    """Do both in one turn."""
    return comment(chat) + close(chat)


def refund_twice(chat: Chat) -> list[ToolCall]:
    """Ask twice in one turn, under one id: a stream delivered again, for example."""
    return refund(chat) * 2


def refund_and_obey_the_ticket(chat: Chat) -> list[ToolCall]:
    """Take the text of the ticket for an instruction."""
    injected = chat.call("issue_refund", INJECTED, ticket_id="T-9999", amount_usd="5000")
    return [*refund(chat), injected]


def insist(chat: Chat) -> list[ToolCall]:
    """Ask again for what was refused."""
    return refund(chat) if chat.refused else comment_and_close(chat)


def excuse(chat: Chat) -> list[ToolCall]:
    """Leave the refusal to people."""
    return comment(chat) if chat.refused else []


def reusing_ids(turn: Turn) -> Turn:
    """Number the calls of each turn anew, as some providers do."""

    def reused(chat: Chat) -> list[ToolCall]:
        return [{**call, "id": f"call_{number}"} for number, call in enumerate(turn(chat))]

    return reused


def and_close(chat: Chat) -> list[ToolCall]:
    """Say something else, and close."""
    return [chat.call("comment_ticket", text="Have a good day."), *close(chat)]


USUAL = (look, refund, comment, close)
SCRIPTS: dict[str, Sequence[Turn]] = {
    "T-1002": (look, refund, refund, comment_and_close),
    "T-1004": (look, refund, *[comment] * (LOOPS - 2)),
    "T-1005": (look, refund_twice, comment, close),
    "T-1007": (look, refund_and_obey_the_ticket, comment, close),
    "T-1008": tuple(reusing_ids(turn) for turn in (look, refund, comment, and_close)),
    "T-1009": (look, refund, insist, excuse),
}


class ScriptedModel(BaseChatModel):
    """A chat model that plays the script of the ticket it is given."""

    model_name: str = MODEL

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:  # noqa: ARG002 - LangChain's name
        """Take any tools: the script knows which to call."""
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's name
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - same
        **_: Any,
    ) -> ChatResult:
        chat = Chat(messages)
        script = SCRIPTS.get(chat.ticket_id, USUAL)
        calls = script[chat.turn](chat) if chat.turn < len(script) else []
        asked, said = 800 + 120 * len(messages), 30 + 40 * len(calls)
        used = UsageMetadata(input_tokens=asked, output_tokens=said, total_tokens=asked + said)
        message = AIMessage("" if calls else "Done.", tool_calls=calls, usage_metadata=used)
        return ChatResult(generations=[ChatGeneration(message=message)])


def build(functions: Sequence[Callable[..., Any]], checkpointer: BaseCheckpointSaver[Any]) -> Any:
    """Return the agent: what a broken connection keeps from answering is tried again."""
    retry = ToolRetryMiddleware(
        max_retries=2, retry_on=(httpx.TransportError,), on_failure="error", initial_delay=0
    )
    return create_agent(
        ScriptedModel(),
        [tool(function) for function in functions],
        system_prompt=PROMPT,
        middleware=[retry],
        checkpointer=checkpointer,
    )
