"""The mini-transformer: the last T events of a key in, two answers out.

    tokens [batch, T, fields] i64 ── sum of field embeddings + position ── 3 × (4-head attention, MLP)
         │                                                                        │ mean and newest token
         └── counts of the recent past (mean delay, cancelled share …), clock ───┴── MLP ── delay, disrupted

The counts are made inside the graph from the same tokens (a bucket stands for its mean delay in the
training months), because attention is a poor calculator and a good judge. So is the time of day at
`t`: every event tells it to within an hour (its hour plus the minutes since), all together tell it
closely. Position is learnt: the
window never slides under a cache, the newest event is always the last place.
"""

import math

import torch
from torch import nn

from tokens import FIRST, PADDING, UNKNOWN, size_of

WIDTH, HEADS, LAYERS, INNER = 128, 4, 3, 512
RECENT_MIN = [30, 60, 120, 240]
LATE_MIN = 15
HARMONICS = 3  # of the time of day
DELAY_SCALE_MIN = 20.0


class Block(nn.Module):
    """Attention and MLP, each normalised before and added after."""

    def __init__(self, dropout):
        super().__init__()
        self.norm_attention, self.norm_inner = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inner = nn.Sequential(nn.Linear(WIDTH, INNER), nn.ReLU(), nn.Linear(INNER, WIDTH))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, bias):
        batch, window, _ = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, window, 3, HEADS, WIDTH // HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5 + bias).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, window, WIDTH)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.inner(self.norm_inner(x)))


class Disruption(nn.Module):
    def __init__(self, fields, window, delay_of_bucket, dropout):
        """delay_of_bucket: [ids of the field `delay`] mean minutes, 0 for padding and cancelled."""
        super().__init__()
        names = [f["name"] for f in fields]
        self.delay_at, self.elapsed_at = names.index("delay"), names.index("elapsed")
        self.hour_at = names.index("hour")
        self.embeddings = nn.ModuleList(nn.Embedding(size_of(f), WIDTH, padding_idx=PADDING) for f in fields)
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.05)
        self.position = nn.Parameter(torch.randn(window, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.counts = nn.Sequential(nn.Linear(4 * len(RECENT_MIN) + 2 * HARMONICS, 64), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(2 * WIDTH + 64, WIDTH), nn.ReLU(), nn.Dropout(dropout), nn.Linear(WIDTH, 2))
        edges = fields[self.elapsed_at]["edges"]
        # Elapsed ids below this one are events of the last RECENT_MIN minutes.
        self.recent_below = [edges.index(m) + 3 for m in RECENT_MIN]
        self.late_from = fields[self.delay_at]["edges"].index(LATE_MIN) + 3
        bounds = [0, *edges, edges[-1]]
        middle = [0.0] * FIRST + [(low + high) / 2 / 60 for low, high in zip(bounds, bounds[1:])]
        self.register_buffer("hours_of_elapsed", torch.tensor(middle, dtype=torch.float32))
        self.register_buffer("delay_of_bucket", torch.tensor(delay_of_bucket, dtype=torch.float32))

    def recent(self, tokens):
        """Counts over the last 30 to 240 minutes. [batch, 4 * spans]; the third four is the last 2 h."""
        delay, elapsed = tokens[:, :, self.delay_at], tokens[:, :, self.elapsed_at]
        minutes = self.delay_of_bucket[delay]
        real, cancelled = (delay != PADDING).float(), (delay == UNKNOWN).float()
        late = (delay >= self.late_from).float()
        out = []
        for below in self.recent_below:
            inside = real * (elapsed < below).float()
            departed = (inside * (1 - cancelled)).sum(1)
            out += [
                departed / 20,
                (inside * minutes).sum(1) / (departed + 1) / DELAY_SCALE_MIN,
                (inside * late).sum(1) / (departed + 1),
                (inside * cancelled).sum(1) / (inside.sum(1) + 1) * 4,
            ]
        return torch.stack(out, 1)

    def clock(self, tokens, real):
        """The time of day at `t` as sines and cosines, [batch, 2 * HARMONICS]; 0 where nothing is known."""
        elapsed, hour = tokens[:, :, self.elapsed_at], tokens[:, :, self.hour_at]
        known = real * (elapsed > UNKNOWN).float() * (hour > UNKNOWN).float()
        angle = ((hour - FIRST).float() + 0.5 + self.hours_of_elapsed[elapsed]) * (2 * math.pi / 24)
        total = known.sum(1).clamp(min=1)
        out = []
        for n in range(1, HARMONICS + 1):
            out += [(torch.sin(n * angle) * known).sum(1) / total, (torch.cos(n * angle) * known).sum(1) / total]
        return torch.stack(out, 1)

    def logits(self, tokens):
        """-> (delay in units of DELAY_SCALE_MIN, logit of disrupted), each [batch]."""
        real = (tokens[:, :, self.delay_at] != PADDING).float()
        # A large finite number: a sequence of nothing but padding must not become NaN.
        bias = ((real - 1) * 1e4)[:, None, None, :]
        x = self.position.unsqueeze(0)
        for field, embedding in enumerate(self.embeddings):
            x = x + embedding(tokens[:, :, field])
        for block in self.blocks:
            x = block(x, bias)
        x = self.norm(x)
        mean = (x * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        counts = self.recent(tokens)
        told = self.counts(torch.cat([counts, self.clock(tokens, real)], 1))
        answer = self.head(torch.cat([mean, x[:, -1], told], 1))
        return answer[:, 0] + counts[:, 9], answer[:, 1]

    def forward(self, tokens):
        """-> (delay [batch] minutes, disrupted [batch] probability)."""
        delay, disrupted = self.logits(tokens)
        return delay * DELAY_SCALE_MIN, torch.sigmoid(disrupted)
