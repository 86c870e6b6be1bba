"""Whether a project is ready for more volume: the article's Table 2, graded with evidence."""

from .grading import CHECKS, grade
from .project import Project, Telemetry, project_of
from .sample import NEWEST, Sample, Seen, Tally, read_sample, seen_of
from .sarif import sarif
from .subjects import Subject, subject_of
from .values import AREAS, LEVELS, STATUSES, Check, Finding, Report, Said

__all__ = [
    "AREAS",
    "CHECKS",
    "LEVELS",
    "NEWEST",
    "STATUSES",
    "Check",
    "Finding",
    "Project",
    "Report",
    "Said",
    "Sample",
    "Seen",
    "Subject",
    "Tally",
    "Telemetry",
    "grade",
    "project_of",
    "read_sample",
    "sarif",
    "seen_of",
    "subject_of",
]
