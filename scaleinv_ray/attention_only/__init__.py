"""Attention-only transformers: an architecture of ours, known to AutoConfig and AutoModel.

The smallest language models with induction circuits (Elhage et al. 2021, A Mathematical Framework
for Transformer Circuits). Importing `configuration` makes the config of such a folder readable,
importing `modeling` the model.
"""
