"""Builds the tokenizer of the embedded model: one token a character, plus a few longer ones."""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipeline.vlms.embedded.alphabet import (
    ANSWER,
    CHARACTERS,
    COMPARING,
    END,
    IMAGE,
    PAD,
    SENTENCES,
    UNKNOWN,
    VIEW,
    WHOLE_ANSWERS,
    whole_answer_token,
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}" + IMAGE + VIEW + "{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}" + ANSWER + "{%- endif -%}"
)

LOOKALIKES = (("\u00a0", " "), ("\t", " "), ("\u202f", " "), ("\u2011", "-"), ("\u2212", "-"))
"""Characters that look like one of the alphabet and are read as it."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer; its vocabulary depends on `alphabet` only.

    A text that is exactly a whole answer becomes that answer's one token (and decodes to the same text); the same word
    inside a longer text stays characters.
    """
    control = [PAD, UNKNOWN, END, IMAGE, VIEW, ANSWER]
    whole = [whole_answer_token(answer) for answer in WHOLE_ANSWERS]
    names = [*control, *SENTENCES, *whole, "\n", *CHARACTERS, *COMPARING]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            *(normalizers.Replace(old, new) for old, new in LOOKALIKES),
            # \A and \z bind to the text between two control tokens, so an answer is recognised inside a whole prompt too.
            *(normalizers.Replace(Regex(rf"\A{answer}\z"), whole_answer_token(answer)) for answer in WHOLE_ANSWERS),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [*(decoders.Replace(whole_answer_token(answer), answer) for answer in WHOLE_ANSWERS), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in SENTENCES])
    tokenizer.add_tokens([AddedToken(words, special=False, normalized=False, single_word=True) for words in COMPARING])
    # Found after normalisation, which is what writes them.
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=True) for name in whole])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json` and its configuration into `folder`."""
    build_tokenizer().save_pretrained(folder)
