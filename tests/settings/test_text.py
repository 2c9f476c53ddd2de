import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geneae.settings.errors import InputError
from geneae.settings.text import HIDDEN, counted, escaped, sentences_of, shell_line

DANGEROUS = {
    "\x1b[31mred": r"\x1b[31mred",  # colours, and everything else that a terminal obeys
    "a\rb": r"a\rb",
    "two\nlines": r"two\nlines",
    "\0": r"\x00",
    "\x9b2J": r"\x9b2J",  # the same as ESC [ on some terminals
    "cell\u202e1": r"cell\u202e1",  # text from here on reads backwards
    "\u2066x\u2069": r"\u2066x\u2069",
    "a\u2028b": r"a\u2028b",
    "\ufeffgene": r"\ufeffgene",
    "run\udcff": r"run\udcff",  # a file name that is not UTF-8
}


@pytest.mark.parametrize(("name", "text"), DANGEROUS.items())
def test_what_a_terminal_obeys_is_escaped(name: str, text: str) -> None:
    assert escaped(name) == text


@given(st.text(st.characters()))
def test_nothing_hidden_is_left_and_a_second_time_changes_nothing(name: str) -> None:
    text = escaped(name)
    assert not any(unicodedata.category(sign) in HIDDEN for sign in text)
    assert escaped(text) == text
    text.encode("utf-8")


def test_other_text_stays_as_it_is() -> None:
    for name in ("cosine", "naïve T cell", "β-catenin", "細胞", "a  b", r"C:\x1b", "1\N{NO-BREAK SPACE}000", "= + - @"):
        assert escaped(name) == name
    assert escaped("a\tb\nc\x1b", keep="\t\n") == "a\tb\nc\\x1b"
    assert escaped(3) == "3"


def test_an_error_is_one_line_without_control_characters() -> None:
    assert str(InputError("unknown column 'a\nb\x1b[2J'.")) == r"unknown column 'a\nb\x1b[2J'."


@pytest.mark.parametrize(
    "word",
    ["plain", "two words", "it's", "", "a\nb", "\x1b[31m", "quote'\x07", "back\\slash\x01", "é\u202e", "x\udcffy"],
)
def test_a_shell_reads_the_words_back(word: str) -> None:
    line = shell_line(["printf", "%s", word])
    assert escaped(line) == line
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout == word.encode("utf-8", "surrogateescape")


def test_one_is_singular() -> None:
    assert [counted(number, "profile") for number in (0, 1, 1234)] == ["0 profiles", "1 profile", "1,234 profiles"]
    assert [counted(number, "profile is", "profiles are") for number in (1, 2)] == ["1 profile is", "2 profiles are"]


def test_sentences_begin_with_a_capital_letter_and_numbers_end_none() -> None:
    text = "It beats PCA (+0.01). Its 0.75 is far, e.g. from 0.9. The rest follows."
    assert sentences_of(text) == ["It beats PCA (+0.01).", "Its 0.75 is far, e.g. from 0.9.", "The rest follows."]
    assert " ".join(sentences_of(text)) == text
