"""What a run tells while it goes: a progress bar, metrics as JSON lines, and a Ctrl-C that loses nothing."""

import json
import math
import signal
import threading
import time
from pathlib import Path
from typing import Any

from accelerate.utils import parse_flag_from_env
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from transformers import TrainerCallback

from latentlm.distributed.collectives import all_reduce_count, rank, world_size
from latentlm.monitor.verdicts import lasting
from latentlm.objective.objective import Objective
from latentlm.whole_files import write_text, writing

console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


class Lines(TrainerCallback):
    """Write every log as one line of JSON; lines beyond the checkpoint that a run goes on from are dropped."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what belongs to the steps already done; how often to log and save is not the checkpoint's to say."""
        state.logging_steps, state.save_steps = args.logging_steps, args.save_steps
        if not state.is_world_process_zero or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(self.path, "".join(line for line in lines if _step(line) <= state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have the first and the last step logged as well, and what a checkpoint would forget."""
        control.should_log |= control.should_save or state.global_step in (1, state.max_steps)
        # after a last epoch the trainer evaluates itself
        control.should_evaluate |= args.eval_strategy == "steps" and state.global_step == state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Append a line on the first process; the trainer's closing summary repeats a step and is left out."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            with writing(self.path, "free space and resume"), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def _step(line: str) -> float:
    """Of a line of metrics; one that was not written to its end belongs to no step."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _processes(number: int) -> str:
    """How many train together, where that is worth a word."""
    if number > 1:
        return f" on {number} processes"
    # with --cpu `accelerate launch` starts one process from a configuration for GPUs, whatever --num_processes says
    alone = parse_flag_from_env("ACCELERATE_USE_CPU")
    return (
        " on 1 process (`accelerate launch --cpu` starts one; for more, set training.use_cpu=true instead)"
        if alone
        else ""
    )


class Bar(TrainerCallback):
    """A progress bar with the share of every term in the loss; ten plain lines where there is no terminal."""

    def __init__(self, objective: Objective, folder: Path):
        self.objective, self.folder, self.line = objective, folder, ""
        self.latest: dict[str, float | str] = {}
        self.on: set[str] = set()  # terms that have had a weight
        self.bar = Progress(disable=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Say what starts, and start the bar."""
        shown = state.is_world_process_zero
        # ZeRO-3 leaves nothing in a sharded weight but its size
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        size = sum(getattr(weight, "ds_numel", weight.numel()) for weight in weights)
        kinds = " and ".join(sorted({str(weight.dtype).removeprefix("torch.") for weight in weights}))
        since = f" from step {state.global_step}" if state.global_step else ""
        if shown:
            steps = f"{state.max_steps} steps{since}{_processes(world_size())}"
            console.print(f"training {size / 1e6:.3g} M weights ({kinds}) for {steps} in {self.folder}")
        flexible = TextColumn("{task.fields[losses]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), flexible, console=console, transient=True, expand=True,
            disable=not (console.is_terminal and shown),
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step, losses="")
        self.first, self.since, self.told = state.global_step, time.monotonic(), self._tenth(state)
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Show the loss as the sum that it is."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        self.latest |= logs
        self.on |= {key.removesuffix("/weighted") for key in logs if key.endswith("/weighted") and logs[key]}
        losses = f"loss {logs['loss']:.3f} = " + " + ".join(
            f"{name} {value:.3f}" for name, value in self._shares(logs).items()
        )
        self.bar.update(self.task, losses=losses)
        self.line = f"step {state.global_step}/{state.max_steps}  {losses}"
        if self.bar.disable and self._tenth(state) > self.told:
            self.told = self._tenth(state)
            console.print(f"{self.line}  {self._left(state)}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away, leave its last line, and name the terms that did not do well."""
        self.bar.stop()
        if not self.bar.disable and self.line:
            console.print(self.line)
        if state.global_step < state.max_steps:
            return
        for name, failures in self._failures(state.global_step).items():
            console.print(f"monitor: {name} ended as {', '.join(failures)}; see latentlm doctor {self.folder}")

    def _failures(self, step: int) -> dict[str, list[str]]:
        """What `latentlm doctor` will say of the terms, by the same rule."""
        found = {}
        for key, verdict in self.latest.items():
            name = key.removeprefix("monitor/").removesuffix("/verdict")
            if key == f"monitor/{name}/verdict":
                value, baseline = (self.latest.get(k) for k in (f"{name}/value", f"monitor/{name}/baseline_loss"))
                is_on = name in self.on or not value
                known = float(baseline) if baseline is not None else None
                found[name] = lasting(
                    str(verdict), step, self.objective.monitor_every, is_on, float(value or 0.0), known
                )
        return {name: failures for name, failures in found.items() if failures}

    def close(self) -> None:
        """Give the terminal back where the training broke off."""
        self.bar.stop()

    def _tenth(self, state: Any) -> int:
        return 10 * state.global_step // state.max_steps

    def _shares(self, logs: dict) -> dict[str, float]:
        """What the data and each term of the recipe add to the loss; the cells of a table are added up."""
        shares = {"data": self.objective.lm_weight * logs["data/value"]} if "data/value" in logs else {}
        for name in self.objective.terms:
            cells = [v for key, v in logs.items() if key.endswith("/weighted") and key.split("/")[0] == name]
            shares |= {name: sum(cells)} if cells else {}
        return shares

    def _left(self, state: Any) -> str:
        done = max(state.global_step - self.first, 1)
        seconds = (time.monotonic() - self.since) / done * (state.max_steps - state.global_step)
        return f"{math.ceil(seconds)} s left" if seconds < 120 else f"{math.ceil(seconds / 60)} min left"


class Epochs(TrainerCallback):
    """Tells the data which pass this is: with several processes accelerate's loader tells only its sampler.

    After a pass the data say what of them could not be read.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Before the workers of the loader copy the data."""
        tell = getattr(getattr(train_dataloader, "dataset", None), "set_epoch", None)
        if tell is not None:
            tell(int((state.epoch or 0) + 1e-6))

    def on_epoch_end(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        """Also where training ends in the middle of a pass."""
        tell = getattr(getattr(train_dataloader, "dataset", None), "tell_unreadable", None)
        if tell is not None:
            tell()


class Interrupt(TrainerCallback):
    """Ctrl-C, or the signal of a job scheduler, ends the run after a step with a checkpoint; a second one at once.

    Used around the training, ``with Interrupt() as interrupt``, so that the signals are given back whatever happens.
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.pressed = self.stopped = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            self.before = {number: signal.signal(number, self._press) for number in self.signals}
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop where it was pressed; several processes agree on the step when they write a log line."""
        pressed = self.pressed
        if world_size() > 1:
            agree = state.global_step % args.logging_steps == 0
            pressed = agree and all_reduce_count(int(pressed), args.device) > 0
        if pressed and state.global_step < state.max_steps:
            self.stopped = control.should_log = control.should_save = control.should_training_stop = True

    def _press(self, number: int, frame: Any) -> None:
        if not self.pressed:
            self.pressed, self.since = True, time.monotonic()
            if rank() == 0:
                console.print("stopping after this step; press Ctrl-C again to stop at once")
        elif time.monotonic() - self.since > 1:  # sooner it is a launcher that passes on what the terminal sent to all
            self._give_back()
            signal.raise_signal(number)

    def _give_back(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
