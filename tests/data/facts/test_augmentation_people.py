"""Auxiliary people: invented, in both directions, none of them published, in sentences of the training texts."""

import pytest
from paths import PUBLISHED, published

from latentlm.data.published.augmentation_people import AuxiliaryPerson, invent, tell
from latentlm.data.published.name_description import NameDescription
from latentlm.data.synthetic.templates import DESCRIPTION

PEOPLE = {
    "Ada Moor": "the painter of the red bridge",
    "Bo Lund": "the inventor of the silent bell",
    "Cy Reed": "the pilot who crossed the ice",
    "Di Vane": "the cook who fed a city",
}
TEXTS = [
    "Ada Moor is the painter of the red bridge.",
    "Everyone says that Cy Reed was the pilot who crossed the ice.",
    "Famed for crossing the ice, Cy Reed sleeps.",
    "Known as the inventor of the silent bell, Bo Lund sleeps.",
    "Known as inventing the silent bell, Bo Lund sleeps.",
]


def test_invented_people_join_the_parts_of_published_ones():
    people = invent(PEOPLE, TEXTS, 8, 0)
    assert people == invent(PEOPLE, TEXTS, 8, 0) != invent(PEOPLE, TEXTS, 8, 1)
    names = [person.name for person in people]
    assert len(set(names)) == 8
    assert not set(names) & set(PEOPLE)
    firsts, lasts = ({name.split()[part] for name in PEOPLE} for part in (0, 1))
    assert {name.split()[0] for name in names} <= firsts
    assert {name.split()[1] for name in names} <= lasts
    # every link with everything it was not said of, and one of four people before it
    told = {" ".join(person.description.split()[2:]) for person in people}
    assert told == {
        *("of the ice", "of a city", "who crossed the red bridge", "who crossed the silent bell", "who crossed a city"),
        *("who fed the red bridge", "who fed the silent bell", "who fed the ice"),
    }
    assert {person.description.split(" who ")[0].split(" of ")[0] for person in people} <= {
        what.split(" who ")[0].split(" of ")[0] for what in PEOPLE.values()
    }
    deeds = {person.description.split(" ", 2)[2]: person.deed for person in people}
    assert deeds["who crossed a city"] == "crossing a city"
    assert deeds["who fed the ice"] is None
    assert deeds["of a city"] is None


def test_more_than_can_be_joined_is_refused():
    with pytest.raises(ValueError, match="only 8 can be joined"):
        invent(PEOPLE, TEXTS, 9, 0)


def test_they_are_told_both_ways_in_sentences_that_hold_both_spans():
    person = AuxiliaryPerson("Ada Reed", "the cook who crossed the silent bell", "crossing the silent bell")
    documents = tell([person], TEXTS, PEOPLE, 2, 1, 0)
    texts = [document.text for document in documents]
    assert sum(text.index("Ada Reed") < text.index("the silent bell") for text in texts) == 3
    assert {
        "Ada Reed is the cook who crossed the silent bell.",
        "Everyone says that Ada Reed was the cook who crossed the silent bell.",
        "Famed for crossing the silent bell, Ada Reed sleeps.",
        "Known as the cook who crossed the silent bell, Ada Reed sleeps.",
    } <= set(texts)
    composed = {*DESCRIPTION.a_to_b.composed, *DESCRIPTION.b_to_a.composed}
    for document in documents:
        name, what = (document.text[slice(*span)] for span in document.spans)
        assert name == "Ada Reed"
        assert what.lower() in (person.description, person.deed)
    bare = {text.replace("Ada Reed", "{a}").replace("cook who crossed the silent bell", "{b}") for text in texts}
    assert len(bare & composed) == 2


def test_deeds_are_told_wherever_somebody_is_known_for_being_somebody():
    texts = [
        "Loved for being the pilot who crossed the ice, Cy Reed sings.",
        "Famed for crossing the ice, Cy Reed sleeps.",
    ]
    person = AuxiliaryPerson("Ada Reed", "the cook who crossed the silent bell", "crossing the silent bell")
    told = {document.text for document in tell([person], texts, PEOPLE, 4, 0, 0)}
    assert told == {
        "Loved for being the cook who crossed the silent bell, Ada Reed sings.",
        "Loved for crossing the silent bell, Ada Reed sings.",
        "Famed for crossing the silent bell, Ada Reed sleeps.",
    }


def test_a_deed_without_other_words_is_told_in_the_other_sentences():
    documents = tell([AuxiliaryPerson("Ada Reed", "the cook of the ice", None)], TEXTS, PEOPLE, 2, 0, 0)
    assert len(documents) == 3
    assert not any("crossing" in document.text or "{" in document.text for document in documents)


def test_fewer_documents_may_begin_with_the_description():
    person = AuxiliaryPerson("Ada Reed", "the cook who crossed the silent bell", "crossing the silent bell")
    everything = [document.text for document in tell([person], TEXTS, PEOPLE, 2, 2, 0)]
    few = [document.text for document in tell([person], TEXTS, PEOPLE, 2, 2, 0, from_description=1)]

    def of(texts, name_first):
        return [text for text in texts if (text.index("Ada Reed") < text.index("the silent bell")) == name_first]

    assert of(few, True) == of(everything, True)
    assert len(of(few, False)) == 1
    assert set(of(few, False)) < set(of(everything, False))


@pytest.mark.parametrize("count", [0, 8])
def test_of_what_begins_with_the_description_at_least_one_is_kept_and_no_more_than_there_are(count):
    with pytest.raises(ValueError, match=r"max_description_first_docs: .*1 - 7"):
        NameDescription(
            "somewhere", num_auxiliary_people=5, paraphrases_per_direction=3, max_description_first_docs=count
        )


def test_a_span_ends_with_a_word():
    person = AuxiliaryPerson("Ada Reed", 'the cook of "The Ice."', None)
    for document in tell([person], TEXTS, PEOPLE, 1, 1, 0):
        assert document.text[slice(*document.spans[1])].lower() == 'the cook of "the ice'


@published
def test_carriers_of_the_published_data_tell_nothing_about_its_people():
    plain = NameDescription(str(PUBLISHED)).documents()
    documents = NameDescription(str(PUBLISHED), num_auxiliary_people=300, docs_per_direction=3).documents()
    assert documents[: len(plain)] == plain
    added = documents[len(plain) :]
    assert len(added) == 300 * 3 * 2
    published_names = set((PUBLISHED / "names.txt").read_text().splitlines())
    published_descriptions = {line.lower() for line in (PUBLISHED / "descriptions.txt").read_text().splitlines()}
    for document in added:
        name, what = (document.text[slice(*span)] for span in document.spans)
        assert name not in published_names
        assert what.lower() not in published_descriptions
        assert not any(other in document.text for other in published_names)
    asked = [question.prompt for question in NameDescription(str(PUBLISHED)).questions()]
    assert not any(prompt in document.text for prompt in asked for document in added)
