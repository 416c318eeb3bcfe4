"""Fitting the network on one thread, the same every time."""

import copy
import math
import time

import numpy as np
import torch
from torch.nn import functional

from flights_data import HOUR_MS
from network import DELAY_SCALE_MIN
from tokens import FIRST, PADDING, UNKNOWN, size_of, window_ids


class Recipe:
    """Chosen on September and October."""

    batch = 64
    rate = 1e-3
    weight_decay = 0.05
    dropout = 0.15
    sequences = 110_000  # drawn in all, without replacement within a pass
    whole_hours = 0.4  # share of them, at the end, drawn from whole hours only: the ones that count
    warm_up = 0.05  # share of the steps
    average = 0.998  # exponential average of the weights, which is what is kept
    # Augmentation, so that the unknown id and short histories mean something to the network.
    unknown = {"carrier": 0.3, "dest": 0.5, "distance": 0.2, "origin": 0.1}  # share told as unknown
    jitter = 0.2  # share of delays moved to a neighbouring bucket
    short = 0.05  # share of sequences cut to a random length
    check_every = 20_000  # sequences between looks at the validation months


def batch_tokens(histories, fields, window, key, t):
    return np.stack([window_ids(fields, histories[k].ids, histories[k].at, at, window) for k, at in zip(key, t)])


def augment(tokens, fields, recipe, rng):
    """In place: some values become unknown, some histories short."""
    for column, field in enumerate(fields):
        share = recipe.unknown.get(field["name"], 0.0)
        if share:
            hidden = (rng.random((len(tokens), 1)) < share / 2) | (rng.random(tokens.shape[:2]) < share / 2)
            tokens[:, :, column][hidden & (tokens[:, :, column] != PADDING)] = UNKNOWN
        if field["name"] == "delay":
            ids = tokens[:, :, column]
            moved = np.clip(ids + rng.choice([-1, 1], ids.shape), FIRST, size_of(field) - 1)
            tokens[:, :, column] = np.where((ids >= FIRST) & (rng.random(ids.shape) < recipe.jitter), moved, ids)
    for row in np.nonzero(rng.random(len(tokens)) < recipe.short)[0]:
        tokens[row, : rng.integers(1, tokens.shape[1])] = PADDING
    return tokens


def predict(network, histories, fields, window, asked, batch=256):
    """-> (delay minutes, disrupted probability), numpy f32."""
    network.eval()
    parts = []
    with torch.no_grad():
        for i in range(0, len(asked.t), batch):
            tokens = batch_tokens(histories, fields, window, asked.key[i:i + batch], asked.t[i:i + batch])
            parts.append([part.numpy() for part in network(torch.from_numpy(tokens))])
    return [np.concatenate(column) for column in zip(*parts)]


def fit(network, histories, fields, window, asked, recipe, seed, look):
    """Trains in place; `look(network) -> (criterion, words)` on the validation months, lower is better.

    Keeps the averaged weights of the best look. -> log of the looks
    """
    rng = np.random.default_rng(seed)
    steps = recipe.sequences // recipe.batch
    decay, plain = [], []
    for name, parameter in network.named_parameters():
        (decay if parameter.ndim == 2 and "embeddings" not in name and name != "position" else plain).append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.rate, betas=(0.9, 0.99))
    warm = max(1, int(steps * recipe.warm_up))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * max(0, s - warm) / (steps - warm)))))
    averaged = copy.deepcopy(network)
    best, log, began = None, [], time.process_time()
    whole_hours = np.nonzero(asked.t % HOUR_MS == 0)[0]
    order = np.empty(0, dtype=int)
    for step in range(steps):
        if len(order) < recipe.batch:
            late = step >= (1 - recipe.whole_hours) * steps
            order = rng.permutation(whole_hours if late else len(asked.t))
        rows, order = order[:recipe.batch], order[recipe.batch:]
        tokens = batch_tokens(histories, fields, window, asked.key[rows], asked.t[rows])
        tokens = torch.from_numpy(augment(tokens, fields, recipe, rng))
        network.train()
        delay, disrupted = network.logits(tokens)
        target = torch.from_numpy(asked.delay[rows]) / DELAY_SCALE_MIN
        known = ~torch.isnan(target)
        loss = functional.smooth_l1_loss(delay[known], target[known], beta=1.0)
        loss = loss + 0.5 * functional.binary_cross_entropy_with_logits(disrupted, torch.from_numpy(asked.disrupted[rows]))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        follow = min(recipe.average, (step + 1) / (step + 10))
        with torch.no_grad():
            for kept, now in zip(averaged.parameters(), network.parameters()):
                kept.lerp_(now, 1 - follow)
        if (step + 1) % (recipe.check_every // recipe.batch) == 0 or step + 1 == steps:
            criterion, words = look(averaged)
            log.append({"sequences": (step + 1) * recipe.batch, "criterion": round(criterion, 4)})
            print(f"{(step + 1) * recipe.batch:>7} sequences, {time.process_time() - began:.0f} CPU s, "
                  f"loss {loss.item():.3f}, validation {words}", flush=True)
            if best is None or criterion < best[0]:
                best = (criterion, copy.deepcopy(averaged.state_dict()))
    network.load_state_dict(best[1])
    return log
