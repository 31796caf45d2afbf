"""An instruction is read or refused without a picture, by every family, just as an inference would; unknown words are
named."""

import dataclasses
import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.errors import InstructionError
from dysl_vla_ros.policies.reference_config import encode_words, unknown_words
from runtime_families import families, observation, policy_of
from tiny_checkpoint import tiny_config

CONFIG = tiny_config()
WORDS = st.sampled_from([*CONFIG.vocabulary, "stop", "sausage", "推", "2", "öffne", "\U0001f6d1"])
SENTENCES = st.text(max_size=40) | st.lists(WORDS, max_size=12).map(" ".join)


@families
def test_a_policy_knows_every_word_of_its_own_examples(family: str) -> None:
    policy = policy_of(family)
    assert [policy.check_instruction(text) for text in policy.instructions] == [()] * len(policy.instructions)


@families
@given(SENTENCES)
@settings(deadline=None, max_examples=150)
def test_what_the_check_refuses_is_what_an_inference_would_refuse(family: str, text: str) -> None:
    policy = policy_of(family)
    try:
        told = policy.check_instruction(text)
    except InstructionError as error:
        assert str(error)
        with pytest.raises(InstructionError) as refused, torch.inference_mode():
            policy.prepare([dataclasses.replace(observation(policy), instruction=text)])
        assert str(refused.value) == str(error)
        return
    assert all(told)
    with torch.inference_mode():
        policy.prepare([dataclasses.replace(observation(policy), instruction=text)])


@given(SENTENCES)
@settings(deadline=None, max_examples=300)
def test_each_letter_that_is_read_or_named_is_of_the_text_and_nothing_but_punctuation_is_passed_over(text: str) -> None:
    named = unknown_words(text, CONFIG)
    rest = text.lower()
    for word in (*CONFIG.vocabulary, *named):
        assert word in CONFIG.vocabulary or word in rest
    covered = set("".join((*CONFIG.vocabulary, *named)))
    left = {letter for letter in rest if letter not in covered}
    assert {unicodedata.category(letter)[0] for letter in left} <= set("PZC")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("push the puck", []),
        ("Push, the PUCK!", []),
        ("push the sausage", ["sausage"]),
        ("push the 推 puck 2 \U0001f6d1", ["推", "2", "\U0001f6d1"]),
        ("öffne the drawer, öffne it", ["öffne", "it"]),
    ],
)
def test_words_that_the_reference_policy_does_not_know_are_named_once_each(text: str, named: list[str]) -> None:
    assert unknown_words(text, CONFIG) == named
    assert len(encode_words(text, CONFIG)) == CONFIG.max_words
