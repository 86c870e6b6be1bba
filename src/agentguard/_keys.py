"""The keys that `agent_run.yaml` may hold, and what editors say about them."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue

from ._key_types import (
    OVER,
    Amount,
    Cost,
    Count,
    Dollars,
    Duration,
    Keys,
    Level,
    Money,
    Over,
    Pause,
    Rate,
    Rule,
    Seconds,
    Share,
    Text,
    Whole,
    Word,
    says,
)
from ._keys_check import CHECK, CheckKeys
from ._keys_costs import Costs
from ._keys_routing import Models, Routing
from ._keys_slos import SERVICE_LEVELS, ServiceLevels
from .autonomy import LOWEST_BY_DEFAULT, STAGES, Autonomy, Promotion
from .model import Circuit, Retry, RetryBudget
from .templates import Template, problems_of


class Logging(Keys):
    """Where traces go and how long records are kept."""

    trace: Literal["opentelemetry", "none"] | None = says("Whether spans are emitted.")
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = says(
        "How many days results and contents are kept."
    )


class RetryPolicy(Keys):
    """How often to try again after a failure that is known to have had no effect."""

    attempts: Annotated[int, Field(ge=1, le=100)] = says("Tries in all, the first included.", 3)
    wait: Pause = says("Seconds before the second try; doubles from there.", 0.2)
    max_wait: Pause = says("The longest wait in seconds.", 10.0)

    @model_validator(mode="after")
    def _ordered(self) -> RetryPolicy:
        if self.max_wait < self.wait:
            msg = "max_wait must be at least wait"
            raise ValueError(msg)
        return self

    def retry(self) -> Retry:
        """Return it as the value that the contract takes."""
        return Retry(attempts=self.attempts, wait=self.wait, max_wait=self.max_wait)


class IdempotencyPolicy(Keys):
    """What makes two calls the same effect, and what happens when it is in doubt."""

    key: Text | None = says("Template over the arguments, such as refund:{ticket_id}.")
    per: Literal["call"] | None = says("One effect per call of the model, instead of a key.")
    scope: Literal["tenant", "run", "global"] = says("Within what the key is unique.", "tenant")
    retention: Duration | None = says("How long the result is kept, such as 30d.")
    on_doubt: Literal["halt", "retry_same_key"] = says(
        "What to do when nobody knows whether it happened.", "halt"
    )
    downstream_dedupe: Duration | None = says("How long the backend drops repeats of the key.")
    volatile: tuple[Word, ...] = says("Arguments that do not make a call another call.", ())

    @model_validator(mode="after")
    def _one_of_two(self) -> IdempotencyPolicy:
        if (self.key is None) == (self.per is None):
            msg = "needs either 'key' with a template or 'per: call', one of the two"
            raise ValueError(msg)
        return self


class ApprovalPolicy(Keys):
    """When and by whom a call has to be approved."""

    when: Rule | None = says("Expression over the arguments; left out: always.")
    roles: tuple[Text, ...] = says("Who may decide.", ())
    quorum: Annotated[int, Field(ge=1, le=10)] = says("How many people have to agree.", 1)
    expires: Duration | None = says("How long the approval waits, such as 24h.")
    allow_edit: bool = says("Whether approvers may change arguments.", default=False)


class BudgetPolicy(Keys):
    """How often the tool may be called and what it may cost."""

    max_calls: Count | None = says("Calls at most.")
    max_spend_usd: Money | None = says("US dollars at most.")
    cost: Cost | None = says("What a call costs: an argument's name or an amount.")
    per: Literal["run", "hour", "day", "week", "month"] = says(
        "What the budget is counted over.", "run"
    )


SafeEnding = Literal["draft", "ticket", "ask"]


class ToolPolicy(Keys):
    """The policy of one tool that cannot be decorated."""

    effect: Literal["read", "write", "forbidden"] = Field(description="What the tool does.")
    scopes: tuple[Text, ...] = says("What the agent must be allowed to do.", ())
    facts: dict[Word, Word] = says(
        "Names for thresholds, each with the argument that holds the value.", {}
    )
    timeout: Seconds | None = says("Seconds until the call is given up.")
    isolation: Literal["thread", "process"] | None = says("How a sync tool is given up.")
    retry: RetryPolicy | None = says("Tries after a failure without effect.")
    rate_limit: Rate | None = says("Calls in a time, such as 5/second.")
    sensitive: tuple[Word, ...] = says("Arguments that are never stored in clear.", ())
    irreversible: bool = says("Whether nothing can undo it.", default=False)
    polls: bool = says("Whether calls that repeat each other are no loop.", default=False)
    owner: Text | None = says("The team that answers for it; no verifier may be theirs.")
    idempotency: IdempotencyPolicy | None = says("What makes two calls the same effect.")
    approval: ApprovalPolicy | None = says("When a person decides; {} means always.")
    budget: BudgetPolicy | None = says("How often and for how much it may be called.")
    falls_back_to: SafeEnding | None = says("How the run ends when its call cannot be made.")


class TemplateStep(Keys):
    """One step of a template."""

    tool: Text = Field(description="The tool's name.")
    arguments: dict[Word, Any] = says(
        "Arguments that must be so; '{parameter}' stands for its value, others are free.", {}
    )
    repeat: Whole = says("How many such calls.", 1)


class TemplateKeys(Keys):
    """A named sequence of calls, which takes the place of free choice of tools."""

    parameters: tuple[Word, ...] = says("What has to be given to follow it.", ())
    steps: tuple[TemplateStep, ...] = Field(description="The calls, in their order.")

    @model_validator(mode="after")
    def _consistent(self) -> TemplateKeys:
        found = next(problems_of([s.model_dump() for s in self.steps], self.parameters), None)
        if found is not None:
            msg = f"cannot be followed: {found}"
            raise ValueError(msg)
        return self

    def template(self, name: str) -> Template:
        """Return it as the value that runs follow."""
        return Template(name, tuple(s.model_dump() for s in self.steps), self.parameters)


class Plans(Keys):
    """What holds for the plans of all runs."""

    outside: Literal["note", "ask", "refuse"] | None = says(
        "What becomes of calls outside a plan at the least; code may be stricter."
    )


class VerificationPolicy(Keys):
    """How independent those who verify must be of those who propose."""

    irreversible: Literal["model", "model+person"] = says(
        "What a verified tool needs that nothing can undo.", "model"
    )
    spend_usd_over: dict[Dollars, Literal["rule", "model", "model+person"]] = says(
        "What a write needs that costs or moves more than these US dollars.", {}
    )

    def spend(self) -> tuple[tuple[Decimal, str], ...]:
        """Return the amounts from the lowest, each with what is needed above it."""
        return tuple(sorted((Decimal(usd), needs) for usd, needs in self.spend_usd_over.items()))


class PromotePolicy(Keys):
    """When a tool moves up a stage: after verified outcomes that are enough to be sure."""

    after: Whole = Field(description="Verified outcomes since its last change, at least.")
    confidence: Share = Field(description="Lower bound of their share that passed, such as 0.9.")
    to: Level = says("How far it moves up.", "auto")


class DemotePolicy(Keys):
    """How far a failed verdict or an incident takes a tool down."""

    to: Level = says("How far it moves down.", LOWEST_BY_DEFAULT)


class ClassPolicy(Keys):
    """How far the agent may go by itself with all tools of a kind."""

    read: Level | None = says("With reads; they run as usual unless this says otherwise.")
    write: Level | None = says("With writes.")


class AutonomyPolicy(Keys):
    """How far the agent may go by itself; of all that applies the lowest counts."""

    default: Level | None = says("With tools that are not named.")
    tools: dict[Text, Level] = says("With these; with promote, where they begin.", {})
    classes: ClassPolicy = says("With reads and with writes.", ClassPolicy())
    promote: PromotePolicy | None = says("When a tool moves up.")
    demote: DemotePolicy | None = says("How far a tool moves down.")

    def autonomy(self) -> Autonomy | None:
        """Return it as the value that runs obey; None if it says no more than nothing would."""
        up, down = self.promote, self.demote
        return Autonomy(
            default=self.default,
            tools=self.tools,
            classes=self.classes.model_dump(exclude_none=True),
            promote=None if up is None else Promotion(up.after, up.confidence, up.to),
            floor=None if down is None else down.to,
        ).unless_all_auto()


class _OrLevel:
    """In JSON Schema: one stage for everything, or keys."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"enum": [*STAGES]}, handler(core)]}


def _levels(value: object) -> object:
    """One word is the stage of everything."""
    if isinstance(value, str):
        if value not in STAGES:
            msg = f"must be {', '.join(STAGES[:-1])} or {STAGES[-1]}, or hold keys beneath it"
            raise ValueError(msg)
        return {"default": value}
    return value


class CircuitPolicy(Keys):
    """When a tool that fails is left alone, by everybody in its tenant."""

    failures: Annotated[int, Field(ge=1, le=100)] = says("Failures that open it.", 5)
    window: Duration = says("Within what time, such as 1m.", "1m")
    cooldown: Duration = says("How long nothing is started, such as 30s.", "30s")

    def circuit(self) -> Circuit:
        """Return it as the value that the contract takes."""
        return Circuit(self.failures, self.window, self.cooldown)


class RetryBudgetPolicy(Keys):
    """How many retries the agents of a tenant may make together."""

    percent: Annotated[int, Field(ge=0, le=100)] = says("Of the calls they start.", 10)
    burst: Annotated[int, Field(ge=0, le=10_000)] = says("So many more, when few came before.", 10)

    def budget(self) -> RetryBudget:
        """Return it as the value that retries are counted by."""
        return RetryBudget(self.percent, self.burst)


class AgentRun(Keys):
    """The budget, the thresholds and the tools of a workflow's runs."""

    workflow: Text | None = says("The workflow that this file is for.")
    autonomy: Annotated[AutonomyPolicy | None, BeforeValidator(_levels), _OrLevel()] = says(
        "How far the agent may go by itself."
    )
    max_steps: Whole | None = says("Steps of a run at most.")
    max_model_calls: Count | None = says("Calls of a model at most.")
    max_tool_calls: Count | None = says("Calls of tools at most.")
    max_spend_usd: Money | None = says("US dollars a run may spend.")
    max_seconds: Seconds | None = says("Seconds a run may take.")
    max_repeats: Whole | None = says("How often the same call may come without progress.")
    loops: Annotated[int, Field(ge=2, le=20)] | Literal["off"] | None = says(
        "After how many rounds without progress a loop is stopped, or off.", None
    )
    circuits: dict[Text, CircuitPolicy] = says(
        "By tool: when it is left alone because it fails.", {}
    )
    retry_budget: RetryBudgetPolicy | Literal["off"] = says(
        "How many retries the agents of a tenant may make together, or off.", RetryBudgetPolicy()
    )
    falls_back_to: SafeEnding | None = says(
        "How a run ends when a call cannot be made whose tool says nothing itself."
    )
    routing: Routing = says("Which model does what; recorded with the run.", Routing())
    models: Models = says("By alias: the model that routing means by it.", {})
    approvals: dict[Over, Amount] = says(
        "<fact>_over: amount. Above it a person decides; facts are declared by tools.", {}
    )
    logging: Logging = says("Traces and retention.", Logging())
    tools: dict[Text, ToolPolicy] = says("Policy of tools that cannot be decorated.", {})
    templates: dict[Word, TemplateKeys] = says(
        "Named sequences of calls that take the place of free choice of tools.", {}
    )
    plans: Plans = says("How strictly plans hold.", Plans())
    costs: Costs = says("What models and the time of people cost.", Costs())
    verification: VerificationPolicy = says(
        "How independent verifiers must be.", VerificationPolicy()
    )
    slos: ServiceLevels = SERVICE_LEVELS
    check: CheckKeys = CHECK

    def thresholds(self) -> dict[str, Decimal]:
        """Return the approvals by fact."""
        return {name.removesuffix(OVER): amount for name, amount in self.approvals.items()}


class File(Keys):
    """Configuration of agentguard."""

    agent_run: AgentRun = Field(description="The one key at the top.")


class Schema(GenerateJsonSchema):
    """JSON Schema as the loader reads: an empty value is refused, so null is in no type."""

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        """Name the dialect first."""
        return {"$schema": self.schema_dialect, **super().generate(schema, mode)}

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        """Leave null out."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        """Leave out defaults that say nothing."""
        found = super().default_schema(schema)
        if not isinstance(found.get("default"), (bool, int, float, str)):
            found.pop("default", None)
        return found

    def dict_schema(self, schema: Any) -> JsonSchemaValue:
        """Refuse keys that match no pattern."""
        return {**super().dict_schema(schema), "additionalProperties": False}

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles that only repeat the key."""
        return not schema
