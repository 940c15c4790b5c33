"""The report: one HTML file that needs nothing else."""

from scaleinv_ray.report.page import render

__all__ = ["render"]
