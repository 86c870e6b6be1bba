"""The seeded bugs of costs: each makes a result look cheaper than it was, or hides that nobody knows."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

SPENDING, PRICES = "test_spending.py::test_", "test_prices.py::test_"
TOLD = "test_costs.py::test_"

COST_MUTANTS: dict[str, Mutant] = {
    "failed runs cost nothing": bug(
        f"{SPENDING}failed_runs_are_paid_by_those_that_succeed",
        "Decimal('1.50')",
        change(
            "    nanos = sum(run.nanos for run in runs)\n",
            "    nanos = sum(run.nanos for run in runs if run.completed)\n",
        ),
    ),
    "every completed run is verified": bug(
        f"{SPENDING}only_verified_runs_bear_the_cost_of_a_verified_one",
        "(2, 1)",
        change("    return bool(said) and all(said.values())", "    return all(said.values())"),
    ),
    "a refuted write is verified by the next": bug(
        f"{SPENDING}a_refuted_step_is_rework_and_its_run_not_verified",
        "(1, 0, None)",
        change(
            "    return step.outcome != UNDONE and (step.outcome == REFUTED or no)",
            "    return False",
        ),
    ),
    "a doubt is a verified run": bug(
        f"{SPENDING}a_doubt_is_no_verified_run_and_its_cost_not_known",
        "Decimal('0.50')",
        change('    if any(step.outcome == "in_doubt" for step in stands):', "    if False:"),
    ),
    "what is held for a doubt is known": bug(
        f"{SPENDING}a_doubt_is_no_verified_run_and_its_cost_not_known",
        "Decimal('0.50')",
        change('complete=known and (not run.held or run.status == "running"),', "complete=known,"),
    ),
    "the first of several tries is work": bug(
        f"{SPENDING}second_attempts_are_rework_and_so_are_failed_ones",
        "Decimal('0.28')",
        change(
            "    first = all(attempt.number == 1 for attempt in step.attempts)"
            " and len(step.attempts) <= 1\n",
            "    first = True\n",
        ),
    ),
    "a model that is asked again is work": bug(
        f"{SPENDING}model_calls_after_a_failed_verdict_are_rework",
        "Decimal('2.00')",
        change("            found.add(event.seq)\n", "            pass\n"),
    ),
    "tenants are added up together": bug(
        f"{SPENDING}tenants_never_mix",
        "KeyError",
        change(
            "        groups.setdefault((run.tenant, run.workflow), []).append(run)",
            '        groups.setdefault(("acme", run.workflow), []).append(run)',
        ),
    ),
    "an answer without tokens is free": bug(
        f"{PRICES}an_answer_without_tokens_has_no_price",
        "assert 0 is None",
        change(
            "        if not (used.input or used.output) and _was_served(error):\n",
            "        if False:\n",
        ),
    ),
    "a model at home costs what another does": bug(
        f"{PRICES}what_genai_prices_does_not_know_is_unknown",
        "is None",
        change(
            '            yield _ALSO.get(provider, provider), rest.removeprefix("models/")',
            "            yield None, rest",
        ),
    ),
    "a table prices another snapshot": bug(
        f"{PRICES}a_table_knows_no_other_model",
        "is None",
        change(
            "    name = model.strip().casefold()\n    return name[len",
            "    name = model.strip().casefold()[:6]\n    return name[len",
        ),
    ),
    "cached tokens are dear": bug(
        f"{PRICES}a_table_prices_what_was_used",
        "Decimal('0.55')",
        change(
            "        cached = self.input if self.cached is None else self.cached\n",
            "        cached = self.input\n",
        ),
    ),
    "a price list that breaks leaves its call open": bug(
        f"{PRICES}a_price_list_that_breaks_after_the_call_leaves_nothing_held",
        "ZeroDivisionError",
        change(
            "        except Exception as broken:  # noqa: BLE001 - told in the record",
            "        except KeyError as broken:",
        ),
    ),
    "a tool whose cost nobody knows is free": bug(
        f"{SPENDING}a_cost_that_a_tool_cannot_tell_is_unknown",
        "(True,",
        change("    if intent.cost is None:\n        log.cost_complete = 0\n", ""),
    ),
    "an undo in a rollback cannot tell its costs": bug(
        f"{TOLD}an_undo_in_a_rollback_tells_its_costs",
        "book.undo failed with ConfigurationError",
        change(
            "        self.part, self.hash_key = opened.part, opened.hash_key\n"
            "        limits = Limits() if unlimited else opened.limits\n",
            "        limits = Limits() if unlimited else opened.limits\n",
        ),
    ),
    "an undo is in the budget of the run that it rolls back": bug(
        f"{TOLD}an_undo_in_a_rollback_tells_its_costs",
        "('in doubt'",
        change("    run.visit(by, unlimited=True)", "    run.visit(by)"),
    ),
    "a yes to an undo verifies its run": bug(
        f"{SPENDING}that_an_undo_undid_verifies_no_run",
        "(1, 1, ",
        change("        if step is not None and _is_undo(step):\n", "        if False:\n"),
    ),
    "a run that is undone is verified as a whole": bug(
        f"{SPENDING}a_run_that_people_roll_back_is_verified_no_more",
        "(1, 1, ",
        change(" and (word.event.step or word.event.seq > changed)}", "}"),
    ),
    "what another process spends is not counted": bug(
        f"{TOLD}a_tool_in_a_process_of_its_own_tells_its_costs",
        "Decimal('0.30')",
        change('        if "cost" in words:\n', "        if False:\n"),
    ),
    "what is spent in a transaction is refused": bug(
        f"{TOLD}what_is_spent_in_the_stores_transaction_is_spent[T-yes-returns-0.13-True]",
        "Decimal('0.13')",
        change("    if OPEN.get() is not None and cost.limits is None:\n", "    if False:\n"),
    ),
    "costs that wait for a commit are not spent": bug(
        f"{TOLD}what_is_spent_in_the_stores_transaction_is_spent[T-yes-returns-0.13-True]",
        "Decimal('0.13')",
        change("            self.spent += pending.spent\n", ""),
    ),
    "thoughts are free": bug(
        "llamaindex/test_models.py::test_thoughts_are_told_as_part_of_the_answer",
        "assert 7 == 407",
        change('(answered or 0) + (used.get("thoughts_token_count") or 0)', "answered or 0"),
    ),
    "tokens that are no counts are counted": bug(
        f"{PRICES}tokens_that_are_no_counts_are_not_known",
        "assert -5 >= 0",
        change("    return found if 0 <= found <= _MOST_TOKENS else None\n", "    return found\n"),
    ),
    "what a plain read costs is nobody's": bug(
        f"{SPENDING}what_a_plain_read_costs_is_told_by_its_tool",
        "('', Decimal('0.06')",
        change("    tool = call.tool.name if call.step is None else None", "    tool = None"),
    ),
    "who verifies a run is outside of it": bug(
        f"{TOLD}verifying_a_run_as_a_whole_is_paid_by_it",
        "there is no run here",
        change(
            "        with enter(self):  # what",
            "        with contextlib.nullcontext():  # what",
        ),
    ),
}
