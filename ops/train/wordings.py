# The rows of the tables below are data, one a line.
# ruff: noqa: E501
"""Wordings by the thousand, for training alone.

A model that hears a dozen wordings of a question knows these and no others: it said yes or no to "By which date ...", and knew
whether something is present in 81 % of the wordings that it was trained on, but in 34 % of others. Here wordings are put together
from parts: "[a|b|]" is a, b or nothing.
"""

import itertools
import random
import re

from ops.train.faces import is_held_out

_WHERE = "[|||here|on the page|on this page|in the document|in this document|in it|on this sheet|anywhere]"
_TO_FIND = "[given|stated|shown|mentioned|printed|listed|named|indicated|written down|specified|included|provided|entered|filled in]"
_MARKED = "[checked|ticked|marked|selected|crossed|chosen|picked|filled in|marked with an x|ticked off]"
_MARK = "[tick|cross|check mark|mark|x|checkmark]"
_BOX = '[{label}|"{label}"|the box {label}|the box "{label}"|the box for {label}|the {label} box|the box next to {label}|the option {label}|the checkbox {label}|the field {label}]'
_THE = "[the|the|the|their|its|this]"
_ASK = "[What is|What's|What was|Which is|Tell me|Give me|Find|Find me|Show me|State|Please state|Read|Read out|I want to know|I would like to know|Let me know|Write down|Look up|Look for|Return|Get|Report|Name|Identify|Determine|Provide|Do you know|Could you tell me|Could you give me|Can you read|Can you tell me]"
_GIVEN = "[|||, as printed|, as written| as given here| according to the page| according to the document| on this document| in this document| on the page| here]"
_WHEN = "[When|What date|Which date|Which day|What day|On which day|On what day|On which date|On what date|By which date|By what date|By when|Until when|Until which date|From when|From which date|Since when|As of which date|At what date]"
_MUCH = "[How much|How high|What amount|Which amount|What sum|How large|How big|How much money|What figure]"

PATTERNS: dict[str, tuple[str, ...]] = {
    "field": (
        f"{_ASK} {_THE} {{label}}{_GIVEN}[?|.|]",
        "[What|Which] {label} [is|was] [given|stated|shown|mentioned|printed|listed|used|named|written|indicated][| here| on the page| in this document]?",
        "[What|Which] {label} does [it|the page|the document|this document|the paper|this] [have|give|show|state|mention|name|say]?",
        "[What|Which value|What text|What entry] [is|stands|appears|is written|is printed|is shown|is given|is entered|is filled in] [under|for|at|as|next to|beside|behind|after|with|in the field] [the|] {label}?",
        "What [comes|goes|follows] [after|with|under|behind] {label}?",
        "[For|As|Under|At|Regarding] {label}[, what| what|: what] [is given|is written|does it say|is stated|is entered]?",
        "{label}[ please| here| on this page|, please|?||:|: what is it?|: what does it say?| = ?]",
        "[On|In|According to] [this page|the page|this document|the document], what is the {label}?",
    ),
    "person": ("[Who|Which person|Whose name|What name|Which name] [is|was|is given as|is stated as|is listed as|is named as|is entered as|is written for|appears as] the {label}?", "What is the [name|full name] of the {label}?", "By [whom|what name] is the {label} [given|known]?"),
    "company": ("[Who|Which company|Which firm|What company|What firm|Which business|What organisation] [is|was|is given as|is listed as|is named as|acts as] the {label}?", "What is the name of the {label}?"),
    "amount": (f"{_MUCH} [is|was|is given as|is stated as|is listed as] the {{label}}?", "[What|How much] does the {label} [come to|amount to|cost|add up to]?", "What is the [amount|sum|figure|value|price] [of|for] the {label}?"),
    "date": (f"{_WHEN} [is|was|is given as|is stated as|is the date of|falls] the {{label}}?", f"{_WHEN} [is|was] [it|this]: [the|] {{label}}?"),
    "number": ("[How many|What number of] {label}[| are there| were there| are listed| is it| are given]?", "What is the [number|count|quantity] of {label}?"),
    "time": ("[When|At what time|At which time|What time|At what hour|At which hour|From what time] [is|was] the {label}?",),
    "city": ("[Where|In which city|In what city|In which place|In which town|At which place|What place|Which city] [is|was|is given as] the {label}?",),
    "cell": (
        f"{_ASK} the {{column}} [of|for|in the row|at|listed for|given for|next to] [{{row}}|\"{{row}}\"|the {{row}}]{_GIVEN}[?|.]",
        "[What|Which] {column} [is|was] [given|listed|shown|entered|printed|charged|noted] for [{row}|\"{row}\"|the {row}]?",
        "[What|Which] {column} does [{row}|\"{row}\"|the row {row}|the {row}] [have|show|list|give]?",
        "[For|In the row|At|In the line|As to] [{row}|\"{row}\"]: [{column}?|what is the {column}?|which {column} is given?|the {column}?]",
        "{column} [for|of|in the row|at] [{row}|\"{row}\"][?|]",
        "{row}[, | - |: ]{column}[?|]",
    ),
    "check": (
        f"[Is|Was] {_BOX} {_MARKED}?",
        f"[Has|Hasn't] {_BOX} been {_MARKED}?",
        f"[Has|Did] [somebody|someone|anyone|the person|the customer] {_MARKED} {_BOX}?",
        f"[Is there|Do you see|Can you see|Does one see] a {_MARK} [at|by|next to|beside|in front of|in the box for|for|before] {{label}}?",
        f"Does {_BOX} [have|carry|show|contain] a {_MARK}?",
        "[Does|Did] [it|the form|the page|the customer|the person] [say|choose|select|tick|want|agree to] {label}?",
        "[Yes or no|True or false|Tell me]: [is|was] {label} [checked|ticked|marked|selected]?",
    ),
    "presence": (
        f"[Is|Was] [the|a|any|their|some] {{label}} {_TO_FIND} {_WHERE}?",
        f"[Is|Are] there [a|an|any|the|some] {{label}} {_WHERE}?",
        "Does [it|the page|this page|the document|this document|the paper|this sheet|the form|the text] [give|state|show|mention|contain|have|include|name|list|say|tell|provide|indicate|specify] [the|a|any|its|] {label}?",
        "[Can|Could|Will|Would] [I|we|one|anyone|anybody|somebody|a reader] [find|see|read|learn|look up] [the|a|any|] {label} [here|on this page|in this document|in it|on the page|from this]?",
        f"[Has|Have] the {{label}} been {_TO_FIND} {_WHERE}?",
        f"[Did|Do|Have] [they|the authors|the writers] [give|state|enter|mention|write|provide|show|name|include|specify] [the|a|any] {{label}} {_WHERE}?",
        "[Does|Do] [the|a|any|] {label} [appear|occur|show up|stand|come up] [here|on this page|in this document|anywhere|on it|]?",
        "[Yes or no|Tell me|True or false]: [is|was] [the|a] {label} [given|stated|shown|there|mentioned]?",
        "[Is it|Is anything] [said|written|known|stated|noted] [what|which] the {label} is?",
        "[Is|Are] [the|any|] {label} [on it|on here|part of this page|part of this document|to be found here|to be seen here|present]?",
    ),
    "reverse": (
        "[What|Which label|Which field|Which entry|Which name|What label] [is|has|shows|holds|contains|carries|has the value|stands for|goes with|belongs to] [{value}|\"{value}\"]?",
        "[To|With] which [label|field|entry|name] does [{value}|\"{value}\"] [belong|go]?",
        "[Next to|Under|For|As|At|Beside] [which label|what|which name|which field|which entry] is [{value}|\"{value}\"] [given|written|printed|entered|stated]?",
        "[What is the label|What is the name|What's the label|Give the label] of [{value}|\"{value}\"]?",
        "[Of what is|For what does|What does] [{value}|\"{value}\"] [the value|stand|mean|stand for|refer to]?",
    ),
    "compare": (
        "[Which is|Which one is|What is|Tell me which is|Which of the two is] {word}[,|:] [the|] {first} or [the|] {second}?",
        "[Between|Of|Comparing|From] {first} and {second}, which [is|one is] {word}?",
        "Is [it|] {first} or {second} that is {word}?",
        "[The|] {first} or [the|] {second}[, which is|: which one is|, what is] {word}?",
    ),
    "is it": (
        "[Is|Was] [the|] {first} {word} [than|compared to|in comparison with] [the|] {second}?",
        "[Is it true|Is it so|Is it right|Would you say|Do you agree|Does it say] that [the|] {first} is {word} than [the|] {second}?",
        "[Yes or no|True or false|Tell me]: is [the|] {first} {word} than the {second}?",
    ),
}  # fmt: skip
"""By the sort of question, with the places that `ops.train.questions` fills."""


_BEFORE = ("", "", "", "Please answer: ", "Question: ", "Q: ", "Hi, ", "Quick question: ", "I wonder: ", "One more thing: ", "Now, ", "So, ", "Tell me, ", "Say, ")  # fmt: skip
_AFTER = ("", "", "", "", " Thanks.", " Please.", " (see the page)", " Do you know?", " I cannot find it.", " Look at the page.")  # fmt: skip


def dressed(text: str, rng: random.Random) -> str:
    """A question with words around it that change nothing, or without its capital or its question mark."""
    before, after = rng.choice(_BEFORE), rng.choice(_AFTER)
    other = text
    if (before or rng.random() < 0.3) and not text.startswith("{"):
        other = text[0].lower() + text[1:]
    if not after and rng.random() < 0.3:
        other = other.removesuffix("?")
    other = before + other + after
    return text if is_held_out(other) else other


def _expand(pattern: str) -> list[str]:
    parts = [part[1:-1].split("|") if part.startswith("[") else [part] for part in re.split(r"(\[[^\]]*\])", pattern)]
    texts = ["".join(chosen) for chosen in itertools.product(*parts)]
    return [re.sub(r" ([?.,])", r"\1", " ".join(text.split())) for text in texts]


VARIED: dict[str, tuple[tuple[str, ...], ...]] = {
    sort: tuple(tuple(text for text in _expand(pattern) if not is_held_out(text)) for pattern in patterns)
    for sort, patterns in PATTERNS.items()
}
"""The wordings of each pattern, without those that are held out; a pattern is drawn first, then one of its wordings."""
