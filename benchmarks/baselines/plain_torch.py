"""Program P as one writes it in PyTorch: eager, `scaled_dot_product_attention`, `torch.optim.AdamW`."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.baselines import DROPOUT, EPSILON, HEAD_DROPOUT, HEADS, LAYERS, LEARNING_RATE, PATCH, WEIGHT_DECAY


class Block(nn.Module):
    def __init__(self, width: int = 64, head: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * HEADS * head)
        self.out = nn.Linear(HEADS * head, width)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)  # (B, h, N, d)
        rate = DROPOUT if self.training else 0.0
        heads = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        x = x + self.out(heads.transpose(1, 2).reshape(b, n, -1))
        hidden = functional.dropout(functional.gelu(self.hidden(self.mlp_norm(x))), DROPOUT, self.training)
        return x + functional.dropout(functional.gelu(self.output(hidden)), DROPOUT, self.training)


class ProgramP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(PATCH**2, 64)
        self.positions = nn.Parameter(torch.empty(16, 64))
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(64, eps=1e-6)
        self.head = nn.ModuleList([nn.Linear(1024, 2048), nn.Linear(2048, 1024)])
        self.logits = nn.Linear(1024, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:  # (B, 28, 28, 1)
        b = len(images)
        patches = images.view(b, 4, PATCH, 4, PATCH).transpose(2, 3).reshape(b, 16, PATCH**2)
        x = self.norm(self.blocks(self.projection(patches) + self.positions))
        x = functional.dropout(x.flatten(1), HEAD_DROPOUT, self.training)
        for dense in self.head:
            x = functional.dropout(functional.gelu(dense(x)), HEAD_DROPOUT, self.training)
        return self.logits(x)


class PlainTorch:
    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.model = ProgramP()
        self.model.load_state_dict({name: torch.tensor(array) for name, array in _named(weights).items()})
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=EPSILON
        )

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @torch.no_grad()
    def logits(self, images: np.ndarray) -> np.ndarray:
        return self.model.eval()(torch.from_numpy(images)).numpy()

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        self.model.train()
        loss = functional.cross_entropy(self.model(torch.from_numpy(images)), torch.from_numpy(labels).long())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def _named(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our weights under the names of `ProgramP`; torch keeps a kernel as (out, in)."""
    named = {"positions": weights["patch_encoder/position_embedding"]}
    linear = {"projection": ["patch_encoder/projection"], "logits": ["logits"]}
    linear |= {f"head.{i}": [f"head_dense_{i}"] for i in range(2)}
    norms = {"norm": "encoder_norm"}
    for i in range(LAYERS):
        ours, theirs = f"transformer_block_{i}", f"blocks.{i}"
        linear[f"{theirs}.qkv"] = [f"{ours}/attention/{name}_dense" for name in "qkv"]
        linear[f"{theirs}.out"] = [f"{ours}/attention/out_dense"]
        linear |= {f"{theirs}.{name}": [f"{ours}/mlp_{name}"] for name in ("hidden", "output")}
        norms |= {f"{theirs}.{name}": f"{ours}/{name}" for name in ("attention_norm", "mlp_norm")}
    for name, paths in linear.items():
        named[f"{name}.weight"] = np.concatenate([weights[f"{path}/kernel"].T for path in paths])
        named[f"{name}.bias"] = np.concatenate([weights[f"{path}/bias"] for path in paths])
    for name, path in norms.items():
        named[f"{name}.weight"], named[f"{name}.bias"] = weights[f"{path}/gamma"], weights[f"{path}/beta"]
    return named
