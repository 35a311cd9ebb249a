"""What a run tells while it goes: a progress bar, metrics as JSON lines, and a Ctrl-C that loses nothing."""

import json
import signal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

console = Console(stderr=True)


class Lines(TrainerCallback):
    """Write every log as one line of JSON; lines beyond the checkpoint that a run goes on from are dropped."""

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what belongs to the steps already done."""
        if not state.is_world_process_zero or not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= state.global_step]
        self.path.write_text("".join(kept), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Append a line on the first process."""
        if state.is_world_process_zero and logs:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class Bar(TrainerCallback):
    """A progress bar with the loss of every term; ten plain lines where there is no terminal."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar."""
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[losses]}"), console=console, transient=True,
            disable=not (console.is_terminal and state.is_world_process_zero),
        )  # fmt: skip
        self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step, losses="")
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Show the terms."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        values = {key.removesuffix("/value"): value for key, value in logs.items() if key.endswith("/value")}
        losses = "  ".join(f"{name} {value:.3f}" for name, value in list(values.items())[:4])
        self.bar.update(self.task, losses=losses)
        tenth = max(1, state.max_steps // 10)
        if self.bar.disable and state.global_step % tenth < args.logging_steps:
            console.print(
                f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.3f}  {losses}", soft_wrap=True
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.bar.stop()


class Interrupt(TrainerCallback):
    """Ctrl-C ends the run after the current step with a checkpoint; a second one ends it at once."""

    def __init__(self):
        self.pressed = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the signal for the time of the training."""
        self.before = signal.signal(signal.SIGINT, self._press)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop where it was pressed."""
        if self.pressed:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the signal back."""
        signal.signal(signal.SIGINT, self.before)

    def _press(self, number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, self.before)
        self.pressed = True
        console.print("stopping after this step; press Ctrl-C again to stop at once")
