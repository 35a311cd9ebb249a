"""Two real processes with a gloo group, started once per test session.

``pool.run(function, *args)`` calls a function of a test module on both ranks: ``[result of 0, result of 1]``.
Functions travel by name and values by pickle, so both must be importable and picklable.

Calls and answers carry a number, and ranks that did not answer are killed: the next call gets fresh ones.
A rank counts as hung when it has used no processor time for a while, however long that takes on a busy machine.
"""

import gc
import multiprocessing
import os
import pickle
import time
import traceback
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import psutil

RANKS = 2
PATIENCE = 60.0  # seconds in which the ranks do nothing before they count as hung
LITTLE = 0.01  # of a core, over both ranks: nothing
# imported once, in the process that the ranks are forked from: a rank by itself would take some ten seconds for them
IMPORTED = ["torch", "transformers.trainer", "latentlm.trainers.latent_trainer"]
MOST_WORK = 900.0  # processor seconds of one call before it counts as endless


class Answer(NamedTuple):
    """What a rank said: its result, or (not ok) its traceback; ok is None when it said nothing."""

    ok: bool | None
    value: object


class Pool:
    def __init__(self, directory: Path, patience: float = PATIENCE, most_work: float = MOST_WORK):
        self.directory, self.patience, self.most_work = directory, patience, most_work
        self.starts, self.calls = 0, 0
        self.pipes: list[Connection] = []
        self.processes: list = []

    def run(self, function, *args) -> list:
        """The results of all ranks; ``RuntimeError`` with the traceback of those that failed."""
        if not all(process.is_alive() for process in self.processes):
            self.close()
        if not self.processes:
            self._start()
        self.calls += 1
        answers: dict[int, Answer] = {}
        try:
            call = pickle.dumps((function, args))
            for pipe in self.pipes:
                with suppress(OSError):  # it has just died: reading its answer says so
                    pipe.send_bytes(pickle.dumps((self.calls, call)))
            self._collect(answers)
        finally:  # a rank left in the middle of a call, or one that failed alone: the group is out of step
            if {answers[rank].ok if rank in answers else None for rank in range(RANKS)} not in ({True}, {False}):
                self.close()
        failures = [f"rank {rank}:\n{answer.value}" for rank, answer in sorted(answers.items()) if not answer.ok]
        if failures:
            raise RuntimeError("\n".join(failures))
        return [answers[rank].value for rank in range(RANKS)]

    def _start(self):
        self.starts += 1
        store = str(self.directory / f"store_{self.starts}")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported
        for rank in range(RANKS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, store, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)

    def close(self):
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.join()
        for pipe in self.pipes:
            pipe.close()
        self.pipes, self.processes = [], []

    def _collect(self, answers: dict[int, Answer]) -> None:
        """Fill in the answers to the present call, until all have come or the ranks get nowhere."""
        begin = worked = self._work()
        quiet, last = 0.0, time.monotonic()
        while len(answers) < RANKS:
            waiting = {self.pipes[rank]: rank for rank in range(RANKS) if rank not in answers}
            ready = wait(list(waiting), timeout=min(0.5, self.patience / 4))
            for pipe in ready:
                try:
                    number, ok, value = pickle.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    number, ok, value = self.calls, None, "the process ended"
                if number == self.calls:
                    answers[waiting[pipe]] = Answer(ok, value)
            now, work = time.monotonic(), self._work()
            quiet += min(now - last, 1.0)  # time in which this process did not run itself says nothing
            last = now
            if ready or work - worked > LITTLE * self.patience:
                quiet, worked = 0.0, work
            if quiet > self.patience:
                why = f"no answer and no work for {self.patience:g} s; is a collective called on one rank only?"
            elif work - begin > self.most_work:
                why = f"still at work after {self.most_work:g} s of processor time"
            else:
                continue
            for rank in set(range(RANKS)) - answers.keys():
                answers[rank] = Answer(None, why)

    def _work(self) -> float:
        """Processor seconds that the ranks and what they started have used."""
        total = 0.0
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                there = psutil.Process(process.pid)
                for one in (there, *there.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        times = one.cpu_times()
                        total += times.user + times.system
        return total


def _serve(rank: int, store: str, pipe: Connection):
    import torch
    from torch import distributed

    gc.freeze()  # see `small_heap` in conftest.py
    torch.set_num_threads(1)
    # the pool sees a rank that hangs: no wall clock in here, which a busy machine would run out
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS, timeout=timedelta(days=1)
    )
    while True:
        try:
            number, call = pickle.loads(pipe.recv_bytes())
        except EOFError:
            break
        try:
            function, args = pickle.loads(call)
            answer = pickle.dumps((number, True, function(*args)))
        except Exception:
            answer = pickle.dumps((number, False, traceback.format_exc()))
        pipe.send_bytes(answer)
    distributed.destroy_process_group()


@contextmanager
def launched():
    """The environment that torchrun gives; accelerate forgets it afterwards."""
    from accelerate.state import AcceleratorState, PartialState

    from latentlm.distributed.collectives import rank, world_size

    before = dict(os.environ)
    if world_size() > 1:
        os.environ.update(RANK=str(rank()), LOCAL_RANK=str(rank()), WORLD_SIZE=str(world_size()))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
