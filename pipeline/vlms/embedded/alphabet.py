"""The characters that the embedded model reads and writes, and its tokens that are longer than a character.

Values on documents are codes, dates, amounts and names, and labels are matched by spelling, so a token is a character; only
closed-class answers and the fixed sentences of the pipeline's prompts are single tokens.
"""

from types import MappingProxyType

ASCII = "".join(chr(code) for code in range(0x20, 0x7F))
LATIN = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿŒœŠšŽž"
SIGNS = "€£¥§°©®±·×²³½¼–—‘’“”„•…¡¿«»"
BOXES = "☐☑☒"

CHARACTERS = ASCII + LATIN + SIGNS + BOXES
"""Everything the reader can name. Its class 0 is "no character"; `CHARACTERS[i]` is class `i + 1`."""

CHARACTER_CLASS = MappingProxyType({character: index + 1 for index, character in enumerate(CHARACTERS)})

PAD, UNKNOWN, END, IMAGE, VIEW, ANSWER = "<pad>", "<unk>", "<eos>", "<image>", "<view>", "<answer>"
"""Control tokens: `IMAGE` stands for one visual token, `VIEW` closes a view, `ANSWER` opens the answer, `END` closes it."""

SINGLE_WORD = "\nAnswer the question using a single word or phrase."
OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."
OR_NOT_FOUND = " If it is not on the page, answer: not found."
SENTENCES = (SINGLE_WORD, OPTION_LETTER, OR_NOT_FOUND)
"""Fixed sentences of the prompts, one token each, the white space before them included."""

WHOLE_ANSWERS = ("yes", "no", "not found", "A", "B", "C", "D", "E", "F")
"""Answers that are one token, so that a refusal is decided, and has a probability, in the first token."""

MORE_THAN = ("larger than", "higher than", "bigger than", "greater than", "more than")
LESS_THAN = ("smaller than", "lower than", "less than")
COMPARING = (*MORE_THAN, *LESS_THAN)
"""What stands between two things that a question compares, one token each."""


def whole_answer_token(answer: str) -> str:
    """The spelling of a whole answer's token inside the vocabulary, which no ordinary text contains.

    >>> whole_answer_token("not found")
    '<=not found>'
    """
    return f"<={answer}>"
