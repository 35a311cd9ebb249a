"""Two real processes with a gloo group, started once per test session.

``pool.run(function, *args)`` calls a function of a test module on both ranks: ``[result of 0, result of 1]``.
Functions travel by name and values by pickle, so both must be importable and picklable.
"""

import multiprocessing
import os
import pickle
import traceback
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

RANKS = 2
PATIENCE = 180  # seconds before a silent rank counts as hung


class Pool:
    def __init__(self, directory: Path):
        context = multiprocessing.get_context("spawn")
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # read by the children when they import torch
        self.pipes, self.processes = [], []
        for rank in range(RANKS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, str(directory / "store"), theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)

    def run(self, function, *args) -> list:
        call = pickle.dumps((function, args))
        for pipe in self.pipes:
            pipe.send_bytes(call)
        answers = [_answer(pipe) for pipe in self.pipes]
        failures = [f"rank {rank}:\n{value}" for rank, (ok, value) in enumerate(answers) if not ok]
        if failures:
            raise RuntimeError("\n".join(failures))
        return [value for _, value in answers]

    def close(self):
        for pipe in self.pipes:
            pipe.close()  # the child reads the end of the pipe and leaves
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _answer(pipe: Connection) -> tuple:
    if not pipe.poll(PATIENCE):
        return False, f"no answer within {PATIENCE} s; is a collective called on one rank only?"
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        return False, "the process ended"


def _serve(rank: int, store: str, pipe: Connection):
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS, timeout=timedelta(seconds=PATIENCE // 2)
    )
    while True:
        try:
            call = pipe.recv_bytes()
        except EOFError:
            break
        try:
            function, args = pickle.loads(call)
            answer = (True, function(*args))
        except Exception:
            answer = (False, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))
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
