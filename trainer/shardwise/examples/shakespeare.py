"""Shakespeare's plays, letter by letter, with a small transformer."""

import torch
from torch import Tensor, nn

from shardwise import AdamW, Task, WarmupCosine
from shardwise.examples.datasets import shakespeare_text


class Windows:
    """Windows of a text: sample i is letters [i * stride, ... + length] and the next ones."""

    def __init__(self, letters: Tensor, length: int, stride: int) -> None:
        self.windows = letters.unfold(0, length + 1, stride)

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        chosen = self.windows[indices].long()
        return chosen[:, :-1], chosen[:, 1:]


class Transformer(nn.Module):
    def __init__(self, letters: int, length: int, width: int, layers: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(letters, width)
        self.place = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                4,
                4 * width,
                dropout=0.1,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, letters, bias=False)
        self.head.weight = self.letter.weight
        nn.init.normal_(self.letter.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.letter(x) + self.place(torch.arange(x.shape[1]))
        for block in self.blocks:
            hidden = block(hidden, src_mask=self.mask, is_causal=True)
        logits: Tensor = self.head(self.norm(hidden))
        return logits


def task(width: int = 64, layers: int = 2, length: int = 64, learning_rate: float = 0.003) -> Task:
    text = shakespeare_text()
    alphabet = sorted(set(text))
    code = {letter: number for number, letter in enumerate(alphabet)}
    letters = torch.tensor([code[letter] for letter in text[:1_000_000]], dtype=torch.uint8)
    cut = len(letters) * 9 // 10
    model = Transformer(len(alphabet), length, width, layers)

    def losses(m: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = m(batch[0]).transpose(1, 2)
        return nn.functional.cross_entropy(logits, batch[1], reduction="none").mean(1)

    def metrics(m: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"accuracy": (m(batch[0]).argmax(2) == batch[1]).float().mean(1)}

    return Task(
        model=model,
        train=Windows(letters[:cut], length, length // 2),
        evaluation=Windows(letters[cut : cut + 50_000], length, length),
        loss=losses,
        metrics=metrics,
        optimizer=AdamW(learning_rate=learning_rate, betas=(0.9, 0.98)),
        schedule=WarmupCosine(warmup_steps=50, final_factor=0.1),
        clip_norm=1.0,
    )
