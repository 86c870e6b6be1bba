"""Model inputs and outputs as JSON types for the record, without what a tool declared sensitive."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, message_to_dict

from agentguard.hosting import edits_note

if TYPE_CHECKING:
    from langchain_core.outputs import LLMResult

Redact = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]

# Providers repeat a call's arguments here, as raw text that cannot be redacted.
_RAW = ("tool_calls", "function_call")


def record(message: BaseMessage, redact: Redact) -> dict[str, Any]:
    """Return *message* as JSON types; `messages_from_dict` makes a message of it again."""
    told = message_to_dict(message)
    data = told["data"]
    if isinstance(message, AIMessage):
        extra = data.get("additional_kwargs") or {}
        data["additional_kwargs"] = {k: v for k, v in extra.items() if k not in _RAW}
        data["tool_calls"] = [_called(call, redact) for call in message.tool_calls]
        data["content"] = _without_calls(data["content"])
        data["invalid_tool_calls"] = [{**call, "args": None} for call in message.invalid_tool_calls]
        data.pop("tool_call_chunks", None)
    plain: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return plain


def _called(call: Any, redact: Redact) -> dict[str, Any]:
    return {**call, "args": dict(redact(call["name"], call["args"]))}


def _without_calls(content: Any) -> Any:
    """Leave out the content blocks that repeat the tool calls."""
    if not isinstance(content, list):
        return content
    return [b for b in content if not (isinstance(b, dict) and "tool" in str(b.get("type")))]


def question(asked: Sequence[Any], redact: Redact) -> list[dict[str, Any]]:
    """Return what one model call asks: LangChain gives a list of messages, or else a text."""
    found = asked[0] if asked else []
    if isinstance(found, str):
        return [{"type": "text", "text": found}]
    return [record(message, redact) for message in found]


def model(serialized: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's name, the most it may answer and the prompt, wherever somebody says so."""
    asked: Mapping[str, Any] = told.get("invocation_params") or {}
    known: Mapping[str, Any] = told.get("metadata") or {}
    name = known.get("ls_model_name") or asked.get("model") or asked.get("model_name")
    most = known.get("ls_max_tokens") or asked.get("max_tokens")
    hub = (repo := known.get("lc_hub_repo")) and f"{known.get('lc_hub_owner') or '-'}/{repo}"
    prompt = known.get("prompt_name") or hub
    version = known.get("prompt_version") or known.get("lc_hub_commit_hash")
    return {
        "model": str(name or (serialized or {}).get("name") or "unknown"),
        "max_output_tokens": most if isinstance(most, int) else None,
        "prompt": (str(prompt), version) if prompt else None,
    }


def answer(result: LLMResult, redact: Redact) -> Any:
    """Return what the model answered; None if it answered nothing."""
    said = _message(result)
    if said is not None:
        return record(said, redact)
    texts = [generation.text for row in result.generations for generation in row]
    return {"text": texts[0]} if texts else None


def usage(result: LLMResult) -> dict[str, int]:
    """Return the tokens that the provider counted, as `model_finished` takes them."""
    said = _message(result)
    counted: Mapping[str, Any] = getattr(said, "usage_metadata", None) or {}
    if not counted:
        told = (result.llm_output or {}).get("token_usage") or {}
        counted = {
            "input_tokens": told.get("prompt_tokens"),
            "output_tokens": told.get("completion_tokens"),
        }
    details = {name: n or 0 for name, n in (counted.get("input_token_details") or {}).items()}
    kept = sum(n for name, n in details.items() if name.startswith("ephemeral_"))  # by lifetime
    return {
        "input_tokens": counted.get("input_tokens") or 0,
        "output_tokens": counted.get("output_tokens") or 0,
        "cached_tokens": sum(n for name, n in details.items() if name.endswith("cache_read")),
        "cache_write_tokens": details.get("cache_creation") or kept,
    }


def _message(result: LLMResult) -> BaseMessage | None:
    for row in result.generations:
        for generation in row:
            said = getattr(generation, "message", None)
            if isinstance(said, BaseMessage):
                return said
    return None


def add_edits(output: Any, edits: Mapping[str, Any]) -> None:
    """Say in a tool's answer what a person changed; LangChain is about to return this object."""
    told = edits_note(edits)
    if not isinstance(output, ToolMessage):
        return
    if isinstance(output.content, list):
        output.content.append({"type": "text", "text": told})
    else:
        output.content = f"{output.content}\n{told}"
