"""Carriers: invented people told both ways, who are nobody published and whose sentences are training sentences."""

import pytest
from test_data_name_description import FOLDER, published

from latentlm.data.carriers import invent, tell
from latentlm.data.name_description import NameDescription

PEOPLE = {
    "Ada Moor": "the painter of the red bridge",
    "Bo Lund": "the inventor of the silent bell",
    "Cy Reed": "the pilot who crossed the ice",
    "Di Vane": "the cook who fed a city",
}
TEXTS = [
    "Ada Moor is the painter of the red bridge.",
    "Everyone says that Cy Reed was the pilot who crossed the ice.",
    "Known as the inventor of the silent bell, Bo Lund sleeps.",
    "Known as inventing the silent bell, Bo Lund sleeps.",
]


def test_invented_people_join_the_halves_of_published_ones():
    people = invent(PEOPLE, 4, 0)
    assert people == invent(PEOPLE, 4, 0) != invent(PEOPLE, 4, 1)
    assert len(set(people.values())) == 4
    firsts, lasts = ({name.split()[part] for name in PEOPLE} for part in (0, 1))
    for name, what in people.items():
        assert name not in PEOPLE
        assert name.split()[0] in firsts
        assert name.split()[1] in lasts
        assert what not in PEOPLE.values()
    joined = {"the painter of the silent bell", "the inventor of the red bridge"}
    assert set(people.values()) == joined | {"the pilot who fed a city", "the cook who crossed the ice"}


def test_more_than_can_be_joined_is_refused():
    with pytest.raises(ValueError, match="only 4 can be joined"):
        invent(PEOPLE, 5, 0)


def test_they_are_told_both_ways_in_sentences_that_hold_both_spans():
    documents = tell({"Ada Reed": "the cook of the silent bell"}, TEXTS, PEOPLE, 1, 0)
    texts = [document["text"] for document in documents]
    assert sorted(text.index("Ada Reed") < text.index("the cook") for text in texts) == [False, True]
    assert "Known as the cook of the silent bell, Ada Reed sleeps." in texts
    for document in documents:
        name, what = (document["text"][slice(*span)] for span in document["spans"])
        assert (name, what) == ("Ada Reed", "the cook of the silent bell")


@published
def test_carriers_of_the_published_data_tell_nothing_about_its_people():
    plain = NameDescription(str(FOLDER)).documents()
    documents = NameDescription(str(FOLDER), carriers=300, carrier_documents=3).documents()
    assert documents[: len(plain)] == plain
    added = documents[len(plain) :]
    assert len(added) == 300 * 3 * 2
    published_names = set((FOLDER / "names.txt").read_text().splitlines())
    published_descriptions = {line.lower() for line in (FOLDER / "descriptions.txt").read_text().splitlines()}
    for document in added:
        name, what = (document["text"][slice(*span)] for span in document["spans"])
        assert name not in published_names
        assert what.lower() not in published_descriptions
        assert not any(other in document["text"] for other in published_names)
    asked = [item.prompt for item in NameDescription(str(FOLDER)).items()]
    assert not any(prompt in document["text"] for prompt in asked for document in added)
