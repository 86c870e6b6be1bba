"""The findings as SARIF 2.1.0, for the place where a team reads what its other checks say."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .values import Check, Finding, Report

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_ROOT: Final = "%SRCROOT%"
_PREFIX: Final = "agentguard/"


def sarif(report: Report, checks: Sequence[Check], source: str) -> dict[str, Any]:
    """Return one run with a rule for each check and a result for whatever is no pass.

    Args:
        report: the findings.
        checks: the checklist.
        source: the file that a finding without a place of its own is shown in.
    """
    rules = {check.id: number for number, check in enumerate(checks)}
    driver = {
        "name": "agentguard",
        "version": metadata.version("agentguard"),
        "rules": [_rule(check) for check in checks],
    }
    told = [finding for finding in report.findings if finding.status != "pass"]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, rules[finding.id], source) for finding in told],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(check: Check) -> dict[str, Any]:
    return {
        "id": _PREFIX + check.id,
        "name": "".join(part.title() for part in check.id.replace("_", ".").split(".")),
        "shortDescription": {"text": f"{check.title}."},
        "fullDescription": {"text": check.why},
        "help": {"text": check.why, "markdown": f"**{check.title}.** {check.why}"},
        "defaultConfiguration": {"level": "error" if check.level == "minimum" else "warning"},
        "properties": {"tags": ["agentguard", check.area, check.level]},
    }


def _result(finding: Finding, rule: int, source: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": _PREFIX + finding.id,
        "ruleIndex": rule,
        "level": _level(finding),
        "message": {"text": _text(finding)},
        "locations": [{"physicalLocation": _place(finding, source)}],
        "partialFingerprints": {"agentguard/v1": _fingerprint(finding)},
        "properties": {"status": finding.status},
    }
    if finding.waived is not None:
        result["suppressions"] = [{"kind": "external", "justification": finding.waived}]
    return result


def _level(finding: Finding) -> str:
    """Say what is unknown as a note: the standard's kind `open` has no level, and is not shown."""
    if finding.status == "unknown":
        return "note"
    return "error" if finding.level == "minimum" else "warning"


def _text(finding: Finding) -> str:
    who = f"{finding.tool}: " if finding.tool else ""
    return f"{finding.title}: {who}{finding.evidence}. Next: {finding.action}"


def _place(finding: Finding, source: str) -> dict[str, Any]:
    path = Path(finding.file or source)
    if path.is_absolute():
        artifact = {"uri": path.as_uri()}
    else:
        artifact = {"uri": quote(path.as_posix()), "uriBaseId": _ROOT}
    return {"artifactLocation": artifact, "region": {"startLine": finding.line or 1}}


def _fingerprint(finding: Finding) -> str:
    """The same finding keeps it when lines move; equal names in two folders are two findings.

    Folders of a machine are not its own.
    """
    path = Path(finding.file or "")
    where = path.name if path.is_absolute() else path.as_posix()
    told = "\n".join([finding.id, finding.tool or "", where])
    return hashlib.sha256(told.encode()).hexdigest()
