"""The seeded bugs of routing and caching."""

from __future__ import annotations

from tests.faults.seeded_bugs import BELOW, Mutant, bug, change

ROUTES, CACHED = "test_routing.py::test_", "test_caching.py::test_"

ROUTE_MUTANTS: dict[str, Mutant] = {
    "an outage escalates": bug(
        f"{ROUTES}a_verifier_without_an_answer_is_no_failed_verdict",
        "AssertionError",
        change(
            f'ledger/routes.py{BELOW}"tool" in data and data.get("error") == "VerificationFailed"',
            'str(data.get("error")).startswith("Verif")',
        ),
        change('data LIKE \'%"error":"VerificationFailed"%\'', "data LIKE '%Verif%'"),
    ),
    "a resumed run forgets its heavier model": bug(
        f"{ROUTES}a_resumed_run_keeps_its_heavier_model",
        "AssertionError",
        change('        moved = moved | {str(data["role"])}', "        pass"),
    ),
    "a heavier model takes over without room": bug(
        f"{ROUTES}the_heavier_model_must_fit_into_the_budget",
        "AssertionError",
        change("return used.spent + used.held + (price or 0) <= limits.max_spend", "return True"),
    ),
    "the model that takes over later may verify": bug(
        f"{ROUTES}the_model_that_takes_over_only_later_may_not_verify",
        "ValueError",
        change("        roles.append(settings.escalation.to)", "        pass"),
    ),
    "tenants share artifacts": bug(
        f"{CACHED}a_tenant_never_gets_another_tenants_artifact[memory]",
        "AssertionError",
        change(
            "tenant = (guard if run is None else run).principal.tenant",
            "tenant = guard.principal.tenant",
        ),
    ),
    "a damaged artifact is believed": bug(
        f"{CACHED}a_damaged_row_is_never_believed",
        "TypeError",
        change(
            f"ledger/artifacts.py{BELOW}    if not _is_intact(name, values, sealed):\n"
            "        return Kept(None)",
            "",
        ),
    ),
    "artifacts never expire": bug(
        f"{CACHED}time_runs_out_by_the_stores_clock",
        "AssertionError",
        change("return None if expires is not None and expires <= tx.now else", "return"),
    ),
    "of two callers the last one wins": bug(
        f"{CACHED}of_two_callers_at_once_both_get_what_is_kept",
        "AssertionError",
        change("        if first is not None and first.value is not None:", "        if False:"),
        change("if kept.value is not None and kept.value != text:", "if False:"),
    ),
    "content without its types": bug(
        f"{CACHED}values_that_only_look_alike_are_told_apart",
        "AssertionError",
        change("return [kind.__name__, *tell(value, where)]", "return [*tell(value, where)]"),
    ),
    "what is sensitive is cached": bug(
        f"{CACHED}a_result_that_repeats_what_is_sensitive_is_not_kept",
        "AssertionError",
        change("    return scrubbed != text", "    return False"),
    ),
    "a failing store makes hit rates wrong": bug(
        f"{CACHED}counts_that_could_not_be_written_are_written_later",
        "DID NOT RAISE",
        change("                self.give_back(taken)\n", "                pass\n"),
    ),
    "a cost that cannot be told loses what it is for": bug(
        f"{CACHED}a_declared_cost_counts",
        "KeyError",
        change(
            "        except Exception as error:  # noqa: BLE001 - told in the log, and not known",
            "        except ConfigurationError as error:",
        ),
    ),
}
