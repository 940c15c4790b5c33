"""Drawings in SVG that need no script: machines, circuits, and curves over a logarithmic axis."""

from scaleinv_ray.report.drawing.curves import Curve, curves
from scaleinv_ray.report.drawing.states import MARKER, automaton, turing
from scaleinv_ray.report.drawing.wires import Box, circuit

__all__ = ["MARKER", "Box", "Curve", "automaton", "circuit", "curves", "turing"]
