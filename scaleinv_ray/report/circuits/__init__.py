"""The page of circuits, from their JSON."""

from scaleinv_ray.report.circuits.page import circuits_page

__all__ = ["circuits_page"]
