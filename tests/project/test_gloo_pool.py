"""The two-rank pool of these tests: no answer is ever taken for another call's, however slow the machine."""

import os
import pickle
import time

import pytest
from gloo_pool import PATIENCE, Pool
from torch import distributed

from latentlm.distributed.collectives import rank


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A pool of its own: its ranks are killed."""
    pool = Pool(tmp_path_factory.mktemp("own"))
    yield pool
    pool.close()


def echo(word):
    return rank(), word


def sleep_on_rank_one(seconds):
    if rank() == 1:
        time.sleep(seconds)
    return "late"


def work_for(seconds):
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        pass
    return "done"


def die_on_rank_one():
    if rank() == 1:
        os._exit(3)
    return "alive"


def wait_for_a_partner_that_fails():
    if rank() == 1:
        raise KeyError("lost")
    distributed.barrier()


def test_answers_belong_to_their_call(own, monkeypatch):
    assert own.run(echo, "first") == [(0, "first"), (1, "first")]
    # an answer too many lies in both pipes before the next call is sent
    for pipe in own.pipes:
        pipe.send_bytes(pickle.dumps((own.calls, pickle.dumps((echo, ("of another call",))))))
    assert own.run(echo, "second") == [(0, "second"), (1, "second")]
    assert own.starts == 1

    monkeypatch.setattr(own, "patience", 1.0)
    # at work for longer than the patience: not hung
    assert own.run(work_for, 3.0) == ["done"] * 2
    assert own.starts == 1

    with pytest.raises(RuntimeError, match=r"^rank 1:\nno answer and no work for 1 s"):
        own.run(sleep_on_rank_one, 600)
    monkeypatch.setattr(own, "patience", PATIENCE)
    assert own.run(echo, "third") == [(0, "third"), (1, "third")]
    assert own.starts == 2

    with pytest.raises(RuntimeError, match=r"^rank 1:\nthe process ended$"):
        own.run(die_on_rank_one)
    assert own.run(echo, "fourth") == [(0, "fourth"), (1, "fourth")]
    assert own.starts == 3


def test_a_rank_that_fails_alone_takes_its_partner_with_it(own, monkeypatch):
    own.run(echo, "warm")
    monkeypatch.setattr(own, "patience", 1.0)
    with pytest.raises(RuntimeError, match=r"rank 0:\nno answer(.|\n)*rank 1:(.|\n)*KeyError: 'lost'"):
        own.run(wait_for_a_partner_that_fails)
    monkeypatch.setattr(own, "patience", 600.0)
    monkeypatch.setattr(own, "most_work", 0.5)
    with pytest.raises(RuntimeError, match=r"still at work after 0.5 s of processor time"):
        own.run(work_for, 600)
