"""A live model -> records (torch, transformers, accelerate). `run.capture` composes the rest."""
