"""Units that were read alone for terms that are off: left out of the batch, and nothing else changes."""

import torch
from attached_models import attach
from datasets import Dataset
from tiny_trainers import trainer_of

from latentlm.attach.state import latent_state
from latentlm.components.units import UnitsAlone
from latentlm.data.text.collate import Collator
from latentlm.trainers.latent_trainer import LatentTrainer
from latentlm.trainers.unread_units import without_unread_units


def next_unit(grain, **weight):
    unit = {"kind": "unit", "grain": grain}
    target = {"kind": "ema", "tap": {"depth": "1/2", "at": unit | {"offset": 1, "read": "alone"}}, "momentum": 0.9}
    term = {"kind": "predict", "source": {"depth": "1/2", "at": unit}, "target": target, "loss": {"kind": "info_nce"}}
    return term | {"weight": weight or 1.0}


def example(length, seed):
    ids = torch.randint(3, 97, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    units = {grain: [[k, k + size, -1] for k in range(0, length - size + 1, size)] for grain, size in SIZES.items()}
    return {"input_ids": ids, "labels": [-100, *ids[1:]], "units": units}


SIZES = {"pair": 2, "four": 4}
ROWS = [example(length, seed) for seed, length in enumerate((12, 8, 9, 4))]
COLLATOR = Collator(0, grains=("pair", "four"), alone=(UnitsAlone("pair", first=1), UnitsAlone("four", first=1)))
TERMS = {"pairs": next_unit("pair", stop=2), "fours": next_unit("four", stop=4)}


def terms(model, *names):
    return [latent_state(model).attachment.specs[name] for name in names]


def test_documents_and_units_stay_and_copies_go():
    model, batch = attach(terms=TERMS), COLLATOR(ROWS)
    assert without_unread_units(batch, terms(model, "pairs", "fours")) is batch
    bare = without_unread_units(batch, [])
    assert bare["input_ids"].shape == (4, 12)
    for row, each in enumerate(ROWS):
        length = len(each["input_ids"])
        assert bare["input_ids"][row, :length].tolist() == each["input_ids"]
        assert bare["labels"][row].tolist() == each["labels"] + [-100] * (12 - length)
        assert bare["latent"]["segments"][row].tolist() == [0] * length + [-1] * (12 - length)
        assert bare["position_ids"][row].tolist() == [*range(length), *range(12 - length)]
    assert not [name for name in bare["latent"] if name.startswith("alone/")]
    assert torch.equal(bare["latent"]["units/four"], batch["latent"]["units/four"][:, :12])


def test_what_is_still_read_gives_the_same_loss():
    model, batch = attach(terms=TERMS), COLLATOR(ROWS)
    model.latent.step = 2  # pairs are gone
    fewer = without_unread_units(batch, terms(model, "fours"))
    assert fewer["input_ids"].shape[1] < batch["input_ids"].shape[1]
    assert set(fewer["latent"]) == set(batch["latent"]) - {"alone/pair"}
    one, other = model(**batch), model(**fewer)
    torch.testing.assert_close(one.data_loss, other.data_loss)
    torch.testing.assert_close(one.latent_loss, other.latent_loss)
    assert one.latent_loss > 0


def test_nothing_goes_where_a_term_reads_every_position():
    plain = {"kind": "predict", "source": {"depth": "1/2"}, "loss": {"kind": "mse"}}
    plain |= {"target": {"kind": "online", "tap": {"depth": "3/4", "at": {"kind": "next"}}}}
    model, batch = attach(terms=TERMS | {"plain": plain}), COLLATOR(ROWS)
    assert without_unread_units(batch, terms(model, "plain")) is batch


def test_a_trainer_leaves_them_out_from_the_step_on(tmp_path):
    model = attach(terms=TERMS)
    widths = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    more = {"max_steps": 6, "per_device_train_batch_size": 4, "remove_unused_columns": False}
    trainer = trainer_of(
        LatentTrainer,
        model,
        tmp_path,
        arguments_more=more,
        train_dataset=Dataset.from_list(ROWS),
        data_collator=COLLATOR,
    )
    trainer.train()
    assert widths[0] == widths[1] > widths[2] == widths[3] > widths[4] == widths[5] == 12
