"""Training steps timed against each other: arms take turns in random order on shared weights, in one run.

Used by the scripts beside it. Time is a ratio to the baseline of the same round, so that a slow minute of the
machine hits all arms alike; memory is the peak of a process of its own for each arm.
"""

import argparse
import copy
import ctypes
import gc
import multiprocessing
import os
import platform
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "small": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
              "vocab_size": 250},
    "smollm2": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                "num_key_value_heads": 3, "vocab_size": 49152},
}  # fmt: skip
SIZES = {"small": (32, 64, 15), "smollm2": (2, 128, 3)}  # rows, tokens in a row, rounds
WARMUP = 1
_M_MMAP_THRESHOLD = -3  # of glibc's mallopt

# the benches fork after reading their data
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Loss = Callable[[], Tensor]


@dataclass(frozen=True)
class Arm:
    """One way to make a step.

    Args:
        name: in the table.
        build: given a model of its own (weights shared with all arms) returns the loss of one step, and the weights
            beside the model that it trains.
        theory: FLOPs relative to the baseline's, counted by hand.
    """

    name: str
    build: Callable[[nn.Module], tuple[Loss, list[nn.Parameter]]]
    theory: float | None = None


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that every bench has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="Llama 192x4, or that of SmolLM2-135M")
    parser.add_argument("--batch", type=int, help="rows (default: 32 small, 2 smollm2)")
    parser.add_argument("--length", type=int, help="tokens in a row (default: 64 small, 128 smollm2)")
    parser.add_argument("--rounds", type=int, help="timed steps of each arm (default: 15 small, 3 smollm2)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory, which runs each arm once more")
    return parser


def start(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the options, fill in the sizes of the shape, and say what is measured on."""
    args = parser.parse_args()
    for name, size in zip(("batch", "length", "rounds"), SIZES[args.shape], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, size)
        elif getattr(args, name) < (32 if name == "length" else 1):
            parser.error(f"--{name}: {getattr(args, name)} is too small; at least {32 if name == 'length' else 1}")
    print(machine(args.threads))
    print(f"{args.shape}, {args.batch} x {args.length} tokens, {args.rounds} rounds after {WARMUP} of warm-up")
    return args


def machine(threads: int) -> str:
    """What is measured on, and when."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    when, load = time.strftime("%Y-%m-%d %H:%M"), os.getloadavg()[0]
    return f"{when}  {cpu}, {os.cpu_count()} cores, load {load:.1f}, {threads} threads, torch {torch.__version__}"


def plain_model(shape: str, **changes: Any) -> nn.Module:
    """A Llama from scratch in training mode; always the same weights."""
    config = LlamaConfig(**{**SHAPES[shape], "tie_word_embeddings": True, "max_position_embeddings": 8192, **changes})
    torch.manual_seed(0)
    return LlamaForCausalLM(config).train()


def plain_config(shape: str, **changes: Any) -> Any:
    """Its configuration, without building it."""
    with torch.device("meta"):
        return plain_model(shape, **changes).config


def twin(model: nn.Module) -> Any:
    """A second module on the very same weights: many arms of a large model fit, and none is luckier with its memory."""
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def forward_flops(config: Any, rows: int, length: int, depth: float = 1.0, head: bool = True) -> float:
    """FLOPs of a forward up to a share `depth` of its blocks; attention is counted over whole rows."""
    dim, wide = config.hidden_size, config.intermediate_size
    narrow = dim * config.num_key_value_heads // config.num_attention_heads
    block = 2 * (2 * dim * dim + 2 * dim * narrow + 3 * dim * wide) + 4 * length * dim
    return rows * length * (depth * config.num_hidden_layers * block + head * 2 * dim * config.vocab_size)


def compare(title: str, arms: list[Arm], base: Callable[[], nn.Module], args: argparse.Namespace) -> dict[str, Any]:
    """Measure the arms, print their table, and return the times in seconds; the first arm is the baseline."""
    peaks = {} if args.no_memory else {arm.name: apart(lambda arm=arm: _peak(arm, base), args) for arm in arms}
    times, cpu = apart(lambda: _times(arms, base, args), args)
    _print(title, arms, times, cpu, peaks)
    return {"wall": times, "cpu": cpu, "peak": peaks}


def ratios(times: dict[str, list[float]], name: str, to: str) -> list[float]:
    """One ratio for each round."""
    return [one / other for one, other in zip(times[name], times[to], strict=True)]


def apart(function: Callable[[], Any], args: argparse.Namespace) -> Any:
    """Result of a function that runs in a process of its own.

    Whatever is large is built there: a process inherits the memory, and with it the peak, of the one it is forked from.
    """
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def run() -> None:
        torch.set_num_threads(args.threads)
        send.send(function())

    process = context.Process(target=run)
    process.start()
    send.close()
    try:
        return receive.recv()
    except EOFError:
        sys.exit("a process of this bench has died, see above")
    finally:
        process.join()


def same_loss(arms: list[Arm], base: Callable[[], nn.Module], args: argparse.Namespace) -> None:
    """Check that all arms have one loss on the same weights, to 1e-5 of its value."""

    def losses() -> dict[str, float]:
        model = base()
        return {arm.name: float(arm.build(twin(model))[0]().detach()) for arm in arms}

    values = apart(losses, args)
    low, high = min(values.values()), max(values.values())
    assert high - low < 1e-5 * max(1.0, abs(high)), values
    print("\nsame loss: " + ", ".join(f"{name} {value:.6f}" for name, value in values.items()))


def _times(arms: list[Arm], base: Callable[[], nn.Module], args: argparse.Namespace) -> tuple[dict, dict]:
    """Wall and CPU seconds of every step of every arm."""
    model = base()
    shared = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], 1e-4)
    steps = {arm.name: _stepper(arm, model, shared) for arm in arms}
    times: dict[str, list[float]] = {arm.name: [] for arm in arms}
    cpu: dict[str, list[float]] = {arm.name: [] for arm in arms}
    order, rng = list(steps), random.Random(0)
    gc.collect()
    gc.disable()  # a collection would be charged to whichever arm happens to run
    for turn in range(WARMUP + args.rounds):
        rng.shuffle(order)
        for name in order:
            wall, process = time.perf_counter(), time.process_time()
            steps[name]()
            if turn >= WARMUP:
                times[name].append(time.perf_counter() - wall)
                cpu[name].append(time.process_time() - process)
        gc.collect()
    gc.enable()
    return times, cpu


def _stepper(arm: Arm, model: nn.Module, shared: torch.optim.Optimizer) -> Callable[[], None]:
    loss, heads = arm.build(twin(model))
    own = torch.optim.AdamW(heads, 1e-4) if heads else None

    def step() -> None:
        value = loss()
        if not value.requires_grad:
            return
        value.backward()
        for optimizer in (shared, own):
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()

    return step


def _peak(arm: Arm, base: Callable[[], nn.Module]) -> float:
    """Peak resident memory in MB of a process that makes two steps of this arm alone (ru_maxrss).

    Every large tensor is mapped by itself, so that the peak is what is alive and not the holes of glibc's heap, which
    come and go with the order of a few small allocations (measured: 1.061 of the baseline for 1.015).
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, 2**16)
    model = base()
    step = _stepper(arm, model, torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], 1e-4))
    for _ in range(2):
        step()
    scale = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _print(title: str, arms: list[Arm], times: dict, cpu: dict, peaks: dict[str, float]) -> None:
    first, wide = arms[0].name, max(len(arm.name) for arm in arms)
    print(f"\n{title}\n{'':{wide}}  step ms   time / baseline       CPU   FLOPs  peak MB")
    for arm in arms:
        wall, process = ratios(times, arm.name, first), median(ratios(cpu, arm.name, first))
        spread = f"{median(wall):.3f} ({min(wall):.3f}-{max(wall):.3f})"
        theory = "     -" if arm.theory is None else f"{arm.theory:6.3f}"
        peak = f"{peaks[arm.name]:6.0f} ({peaks[arm.name] - peaks[first]:+.0f})" if peaks else "     -"
        print(f"{arm.name:{wide}}  {median(times[arm.name]) * 1e3:7.1f}   {spread}  {process:6.3f}  {theory}  {peak}")
