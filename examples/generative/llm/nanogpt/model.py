"""The model: a decoder-only transformer that predicts the next character."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Everything that decides which weights there are."""

    vocabulary: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int


class GPT(nn.Module):
    """Token and position embeddings, blocks, and a head that shares the token embedding."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary, shape.n_embd)
        self.positions = nn.Embedding(shape.block_size, shape.n_embd)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.n_layer))
        self.norm = nn.LayerNorm(shape.n_embd, bias=False)
        self.head = nn.Linear(shape.n_embd, shape.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self.apply(initialise)
        for name, weight in self.named_parameters():
            if name.endswith("out.weight"):  # two additions a block: keep the sum's variance at 1
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * shape.n_layer))

    def forward(self, numbers: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the logits (batch, time, vocabulary) and the mean loss in nats a character.

        Without `targets` the loss is 0 and only the last place in time has logits.
        """
        places = torch.arange(numbers.shape[1], device=numbers.device)
        x = self.dropout(self.tokens(numbers) + self.positions(places))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if targets is None:
            logits = self.head(x[:, [-1]])
            return logits, logits.new_zeros(())
        logits = self.head(x)
        return logits, functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    @torch.inference_mode()
    def generate(self, numbers: Tensor, count: int, temperature: float, top_k: int) -> Tensor:
        """Return `numbers` (1, time) with `count` more; `top_k` 0 lets every character compete."""
        for _ in range(count):
            logits, _ = self(numbers[:, -self.shape.block_size :])
            logits = logits[:, -1] / temperature
            if 0 < top_k < logits.shape[-1]:
                worst = logits.topk(top_k).values[:, [-1]]
                logits = logits.masked_fill(logits < worst, -math.inf)
            chosen = torch.multinomial(logits.softmax(dim=-1), 1)
            numbers = torch.cat((numbers, chosen), dim=1)
        return numbers


class Block(nn.Module):
    """Attention, then a multilayer perceptron, each normalised first and added to its input."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.n_embd, bias=False)
        self.attention = CausalSelfAttention(shape, dropout)
        self.norm2 = nn.LayerNorm(shape.n_embd, bias=False)
        self.mlp = MLP(shape, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class CausalSelfAttention(nn.Module):
    """Each place looks at itself and at what came before."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.n_head = shape.n_head
        self.dropout = dropout
        self.qkv = nn.Linear(shape.n_embd, 3 * shape.n_embd, bias=False)
        self.out = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(-1, (3, self.n_head, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (batch, head, time, size of a head)
        dropout = self.dropout if self.training else 0.0
        y = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y = self.out(y.transpose(1, 2).flatten(2))
        return functional.dropout(y, self.dropout, self.training)


class MLP(nn.Module):
    """Four times wider, GELU, and back."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.wide = nn.Linear(shape.n_embd, 4 * shape.n_embd, bias=False)
        self.out = nn.Linear(4 * shape.n_embd, shape.n_embd, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.out(functional.gelu(self.wide(x))))


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
