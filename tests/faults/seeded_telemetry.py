"""The seeded bugs of telemetry and of the checklist: each tells a fact wrongly, twice, or to anybody."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

EVENTS, SPANS, METRICS = (
    f"telemetry/test_{name}.py::test_" for name in ("events", "spans", "metrics")
)

TELEMETRY_MUTANTS: dict[str, Mutant] = {
    "an error is counted by every call around": bug(
        f"{METRICS}a_budget_without_room_is_counted_once",
        "assert",
        change('    if getattr(error, "told", True):\n        return False\n', ""),
    ),
    "reasons of verdicts go out unasked": bug(
        f"{EVENTS}reasons_are_content",
        "assert",
        change('    if content()[1] and verdict.get("reason"):', '    if verdict.get("reason"):'),
    ),
    "people have one reference in every tenant": bug(
        f"{SPANS}another_tenant_has_another_reference_for_the_same_person",
        "assert",
        change(
            "keyed_hash(secret, who.encode())[:_SHORT]", 'keyed_hash(b"", who.encode())[:_SHORT]'
        ),
    ),
    "a span that cannot end ends the call": bug(
        f"{SPANS}a_processor_that_breaks_reaches_no_call",
        "KeyError",
        change(
            "    except Exception as failure:  # noqa: BLE001 - no call and no run fails because its",
            "    except ZeroDivisionError as failure:  #",
        ),
    ),
    "a call that ends before it begins leaves its span open": bug(
        f"{SPANS}a_call_whose_key_cannot_be_made_has_its_span",
        "assert",
        change('        span.end("error", error)\n        raise\n', "        raise\n"),
    ),
    "a pause before an undo is an error": bug(
        f"{SPANS}a_pause_before_an_undo_is_no_error",
        "assert",
        change(
            'span.end("pending" if steers(run, error) else tool_outcome(error), error, call)',
            "span.end(tool_outcome(error), error, call)",
        ),
    ),
    "the trace of the caller ends where nobody records": bug(
        f"{SPANS}without_an_sdk_the_callers_trace_is_passed_on",
        "assert",
        change(
            "    return trace.NonRecordingSpan(trace.get_current_span().get_span_context())",
            "    return trace.INVALID_SPAN",
        ),
    ),
    "a confidence that is none is a score": bug(
        f"{EVENTS}a_score_is_a_number_from_0_to_1",
        "assert",
        change('return sure if 0 <= sure <= 1 else float(said == "pass")', "return sure"),
    ),
    "variables of one signal are not heeded": bug(
        "telemetry/test_set_up.py::test_a_variable_that_would_send_nothing_is_refused",
        "DID NOT RAISE",
        change(
            '(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}", f"OTEL_EXPORTER_OTLP_{what}")',
            '(f"OTEL_EXPORTER_OTLP_{what}",)',
        ),
    ),
    "the parts of a run are not linked": bug(
        "test_telemetry.py::test_a_resumed_run_is_linked_to_its_earlier_part",
        "assert",
        change("            span.add_link(link.context)", "            del link"),
    ),
    "a call that waits stays an error of its instrumentation": bug(
        "beside/test_beside.py::test_a_call_that_waits_is_no_error[semantic_kernel: alone]",
        "{'ERROR'}",
        change(
            '        elif outcome == "pending" and not self._own:',
            '        elif outcome == "nothing" and not self._own:',
        ),
    ),
    "what is unknown passes the checklist": bug(
        "readiness/test_command.py::test_a_ready_project_without_runs_is_not_scale_ready",
        "assert",
        change('            if status in ("fail", "unknown")', '            if status == "fail"'),
    ),
    "what operators do is graded as a run": bug(
        "readiness/test_sample.py::test_what_operators_do_is_no_run",
        "assert",
        change(
            "(tenant, begin, OPERATIONS, workflow) if value is not None]",
            '(tenant, begin, "nobody", workflow) if value is not None]',
        ),
    ),
    "the oldest runs are graded": bug(
        "readiness/test_sample.py::test_the_newest_run_is_the_last",
        "assert",
        change(
            '    order = " ORDER BY started_at DESC, run_id DESC LIMIT ?"',
            '    order = " ORDER BY started_at, run_id LIMIT ?"',
        ),
    ),
    "a tool that nobody declared passes as one that does not write": bug(
        "readiness/test_checks.py::test_of_a_tool_that_nobody_declared_nothing_passes",
        "assert",
        change("if s.effect is None or s.effect in effects]", "if s.effect in effects]"),
    ),
    "a module that ends the process passes the checklist": bug(
        "readiness/test_command.py::test_a_module_that_cannot_be_imported_is_no_pass",
        "assert",
        change("    except SystemExit as error:", "    except ImportWarning as error:"),
    ),
    "a run without a limit is no evidence": bug(
        "readiness/test_checks.py::test_limits_that_code_gives_are_seen_in_the_record",
        "assert",
        change("        if free:\n            such", "        if not runs:\n            such"),
    ),
    "scopes of the first part speak for all": bug(
        "readiness/test_checks.py::test_a_run_that_one_part_entered_without_scopes_had_none",
        "assert",
        change('if e.kind in ("run.started", "run.resumed")]', 'if e.kind == "run.started"]'),
    ),
    "a cost that is partly known is predictable": bug(
        "readiness/test_checks.py::test_a_cost_that_is_partly_known_is_no_evidence",
        "assert",
        change("if run.verified is not False and run.complete]", "if run.verified is not False]"),
    ),
    "a provider without a processor is a collector": bug(
        "readiness/test_checks.py::test_an_endpoint_takes_no_spans_that_a_provider_drops",
        "assert",
        change("    elif found.provider and found.idle:", "    elif found.idle and not found.sdk:"),
    ),
}
