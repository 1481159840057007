"""What does a distillation loss compute? Find out by experiment, for anybody's function."""

from kd_notes.audit._audit import audit
from kd_notes.audit._codes import CODES
from kd_notes.audit._pytest import assert_audit
from kd_notes.audit._report import Finding, Report, Weights

__all__ = ["CODES", "Finding", "Report", "Weights", "assert_audit", "audit"]
