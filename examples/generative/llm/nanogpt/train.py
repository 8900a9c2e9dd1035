"""Train a small GPT to write text, character by character.

Chance depends on the seed and the number of the iteration alone. So a resumed run goes on exactly
as if it had never stopped, and N processes that share a batch learn what one would learn from it.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from argparse import Namespace
from dataclasses import dataclass, field

import checkpoint
import text
import torch
from checkpoint import Checkpoint
from model import GPT, Shape
from options import parse_options
from text import Text
from torch import Tensor, nn
from world import World, join


@dataclass(slots=True, kw_only=True)
class Training:
    """A training under way: `iteration` steps are done."""

    options: Namespace
    world: World
    text: Text
    model: GPT
    optimizer: torch.optim.Optimizer
    iteration: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def main() -> None:
    options = parse_options()
    signals = listen()
    with join(options.device) as world:
        if options.batch_size % world.size:
            sys.exit(f"--batch_size {options.batch_size} cannot be shared by {world.size}.")
        training = begin(options, world)
        run(training, signals)
    if training.iteration < options.max_iters:
        sys.exit(128 + (signals or [signal.SIGTERM])[0])


def listen() -> list[int]:
    """Return a list that the first SIGTERM or Ctrl-C is put into; the second one kills as ever."""
    signals: list[int] = []

    def note(number: int, _: object) -> None:
        signals.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return signals


def begin(options: Namespace, world: World) -> Training:
    """Set up a training, new or from a checkpoint."""
    data = text.load(options.data)
    if min(len(data.train), len(data.validation)) <= options.block_size:
        sys.exit(f"{options.data} is too short for --block_size {options.block_size}.")
    torch.manual_seed(options.seed)
    shape = Shape(
        vocabulary=len(data.characters),
        block_size=options.block_size,
        n_layer=options.n_layer,
        n_head=options.n_head,
        n_embd=options.n_embd,
    )
    model = GPT(shape, options.dropout).to(world.device)
    training = Training(
        options=options,
        world=world,
        text=data,
        model=model,
        optimizer=new_optimizer(model, options),
    )
    count = sum(weight.numel() for weight in model.parameters())
    tell(training, f"{count:,} parameters on {world.device}, {world.size} process(es)")
    tell(training, f"{len(data.train):,} characters to learn from, {len(data.characters)} kinds")
    if options.resume:
        resume(training)
    return training


def new_optimizer(model: GPT, options: Namespace) -> torch.optim.Optimizer:
    """Return AdamW that lets matrices decay, and leaves the rest alone."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [w for w in weights if w.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.95))


def resume(training: Training) -> None:
    path = training.options.resume
    if not path.exists():
        tell(training, f"No checkpoint at {path} yet: starting at the beginning")
        return
    saved = checkpoint.load(path)
    if (saved.shape, saved.characters) != (training.model.shape, training.text.characters):
        sys.exit(f"{path} holds another model, {saved.shape}, or one of another text.")
    training.model.load_state_dict(saved.model)
    training.optimizer.load_state_dict(saved.optimizer)
    training.iteration, training.history = saved.iteration, saved.history
    tell(training, f"Going on from {path} at iteration {saved.iteration}")


def run(training: Training, signals: list[int]) -> None:
    """Train until the last iteration or a signal; either way the last state is on disk."""
    options, world = training.options, training.world
    learner = world.wrap(training.model)
    if training.iteration == 0:
        evaluate(training)
    clock = Clock(training.iteration)
    stop = False
    while training.iteration < options.max_iters and not stop:
        loss = step(training, learner)
        stop = world.any(signals)
        if is_due(training, options.log_interval):
            pace = clock.pace(training.iteration) * options.batch_size * options.block_size
            tell(training, f"{at(training)}  loss {world.mean(loss):.4f}  {pace:,.0f} characters/s")
        if is_due(training, options.eval_interval):
            evaluate(training)
            save(training)
        elif stop:
            save(training)
    if training.iteration < options.max_iters:
        tell(training, f"{at(training)}  stopped by a signal; --resume goes on from here")
    tell(training, f"Results are in {options.output_dir}")


class Clock:
    """Tells how many iterations a second there were since it was last asked."""

    def __init__(self, iteration: int) -> None:
        self.iteration, self.time = iteration, time.monotonic()

    def pace(self, iteration: int) -> float:
        now = time.monotonic()
        pace = (iteration - self.iteration) / (now - self.time)
        self.iteration, self.time = iteration, now
        return pace


def is_due(training: Training, interval: int) -> bool:
    """Whether something that happens every `interval` iterations, and at the end, happens now."""
    done = training.iteration
    return done % interval == 0 or done == training.options.max_iters


def step(training: Training, learner: nn.Module) -> Tensor:
    """Learn from one batch; return the loss that our part of it had before."""
    options, world, optimizer = training.options, training.world, training.optimizer
    seed = (options.seed << 32) + training.iteration
    torch.manual_seed(seed)  # for dropout
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(training.iteration, options)
    inputs, targets = world.share(
        *text.batch(training.text.train, options.batch_size, options.block_size, seed)
    )
    learner.train()
    with autocast(training):
        _, loss = learner(inputs, targets)
    loss.backward()
    nn.utils.clip_grad_norm_(learner.parameters(), options.grad_clip)
    optimizer.step()
    optimizer.zero_grad()
    training.iteration += 1
    return loss.detach()


def learning_rate(iteration: int, options: Namespace) -> float:
    """Rise in a line, then fall along a cosine to a tenth."""
    if iteration < options.warmup_iters:
        return options.lr * (iteration + 1) / options.warmup_iters
    way = (iteration - options.warmup_iters) / max(1, options.max_iters - options.warmup_iters)
    return options.lr * (0.1 + 0.9 * (1 + math.cos(math.pi * min(way, 1))) / 2)


def evaluate(training: Training) -> None:
    """Measure the loss on the same few batches each time, and note it."""
    train = estimate(training, training.text.train)
    validation = estimate(training, training.text.validation)
    training.history.append(
        {"iteration": training.iteration, "train_loss": train, "validation_loss": validation}
    )
    tell(training, f"{at(training)}  train loss {train:.4f}  validation loss {validation:.4f}")


@torch.inference_mode()
def estimate(training: Training, source: Tensor) -> float:
    options, world, model = training.options, training.world, training.model
    model.eval()
    total = 0.0
    for i in range(options.eval_iters):
        seed = (options.seed << 32) + (1 << 31) + i
        part = world.share(*text.batch(source, options.batch_size, options.block_size, seed))
        with autocast(training):
            total += world.mean(model(*part)[1])
    return total / options.eval_iters


def autocast(training: Training) -> torch.autocast:
    half = training.options.dtype == "bfloat16"
    return torch.autocast(training.world.device.type, torch.bfloat16, enabled=half)


def save(training: Training) -> None:
    if training.world.rank != 0:
        return
    folder = training.options.output_dir
    Checkpoint(
        shape=training.model.shape,
        characters=training.text.characters,
        iteration=training.iteration,
        model=training.model.state_dict(),
        optimizer=training.optimizer.state_dict(),
        history=training.history,
    ).save(folder / "checkpoint.pt")
    metrics = {"iteration": training.iteration, "evaluations": training.history}
    checkpoint.save_json(metrics, folder / "metrics.json")


def at(training: Training) -> str:
    last = training.options.max_iters
    return f"iteration {training.iteration:>{len(str(last))}}/{last}"


def tell(training: Training, line: str) -> None:
    if training.world.rank == 0:
        print(line, flush=True)


if __name__ == "__main__":
    main()
