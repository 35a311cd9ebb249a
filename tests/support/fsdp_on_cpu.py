"""accelerate shards on GPUs only; told here that a CPU is one, its own engine runs on two gloo processes.

As a program it is latentlm's: ``accelerate launch --config_file FSDP2 -m fsdp_on_cpu train ...``.
"""

from contextlib import contextmanager

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch import distributed


@contextmanager
def sharding_on_cpu():
    """Inside, accelerate takes gloo on the CPU for what it shards over."""
    before = PartialState._prepare_backend, PartialState.set_device

    def set_device(self):
        self.device = torch.device("cpu")

    def prepare(self, *args, **kwargs):
        if not distributed.is_initialized():
            distributed.init_process_group("gloo")
        return "gloo", DistributedType.MULTI_GPU

    PartialState._prepare_backend = prepare
    PartialState.set_device = set_device
    try:
        yield
    finally:
        PartialState._prepare_backend, PartialState.set_device = before


if __name__ == "__main__":
    from latentlm.cli import main

    with sharding_on_cpu():
        main()
