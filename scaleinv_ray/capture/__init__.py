"""A live model -> records (torch, transformers, accelerate): `session` composes the rest.

`by_kind/` has a file for what makes the records of each kind.
"""
