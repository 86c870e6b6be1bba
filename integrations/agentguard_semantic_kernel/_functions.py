"""The functions of a kernel as its guard sees them, and those that one cannot decorate."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.exceptions import FunctionExecutionException, KernelException
from semantic_kernel.functions import (
    FunctionResult,
    KernelArguments,
    KernelFunctionFromMethod,
)
from semantic_kernel.kernel import Kernel
from semantic_kernel.services.ai_service_client_base import AIServiceClientBase

from agentguard import ConfigurationError, Guard, GuardError, current_run
from agentguard.hosting import (
    Entry,
    ToolParts,
    annotated_as,
    register_injected,
    register_tool_objects,
)

from ._call import declaration_of

_KINDS = (AIServiceClientBase, Kernel, KernelArguments, PromptExecutionSettings)
_INJECTED = {"arguments", "execution_settings", "kernel", "service"}
register_injected(annotated_as(*_KINDS))


async def execute(guard: Guard, proceed: Any, context: Any) -> None:
    """Execute a function: as it is, or guarded by the policy of its name."""

    async def body(**_: Any) -> Any:
        """Go on to the function, which takes its arguments from the context."""
        context.arguments.update(current_run().call.edits or {})
        await proceed(context)
        return context.result.value if context.result else None

    guarded = _guarded(guard, context.function, body)
    if guarded is None:
        await proceed(context)
    elif context.is_streaming:
        name = context.function.fully_qualified_name
        raise ConfigurationError(f"{name} has a policy, so it does not stream: call it with invoke")
    else:
        value = await guarded(**_given(context))  # which has set no result if it was done before
        was = FunctionResult(function=context.function.metadata, value=value)
        context.result = context.result or was


def name_of(entry: Entry, kernel: Kernel | None, call: Any) -> str:
    """Return the name under which the guard knows what a model calls, and what of it is sensitive."""
    with suppress(KernelException, GuardError):  # whoever calls it is told
        function = kernel and kernel.get_function(call.plugin_name, call.function_name)
        if declaration := declaration_of(function):
            return entry.guard.bind(declaration).name
        if function is not None and vars(function).get("agentguard_entry") is not entry:
            _guarded(entry.guard, function, _anything)
            vars(function)["agentguard_entry"] = entry
    return str(call.name)


def _parts_of(function: Any) -> ToolParts | None:
    """Return what a function of a kernel is made from; nothing of a prompt."""
    if not isinstance(function, KernelFunctionFromMethod):
        return None
    return ToolParts(function.fully_qualified_name, function.method, _schema(function))


register_tool_objects(_parts_of)


async def _anything(**_: Any) -> None:
    """Stand for a function of which only the policy matters."""


def _guarded(guard: Guard, function: Any, body: Any) -> Any:
    """Return *body* guarded, if the configuration has a policy for an undecorated function."""
    name = getattr(function, "fully_qualified_name", "")
    if name not in guard.settings.tools or declaration_of(function) is not None:
        return None
    return guard.protect(body, name=name, input_schema=_schema(function))


def _given(context: Any) -> dict[str, Any]:
    """Return the arguments as the function would get them; as they are, if it would not."""
    found, gather = context.arguments, getattr(context.function, "gather_function_parameters", None)
    with suppress(FunctionExecutionException):
        found = gather(context) if gather else found
    return {n: v for n, v in found.items() if n in _schema(context.function)["properties"]}


def _schema(function: Any) -> dict[str, Any]:
    parameters = {p.name: p for p in function.parameters if p.name not in _INJECTED}
    return {
        "type": "object",
        "properties": {name: _part(p.schema_data or {}) for name, p in parameters.items()},
        "required": [name for name, p in parameters.items() if p.is_required],
    }


def _part(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave `object` out where it only says that Semantic Kernel does not know the type."""
    known = schema.get("properties") or schema.get("additionalProperties")
    return dict(schema) if known or schema.get("type") != "object" else {}
