"""The seeded bugs of the arithmetic of service levels and of what other tools are given."""

from __future__ import annotations

from tests.faults.seeded_bugs import Mutant, bug, change

ARITHMETIC = "slos/test_arithmetic.py::test_"
RULES = "slos/test_prometheus.py::test_"
OPENSLO = "slos/test_openslo.py::test_"
STATES = f"{ARITHMETIC}states_are_those_worked_out_by_hand"

SLO_MUTANTS: dict[str, Mutant] = {
    "the share alone is a breach": bug(
        STATES,
        "not sure that more is bad",
        change(
            "bounds(counts.bad, counts.valid)[0] > slo.budget",
            "counts.bad > slo.budget * counts.valid - 1",
        ),
    ),
    "few outcomes are enough": bug(
        STATES,
        "9 are too few",
        change(
            "    if counts.valid < slo.min_count:\n",
            "    if counts.valid < slo.min_count - 1:\n",
        ),
        change(
            "    return counts.valid >= slo.min_count and bounds(",
            "    return counts.valid >= slo.min_count - 1 and bounds(",
        ),
    ),
    "the short window is not asked": bug(
        STATES,
        "burn 2, not above 2",
        change(
            "for part in (long, short))",
            "for part in (long,))",
        ),
    ),
    "a burn of exactly the factor is above it": bug(
        STATES,
        "not above 2",
        change(
            "return counts.bad > factor * slo.budget", "return counts.bad >= factor * slo.budget"
        ),
    ),
    "a ticket takes autonomy away": bug(
        f"{ARITHMETIC}a_ticket_does_not_make_it_burn",
        "assert 'burning' == 'ok'",
        change(
            '    burning = any(rule.fires and rule.burn.severity == "page" for rule in rules)\n',
            "    burning = any(rule.fires for rule in rules)\n",
        ),
    ),
    "an unknown cost is a low one": bug(
        f"{ARITHMETIC}outcomes_count_by_what_is_looked_at",
        "assert 'good' == 'bad'",
        change(
            'return "good" if took is not None and took <= (slo.at_most or 0) else "bad"',
            'return "good" if took is None or took <= (slo.at_most or 0) else "bad"',
        ),
    ),
    "a factor out of reach is taken": bug(
        f"{ARITHMETIC}factors_that_can_never_be_reached_are_refused",
        "DID NOT RAISE",
        change(
            "    if limit is None or rule.factor < limit:\n",
            "    if limit is None or rule.factor <= limit:\n",
        ),
    ),
    "default windows are too short to be sure": bug(
        f"{ARITHMETIC}every_default_rule_can_be_broken",
        "all(",
        change("    least = max(min_count, enough(budget))\n", "    least = min_count\n"),
    ),
    "braces in a name are filled in": bug(
        f"{RULES}names_that_look_like_templates_are_told_as_they_are",
        "template: __alert_",
        change('    return text.replace("{{", \'{{"{{"}}\')\n', "    return text\n"),
    ),
    "default factors stay out of reach": bug(
        f"{ARITHMETIC}default_factors_out_of_reach_are_lowered_and_it_is_said",
        "'14.4'",
        change("    if rule.factor <= highest:\n", "    if rule.factor <= highest * 100:\n"),
    ),
    "alerts have no least number": bug(
        f"{RULES}few_outcomes_do_not_alert",
        "AgentguardSlo",
        change(
            ' > {slo.min_count - 1}.5",\n',
            ' > 0.5",\n',
        ),
    ),
    "alerts need no sureness": bug(
        f"{RULES}too_few_of_many_do_not_alert",
        "AgentguardSloBurning",
        change(
            'ratio_rate{window.text}{which} > {number(slo.budget)}",\n    ]',
            'ratio_rate{window.text}{which} >= 0",\n    ]',
        ),
    ),
    "what OpenSLO cannot carry is dropped": bug(
        f"{OPENSLO}what_cannot_be_carried_over_is_refused",
        "DID NOT RAISE",
        change("            if key not in known:\n", "            if not known:\n"),
    ),
    "OpenSLO forgets the least number": bug(
        f"{OPENSLO}a_document_is_what_the_specification_asks_for",
        "agentguard/min",
        change("        MIN: str(slo.min_count),\n", ""),
    ),
}
