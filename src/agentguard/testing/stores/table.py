"""The table of transitions of an effect: every situation, every verb, and where they lead."""

from __future__ import annotations

from ...model import EffectState

SITUATIONS = (
    "none", "asked", "approved", "rejected", "expired", "denied", "lapsed", "executing",
    "orphaned", "succeeded", "failed", "failed_approved", "failed_late", "failed_final", "in_doubt",
)  # fmt: skip
"""The states of the ledger, told apart by their approval and by whether their owner lives:

`expired` and `rejected` wait for the agent to hear of it, `lapsed` and `denied` were heard;
`orphaned` executes under a dead owner; `failed_approved` failed without effect under an approval
that still holds, `failed_late` under one whose time is over.
"""

PAYLOADS = {"p": "q", "q": "p"}
"""Each payload and the other one."""

BEGINS = ("begin", "begin_asking", "begin_deduped", "other", "other_asking")
SETTLES = {
    "returned": EffectState.SUCCEEDED,
    "no_effect": EffectState.FAILED_RETRYABLE,
    "for_good": EffectState.FAILED_FINAL,
    "unclear": EffectState.IN_DOUBT,
}
RULINGS = {"ruled_happened": "happened", "ruled_not": "not_happened", "ruled_failed": "failed"}
CUT_OFF = {"cut_off": True, "cut_off_before": False}
"""The caller was interrupted without knowing the end; whether the body had begun."""
VERBS = (*BEGINS, *SETTLES, "stale", *CUT_OFF, *RULINGS, "reconciled", "sweep", "approve", "reject",
         "wait")  # fmt: skip

_SAME = ("begin", "begin_asking", "begin_deduped")
_ENDS = {
    "returned": "succeeded", "no_effect": "failed", "for_good": "failed_final",
    "unclear": "in_doubt",
}  # fmt: skip
_CUT_OFF = {"cut_off": "in_doubt", "cut_off_before": "failed"}
_RULED = {
    "ruled_happened": "succeeded", "ruled_not": "failed", "ruled_failed": "failed_final",
    "reconciled": "failed",
}  # fmt: skip
_ANEW = {"other": "asked", "other_asking": "asked"}

LEGAL: dict[str, dict[str, str]] = {
    "none": {**dict.fromkeys(("begin", "begin_deduped", "other"), "executing"),
             "begin_asking": "asked", "other_asking": "asked"},
    "asked": {"approve": "approved", "reject": "rejected", "wait": "expired"},
    "approved": {**dict.fromkeys(_SAME, "executing"), "wait": "expired"},
    "rejected": {**dict.fromkeys(_SAME, "denied"), **_ANEW},
    "expired": {**dict.fromkeys(_SAME, "lapsed"), **_ANEW},
    "denied": _ANEW,
    "lapsed": {**dict.fromkeys(_SAME, "asked"), **_ANEW},
    "executing": {**_ENDS, **_CUT_OFF},
    "orphaned": {"begin": "in_doubt", "begin_asking": "in_doubt", "begin_deduped": "executing",
                 "sweep": "in_doubt", **_ENDS, **_CUT_OFF, **_RULED},
    "succeeded": {},
    "failed": dict.fromkeys(_SAME, "executing"),
    "failed_approved": {**dict.fromkeys(_SAME, "executing"), "wait": "failed_late"},
    "failed_late": dict.fromkeys(_SAME, "asked"),
    "failed_final": {},
    "in_doubt": {"begin_deduped": "executing", **_ENDS, **_RULED},
}  # fmt: skip
"""Situation and verb to the situation after it; what stands not here is refused."""

PATHS = {
    "none": (), "asked": ("begin_asking",), "approved": ("begin_asking", "approve"),
    "rejected": ("begin_asking", "reject"), "expired": ("begin_asking", "wait"),
    "denied": ("begin_asking", "reject", "begin"), "lapsed": ("begin_asking", "wait", "begin"),
    "executing": ("begin",), "orphaned": ("begin_and_die",), "succeeded": ("begin", "returned"),
    "failed": ("begin", "no_effect"),
    "failed_approved": ("begin_asking", "approve", "begin", "no_effect"),
    "failed_late": ("begin_asking", "approve", "begin", "no_effect", "wait"),
    "failed_final": ("begin", "for_good"), "in_doubt": ("begin", "unclear"),
}  # fmt: skip
"""How each situation is reached."""
