"""Singularities of loss functions: exact learning coefficients, volumes, and the dictionary."""

from scaleinv_ray.singularities.asymptotics import VolumeLaw, volume_law
from scaleinv_ray.singularities.coefficient import LearningCoefficient, morse_bott
from scaleinv_ray.singularities.dictionary import linear_network, singularities, toys
from scaleinv_ray.singularities.entry import Singularity
from scaleinv_ray.singularities.exact.ade import ade_polynomial, ade_table
from scaleinv_ray.singularities.exact.contact import (
    ContactLoci,
    contact_loci,
    monomial_contact_loci,
)
from scaleinv_ray.singularities.exact.groebner import jet_dimensions
from scaleinv_ray.singularities.exact.linear_networks import (
    LocalMinimum,
    deep_linear,
    linear_minimum,
)
from scaleinv_ray.singularities.exact.newton import newton_polyhedron
from scaleinv_ray.singularities.exact.polynomial import Polynomial, monomial
from scaleinv_ray.singularities.jets import DictionaryRow, dictionary_table
from scaleinv_ray.singularities.manifold import CriticalManifold, critical_manifold
from scaleinv_ray.singularities.matching import Candidate, Match, MatchOutcome, match
from scaleinv_ray.singularities.table import INVARIANT, matches_table
from scaleinv_ray.singularities.volume import StateDensity, subset_simulation

__all__ = [
    "INVARIANT",
    "Candidate",
    "ContactLoci",
    "CriticalManifold",
    "DictionaryRow",
    "LearningCoefficient",
    "LocalMinimum",
    "Match",
    "MatchOutcome",
    "Polynomial",
    "Singularity",
    "StateDensity",
    "VolumeLaw",
    "ade_polynomial",
    "ade_table",
    "contact_loci",
    "critical_manifold",
    "deep_linear",
    "dictionary_table",
    "jet_dimensions",
    "linear_minimum",
    "linear_network",
    "match",
    "matches_table",
    "monomial",
    "monomial_contact_loci",
    "morse_bott",
    "newton_polyhedron",
    "singularities",
    "subset_simulation",
    "toys",
    "volume_law",
]
