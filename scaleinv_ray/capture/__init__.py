"""A live model -> records (torch, transformers, accelerate). `run.Session` composes the rest."""
