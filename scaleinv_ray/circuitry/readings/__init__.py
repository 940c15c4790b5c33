"""What of a model a person can read: linear probes, rules, modules of edges, what heads look at.

Each is made of a `Subject` and has `as_json()` and `lines()`; `analyses.ANALYSES` names them. The
numbers that do not hang on names of heads are in `invariants/circuits`.
"""
