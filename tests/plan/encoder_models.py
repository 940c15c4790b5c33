"""Encoders of one alphabet of 33 symbols and a mask, trained on documents that begin with a tag."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as tf
from tokenizers import processors

from scaleinv_ray.capture.by_kind.masked_losses import masked_positions
from tests.plan.document_models import LENGTH, VOCABULARY, alphabet, documents

CLS, SEP, MASK = VOCABULARY["[BOS]"], VOCABULARY["[PAD]"], len(VOCABULARY)


def saved_encoder(folder: Path, *, width: int = 16, steps: int = 0) -> Path:
    """A BERT of three blocks, trained for so many steps on hidden tokens of whole documents."""
    tokenizer = alphabet(template=False)
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [PAD]", special_tokens=[("[BOS]", CLS), ("[PAD]", SEP)]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tf.BertForMaskedLM(
            tf.BertConfig(
                vocab_size=MASK + 1, hidden_size=width, intermediate_size=2 * width,
                num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=LENGTH + 2,
                hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            )
        )  # fmt: skip
        if steps:
            ids = [e.ids for e in tokenizer.encode_batch(documents(2000, seed=5))]
            _train(model, torch.tensor(ids), steps)
    model.eval().save_pretrained(folder)
    tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def _train(model: tf.BertForMaskedLM, ids_NT: torch.Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        batch = ids_NT[torch.randint(len(ids_NT), (64,))]
        at_BM = 1 + torch.from_numpy(masked_positions(64, LENGTH, seed=step))
        labels = torch.full_like(batch, -100).scatter(1, at_BM, batch.gather(1, at_BM))
        model(input_ids=batch.scatter(1, at_BM, MASK), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
