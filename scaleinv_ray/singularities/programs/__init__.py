"""Programs as singularities: a machine whose rules may fail is a corner of a space of noisy codes.

Every rule of a machine has a distribution over its outcomes. A program is the corner where each is
certain; u_e >= 0 is the probability of the wrong outcome e. A *syndrome* is a multiset of wrong
outcomes that changes the output on some input. All paths have weights >= 0, so that near the
corner K = mean of -ln p(output | input) is, up to constants, the sum of the minimal syndromes:
the germ is a monomial ideal on the orthant, and its coefficient is exact (after Clift, Murfet and
Wallbridge 2021, arXiv 2103.16080).
"""

from scaleinv_ray.singularities.programs.automaton import Automaton, automata, words
from scaleinv_ray.singularities.programs.circuit import Circuit, Gate
from scaleinv_ray.singularities.programs.corner import Germ, germ
from scaleinv_ray.singularities.programs.functions import FUNCTIONS, name_of
from scaleinv_ray.singularities.programs.machine import Program
from scaleinv_ray.singularities.programs.turing import TuringMachine

__all__ = [
    "FUNCTIONS",
    "Automaton",
    "Circuit",
    "Gate",
    "Germ",
    "Program",
    "TuringMachine",
    "automata",
    "germ",
    "name_of",
    "words",
]
