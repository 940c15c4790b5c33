"""Models whose circuits are known, in stock GPT-2 format: truths, and examples."""

from scaleinv_ray.circuitry.compiled.programs import PROGRAMS, Compiled, compile_program

__all__ = ["PROGRAMS", "Compiled", "compile_program"]
