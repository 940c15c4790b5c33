"""What the invariants of layers, weights and activations return, and what is claimed of it."""

from __future__ import annotations

from scaleinv_ray.contract import Quantity

RESOLVENT_COUNTS = {
    "count_inside_unit": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning=(
            "Share of a layer Jacobian's eigenvalues with modulus below 1; near the identity about "
            "1/2"
        ),
    ),
    "count_inside_inner": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="Share of a layer Jacobian's eigenvalues well inside the unit circle",
    ),
    "count_inside_outer": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning=(
            "Share of a layer Jacobian's eigenvalues inside a circle a little wider than the unit "
            "one"
        ),
    ),
    "count_ring": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="Share of a layer Jacobian's eigenvalues in a ring about the unit circle",
    ),
    "count_near_one": Quantity(
        law="constant",
        margin=0.10,
        unit=0.1,
        meaning=(
            "Share of a layer Jacobian's eigenvalues in a disk about 1: directions carried through"
        ),
    ),
    "spectral_radius": Quantity(
        law="constant",
        margin=0.10,
        meaning="Largest modulus of a layer Jacobian's eigenvalues; above 1 a direction grows",
    ),
    "henrici": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning=(
            "Departure of a layer's Jacobian from normality; 0 where eigenvectors are orthogonal, "
            "at most 1"
        ),
    ),
    "count_inside_unit_null": Quantity(
        law="none",
        unit=0.5,
        control=True,
        meaning=(
            "Share inside the unit circle of the identity plus a random matrix of the same size"
        ),
    ),
    "count_ring_null": Quantity(
        law="none",
        unit=0.5,
        control=True,
        meaning="Share in the ring of the identity plus a random matrix of the same size",
    ),
    "count_near_one_null": Quantity(
        law="none",
        unit=0.1,
        control=True,
        meaning="Share near 1 of the identity plus a random matrix of the same size",
    ),
}
RESIDUE_OVERLAP = {
    "overlap_complex": Quantity(
        law="constant",
        margin=0.10,
        meaning=(
            "Non-normality at complex eigenvalues: median norm of the residues over the width; "
            "normal 1/D"
        ),
    ),
    "overlap_real": Quantity(
        law="constant",
        margin=0.10,
        meaning=(
            "Non-normality at real eigenvalues: median norm of the residues over the width; normal "
            "1/D"
        ),
    ),
    "overlap_complex_null": Quantity(
        law="none",
        control=True,
        meaning="Non-normality at complex eigenvalues of the identity plus a random matrix",
    ),
    "overlap_real_null": Quantity(
        law="none",
        control=True,
        meaning="Non-normality at real eigenvalues of the identity plus a random matrix",
    ),
}
LOGIT_RESIDUES = {
    "participation": Quantity(
        law="constant",
        margin=0.10,
        meaning=(
            "Share of a layer's poles that carry the token's embedding to the logits; all alike 1"
        ),
    ),
    "leading_share": Quantity(
        law="power_law",
        margin=0.10,
        meaning="Share of the path from embedding to logits that goes through the leading pole",
    ),
    "leading_residue": Quantity(
        law="power_law",
        margin=0.10,
        meaning=(
            "Leading residue over the whole path from embedding to logits; above 1 residues cancel"
        ),
    ),
    "leading_real": Quantity(
        law="constant",
        margin=0.10,
        unit=1.0,
        meaning="Real part of the pole that carries most from embedding to logits",
    ),
    "leading_imag": Quantity(
        law="constant",
        margin=0.10,
        unit=0.1,
        meaning=(
            "Modulus of the imaginary part of the pole that carries most from embedding to logits"
        ),
    ),
    "leading_abs": Quantity(
        law="constant",
        margin=0.10,
        meaning=(
            "Modulus of the pole that carries most from embedding to logits; 1 is carried through"
        ),
    ),
    "leading_distance": Quantity(
        law="constant",
        margin=0.10,
        meaning="Distance from 1 of the pole that carries most from embedding to logits",
    ),
    "leading_distance_scaled": Quantity(
        law="constant",
        margin=0.10,
        meaning="Distance from 1 of the leading pole over the root mean square of all of them",
    ),
    "participation_null": Quantity(
        law="none",
        control=True,
        meaning="Share of poles that carry the embedding to the logits in a random layer",
    ),
    "leading_share_null": Quantity(
        law="none", control=True, meaning="Share of the leading pole in a random layer"
    ),
}
DEPTH_MODES = {
    "error_ratio": Quantity(
        law="constant",
        margin=0.10,
        meaning=(
            "Error of one linear map for all layers over that of the identity; below 1 the map "
            "predicts"
        ),
    ),
    "prediction_error": Quantity(
        law="constant",
        margin=0.10,
        meaning=(
            "Error with which one linear map takes a layer's activations to the next's, relative"
        ),
    ),
    "identity_error": Quantity(
        law="none",
        control=True,
        meaning="Error with which a layer's activations stand for the next's, relative",
    ),
    "spectral_radius": Quantity(
        law="constant",
        margin=0.10,
        meaning="Largest modulus of the modes of the linear map over depth; above 1 a mode grows",
    ),
    "inside_unit": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="Share of the modes of the linear map over depth that shrink",
    ),
    "near_one": Quantity(
        law="constant",
        margin=0.10,
        unit=0.5,
        meaning="Share of the modes of the linear map over depth near 1: carried through",
    ),
}
SPECTRAL_POLES = {
    "isolated_poles": Quantity(
        law="integer",
        margin=0.10,
        unit=1.0,
        meaning=(
            "Number of eigenvalues set apart from the bulk of the spectrum, found as poles off it"
        ),
    ),
    "leading_over_edge": Quantity(
        law="constant",
        margin=0.10,
        meaning="Largest isolated eigenvalue over the upper edge of the bulk; above 1",
    ),
    "leading_weight": Quantity(
        law="constant",
        margin=0.10,
        control=True,
        meaning="Weight of the largest isolated pole, exactly 1; a check of the fit",
    ),
    "edge_upper": Quantity(
        law="constant",
        margin=0.10,
        meaning="Upper edge of the bulk of the spectrum, over the median eigenvalue",
    ),
    "edge_lower": Quantity(
        law="constant",
        margin=0.10,
        meaning="Lower edge of the bulk of the spectrum, over the median eigenvalue",
    ),
    "residue_sum": Quantity(
        law="constant",
        margin=0.10,
        control=True,
        meaning="Sum of all residues, exactly -1; a check of the fit",
    ),
}
