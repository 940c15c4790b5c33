"""The report: one HTML file that needs nothing else."""

from scaleinv_ray.report.page import render, write_report

__all__ = ["render", "write_report"]
