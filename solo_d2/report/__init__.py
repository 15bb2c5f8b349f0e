"""What ``solo-d2 eval --report`` writes: one page on one evaluation, or on two side by side."""

from .write import ReportPlan, plan_report

__all__ = ["ReportPlan", "plan_report"]
