"""Chains around a minimum: the tempered posterior, its samplers, and how chains are drawn."""
