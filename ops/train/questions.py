# The rows of the tables below are data, one a line.
# ruff: noqa: E501
"""Questions about a page, with the characters that answer them."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ops.train.compose import SENDER_QUESTIONS, SENTENCES, SIGNER_QUESTIONS
from ops.train.document import Field, Page, Span
from ops.train.faces import Split, is_held_out
from ops.train.wordings import VARIED, dressed
from ops.train.words import FIELDS, KINDS, Words
from pipeline.vlms.embedded.alphabet import OPTION_LETTER, OR_NOT_FOUND, SINGLE_WORD

NOT_FOUND = "not found"
VARIED_SHARE, DRESSED_SHARE = 0.6, 0.4
"""Of training questions, where there are wordings for their sort; of the others, with words around them."""
UNKNOWN_SHARE = 0.3
"""Of the labels in training that a page does not have: those of the open vocabulary, as its pages have them."""
FUNCTION_WORDS = frozenset(
    (
        "what", "when", "wher", "whic", "whos", "whom", "who", "the", "this", "that", "does", "did", "how", "much", "many", "was", "were",
        "will", "with", "from", "for", "and", "has", "have", "are", "its", "must", "give", "page", "docu", "than", "can", "you", "they",
    )
)  # fmt: skip
"""First letters of words that say nothing about what is asked for."""


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Attributes:
        task: which kind of question.
        text: the user's words.
        answer: what the model is to say.
        evidence: spans of the page that hold the answer, in the order in which it is read; empty if nothing on the page
        does.
        label: spans that name what is asked for, the evidence apart.
        copied: whether the answer is the text of the evidence, so that each of its characters stands somewhere on the page.
        options: choices of a multiple-choice question.
    """

    task: str
    text: str
    answer: str
    evidence: tuple[Span, ...] = ()
    label: tuple[Span, ...] = ()
    copied: bool = True
    options: tuple[str, ...] = field(default=())

    def prompt(self, rng: random.Random) -> str:
        """The text that the pipeline would send for it."""
        if self.options:
            lines = [f"({letter}) {option}" for letter, option in zip("ABCDEF", self.options, strict=False)]
            return "\n".join([self.text, *lines]) + OPTION_LETTER + (OR_NOT_FOUND if rng.random() < 0.3 else "")
        return self.text + SINGLE_WORD + (OR_NOT_FOUND if rng.random() < 0.7 else "")


FRAMES = (
    "What is the {label}?", "What is the {label}?", "What is the {label}?", "What is {label}?", "What's the {label}?", "{label}?", "{label}",
    "Give the {label}.", "Find the {label}.", "State the {label}.", "Which {label} is given?", "What {label} is shown on the page?",
    "Tell me the {label}.", "What does the document say for {label}?", "Read the value of {label}.", "What is the value of \"{label}\"?",
    "What stands next to \"{label}\"?", "What is written for {label}?", "Can you find the {label}?", "What is entered under {label}?",
    "I need the {label}.", "Look up the {label}.", "What {label} does it have?", "Do you see the {label}? What is it?", "And the {label}?", "Please give me the {label}",
    "What is their {label}?", "What is the {label} on this document?", "What is printed next to {label}?", "show {label}", "what is the {label}",
    "Please read the {label}.", "Which value belongs to {label}?", "What is the document's {label}?", "Extract the {label}.",
    "Could you give me the {label}?", "Tell me what the {label} is.", "What is stated as the {label}?", "Name the {label}.",
    "Which {label} applies?", "Which {label} was given?", "What does it say under {label}?", "What was the {label}?",
    "According to the document, what is the {label}?", "To which {label} does it refer?", "What {label} was used?",
)  # fmt: skip
FRAMES_BY_KIND: dict[str, tuple[str, ...]] = {
    "person": ("Who is the {label}?", "Who is named as {label}?", "What name is given for {label}?", "What is the name of the {label}?", "In whose name is the {label}?", "Which person is the {label}?"),
    "company": ("Which company is the {label}?", "Who is the {label}?", "What company is the {label}?", "What is the name of the {label}?"),
    "amount": ("How much is the {label}?", "What amount is given as {label}?", "How high is the {label}?", "How much {label}?", "How much was the {label}?", "What sum is the {label}?", "What is the amount of the {label}?", "What does the {label} come to?", "How much does the {label} amount to?"),
    "date": ("When is the {label}?", "What date is the {label}?", "Which day is given as {label}?", "When was the {label}?", "On what date is the {label}?", "By which date is the {label}?", "On which day is the {label}?", "By when is the {label}?", "What day is the {label}?", "Until which date is the {label}?"),
    "number": ("How many is the {label}?", "How many {label} are there?", "What is the number of {label}?"),
    "time": ("At what time is the {label}?", "When is the {label}?", "What time is the {label}?"),
    "city": ("Where is the {label}?", "In which city is the {label}?", "Which place is given as {label}?"),
}  # fmt: skip
ASKED: dict[str, tuple[str, ...]] = {
    # canonical name: what people ask who do not know how the label is printed
    "invoice number": ("What number does this invoice have?", "Which invoice is this?", "invoice number?", "What is the number of the invoice?"),
    "invoice date": ("When was the invoice issued?", "When was it issued?", "What date is on the invoice?", "On which day was this billed?"),
    "due date": ("When is the payment due?", "By when must it be paid?", "When do I have to pay?", "What is the deadline for payment?", "Until when can this be paid?", "By which date must it be paid?", "On which day is it due?", "When is it to be paid?"),
    "order number": ("Which order does this refer to?", "What is the number of the order?"),
    "order date": ("When was it ordered?", "When was the order placed?", "On what day was the order made?", "On which day was it ordered?"),
    "delivery date": ("When will it be delivered?", "When were the goods delivered?", "What day is the delivery?", "On which date will it be delivered?", "By which date will the goods arrive?"),
    "customer number": ("What is my customer number?", "What number does the customer have?"),
    "customer": ("Who is the customer?", "Who was billed?", "To whom is this addressed?", "Who has to pay?"),
    "supplier": ("Who is the supplier?", "Who is the seller?", "Which company supplied this?"),
    "total": ("How much is it in total?", "Total amount due?", "What is the total amount due?", "How much do I have to pay?", "What does it cost altogether?", "How much is to be paid?", "total to pay?"),
    "subtotal": ("What is the amount before tax?", "How much is it without tax?", "What is the net sum?"),
    "tax": ("How much tax is there?", "How much VAT is charged?", "How much is the tax?", "What is the tax amount?"),
    "tax rate": ("What is the rate of tax?", "How many percent is the tax?", "At which rate is it taxed?"),
    "discount": ("How much discount is given?", "How much was taken off?"),
    "shipping": ("How much is the shipping?", "What does the delivery cost?", "How much was charged for postage?"),
    "payment method": ("How was it paid?", "How is it to be paid?", "By what means was this paid?"),
    "payment terms": ("On what terms is it to be paid?", "What are the terms of payment?"),
    "vat number": ("What is the tax identification number?", "What is the company's VAT ID?"),
    "iban": ("To which account should I pay?", "What is the bank account number?", "Which IBAN is given?"),
    "bank": ("Which bank is it?", "At which bank is the account?"),
    "phone": ("What number can I call?", "What's the phone number?", "Which telephone number is given?"),
    "email": ("Where can I write an email?", "What's the email address?"),
    "contact": ("Who can I contact?", "Who is the contact?", "Whom should I ask for?"),
    "date of birth": ("When was the person born?", "What is the birthday?", "When is the birthday?", "On which day was the person born?"),
    "place of birth": ("Where was the person born?",),
    "occupation": ("What does the person do for a living?", "What is the person's job?"),
    "employer": ("Where does the person work?", "Who is the employer?", "For which company does the person work?"),
    "salary": ("How much does the person earn?", "How high is the salary?"),
    "net pay": ("How much is paid out?", "What is left after deductions?"),
    "start date": ("When does it start?", "From when is it valid?", "Since when?", "When does it begin?", "On which day does it begin?", "From which date is it valid?"),
    "end date": ("When does it end?", "Until when is it valid?", "When does it expire?", "How long is it valid?", "On which day does it expire?", "Until which date is it valid?"),
    "policy number": ("What is the number of the contract?", "Which policy is this?"),
    "premium": ("How much is the insurance?", "What premium is to be paid?"),
    "weight": ("How heavy is it?", "How much does it weigh?"),
    "rent": ("How much is the rent?", "What does it cost to rent?"),
    "deposit": ("How much is the deposit?", "What deposit has to be paid?"),
    "opening balance": ("What was the balance before?", "How much was in the account at the start?"),
    "closing balance": ("What is the balance now?", "How much is in the account at the end?"),
    "consumption": ("How much was used?", "How much was consumed?"),
    "flight": ("Which flight is it?", "What flight is booked?"),
    "seat": ("Which seat is it?", "Where do I sit?", "What seat do I have?"),
    "gate": ("From which gate does it leave?", "Which gate is it?"),
    "departure": ("When does it leave?", "When does the journey begin?"),
    "arrival": ("When does it arrive?", "At what time is the arrival?"),
    "venue": ("Where does it take place?", "Where is the event?"),
    "doctor": ("Who is the doctor?", "Which doctor was it?"),
    "patient": ("Who is the patient?", "What is the name of the patient?"),
    "diagnosis": ("What was diagnosed?", "What was found?"),
    "dose": ("How much should be taken?", "What is the dose?"),
    "grade": ("How good was the result?", "Which grade was given?", "What score was reached?"),
    "signed by": ("Who signed?", "Who signed it?", "Who approved this?", "Whose signature is it?"),
    "account holder": ("Whose account is it?", "Who holds the account?", "Who owns the account?"),
    "interest rate": ("How high is the interest?", "What interest is paid?", "How much interest is there?"),
}  # fmt: skip
SHORT = (
    ("number", "no.", "no", "nr", "num", "#"), ("telephone", "phone", "tel", "tel."), ("quantity", "qty", "qty."), ("amount", "amt"),
    ("reference", "ref", "ref."), ("invoice", "inv", "inv."), ("account", "acct", "a/c"), ("email", "e-mail", "mail"), ("identification", "id"),
    ("department", "dept", "dept."), ("subtotal", "sub-total", "sub total"), ("date of birth", "dob"), ("attention", "attn", "attn."),
    ("organisation", "organization", "org."), ("and", "&"), ("percent", "%"), ("address", "addr", "addr."), ("approximately", "approx."),
)  # fmt: skip
"""Spellings of a word that mean the same in a label."""
CELL_FRAMES = (
    "What is the {column} of {row}?", "What is the {column} for {row}?", "What is the {column} of \"{row}\"?", "{column} of {row}?",
    "In the row \"{row}\", what is the {column}?", "Which {column} does {row} have?", "What is in the column {column} for {row}?",
    "Look at {row}: what is its {column}?", "What {column} is listed for {row}?", "{row}: {column}?", "What {column} does the table give for {row}?",
    "How about the {column} of the {row}?", "For {row}, what is the {column}?", "Find {row} in the table. What is its {column}?",
)  # fmt: skip
CHECK_FRAMES = (
    "Is {label} checked?", "Is the box \"{label}\" ticked?", "Is {label} selected?", "Is the box for {label} marked?",
    "Has {label} been ticked?", "Was {label} chosen?", "Did they check {label}?", "Is there a mark next to {label}?", "Is the {label} box crossed?",
    "Is {label} ticked?", "Is {label} marked with a cross?", "Does {label} have a tick?", "Has the box {label} been crossed?", "Was {label} marked?",
    "Is there a cross at {label}?", "Has someone selected {label}?", "Does the box next to {label} have a mark?", "Was {label} selected?",
    "Does it say yes to {label}?",
)  # fmt: skip
PRESENCE_FRAMES = (
    "Does the page give the {label}?", "Is there a {label} on the page?", "Does the document state the {label}?", "Is the {label} given?",
    "Is a {label} mentioned?", "Does it say what the {label} is?", "Can the {label} be found here?", "Is there any {label}?", "Can I see the {label} here?",
    "Is {label} shown on the page?", "Does this document contain a {label}?", "Does it mention the {label}?", "Do they state the {label}?",
    "Has the {label} been entered?", "Are there details of the {label}?", "Was the {label} given?", "Did they write down the {label}?",
    "Will I find the {label} on this page?", "Does the form have the {label}?", "Is the {label} on it?",
    "Would one find the {label} in this document?", "Does {label} appear?", "Can anybody find a {label} on this page?",
)  # fmt: skip
REVERSE_FRAMES = (
    "What is {value}?", "Which label has the value {value}?", "What does \"{value}\" stand for?", "Which field contains {value}?",
)  # fmt: skip
CONTINUE_FRAMES = ("Continue: {start}", 'How does the line that starts with "{start}" go on?', "Continue this line: {start}")
COUNT_FRAMES = (
    "How many rows does the table have?",
    "How many items are listed?",
    "How many entries are in the table?",
    "How many lines are in the list?",
)
TICKED_FRAMES = (
    "How many boxes are checked?",
    "How many of the boxes are ticked?",
    "How many options were chosen?",
    "How many boxes are marked?",
)
COMPARE_FRAMES = (
    "Which is {word}, {first} or {second}?", "Which one is {word}: the {first} or the {second}?", "Of {first} and {second}, which is {word}?",
    "{first} or {second}: which is {word}?",
)  # fmt: skip
IS_IT_FRAMES = (
    "Is the {first} {word} than the {second}?",
    "Is {first} {word} than {second}?",
    "Would you say that the {first} is {word} than the {second}?",
    "Is the value of {first} {word} than that of {second}?",
    "Is it true that {first} is {word} than {second}?",
)
LAST_FRAMES = ("What is the {title} in the last row?", "What is the last {title} in the table?", "Which {title} is last?")
FIRST_FRAMES = ("What is the {title} in the first row?", "What is the first {title} in the table?")


def _frames(frames: tuple[str, ...], split: Split) -> tuple[str, ...]:
    chosen = tuple(f for f in frames if is_held_out(f) == (split == "held-out"))
    # A family of frames that is wholly on one side is asked with its first one on both: what is held out is a wording, not
    # a task.
    return chosen or frames[:1]


class Asker:
    """Draws questions about a page.

    Args:
        page: a finished page.
        rng: source of all choices.
        split: which question templates may be used.
    """

    def __init__(self, page: Page, rng: random.Random, split: Split) -> None:
        self.page, self.rng, self.split = page, rng, split
        self.words = Words(rng, split)
        asked = {fact.question for fact in page.facts}
        self.implied = ({"supplier", "employer", "bank", "venue"} if asked.intersection(SENDER_QUESTIONS) else set()) | (
            {"signed by", "contact"} if asked.intersection(SIGNER_QUESTIONS) else set()
        )
        """Fields that somebody might see in a letterhead or a signature."""
        self.tasks: dict[str, tuple[float, Callable[[], Question | None]]] = {
            "field": (25, self.field),
            "cell": (15, self.cell),
            "fact": (10, self.fact),
            "reverse": (4, self.reverse),
            "compare": (6, self.compare),
            "check": (8, self.check),
            "presence": (8, self.presence),
            "count": (3, self.count),
            "choice": (4, self.choice),
            "continue": (3, self.continue_line),
            "not-found": (16, self.not_found),
        }

    def ask(self, tasks: dict[str, float] | None = None) -> Question | None:
        """One question; None if the page has nothing for the task drawn.

        Args:
            tasks: weights of tasks, where the default mix is not wanted.
        """
        weights = tasks or {name: weight for name, (weight, _) in self.tasks.items()}
        name = self.rng.choices(list(weights), list(weights.values()))[0]
        question = self.tasks[name][1]()
        return question if question and question.answer.strip() else None

    def _spoken(self, label: str) -> str:
        """A printed label as a person would write it in a question."""
        label = label.rstrip(" :.").lstrip()
        if self.rng.random() < 0.15:
            other = self._respelled(label)
            if not any(other.lower() == f.label.lower().rstrip(" :.") for f in self.page.fields):
                label = other
        draw = self.rng.random()
        if draw < 0.4:
            return label
        if draw < 0.85 or label.isupper():
            return label.lower() if any(c.islower() for c in label) or self.rng.random() < 0.6 else label
        return label.title()

    def _respelled(self, label: str) -> str:
        """A label with one of its words abbreviated or written out, in the plural or the singular, or without its points."""
        for spellings in self.rng.sample(SHORT, len(SHORT)):
            for spelling in spellings:
                found = re.search(rf"(?<![\w.]){re.escape(spelling)}(?![\w.])", label, re.IGNORECASE)
                if found and len(label) > len(spelling):
                    other = self.rng.choice([s for s in spellings if s != spelling])
                    return label[: found.start()] + other + label[found.end() :]
        if "." in label:
            return label.replace(".", "")
        if len(label) > 4 and label[-1].isalpha() and label[-1].islower():
            return label.removesuffix("s") if label.endswith("s") else label + "s"
        return label

    def _frame(self, frames: tuple[str, ...], sort: str = "") -> str:
        """One of `frames`; in training mostly one of the many of that sort."""
        frames = _frames(frames, self.split)
        if self.split == "held-out":
            return self.rng.choice(frames)
        if sort and self.rng.random() < VARIED_SHARE:
            return self.rng.choice(self.rng.choice(VARIED[sort]))
        frame = self.rng.choice(frames)
        return dressed(frame, self.rng) if self.rng.random() < DRESSED_SHARE else frame

    def _ask_for(self, label: str, kind: str) -> str:
        special = FRAMES_BY_KIND.get(kind)
        frames, sort = (special, kind) if special and self.rng.random() < 0.25 else (FRAMES, "field")
        return self._frame(frames, sort).format(label=self._spoken(label))

    def _plain_fields(self) -> list[Field]:
        return [f for f in self.page.fields if not f.row and f.value and self._once(f.label)]

    def _once(self, label: str) -> bool:
        """Whether only one field has this label, so that the question has one answer."""
        return sum(f.label.lower() == label.lower() for f in self.page.fields) == 1

    def field(self) -> Question | None:
        """The value of a field, asked by its label as printed or by another of its spellings."""
        fields = self._plain_fields()
        if not fields:
            return None
        f = self.rng.choice(fields)
        label = f.label
        if f.name and self.rng.random() < 0.45 and not self._has_other(f):
            if self.rng.random() < 0.4 and f.name in ASKED and not self._close(f.name):
                return Question("field", self._frame(ASKED[f.name]), f.value, f.value_spans, f.label_spans)
            label = self.rng.choice(FIELDS[f.name][1])
        return Question("field", self._ask_for(label, f.kind), f.value, f.value_spans, f.label_spans)

    def _has_other(self, f: Field) -> bool:
        """Whether another field could be meant by one of this field's spellings."""
        spellings = {s.lower() for s in FIELDS[f.name][1]}
        return any(
            other is not f and (other.name == f.name or other.label.lower() in spellings) for other in self.page.fields
        )

    def cell(self) -> Question | None:
        """A cell of a table, by row and column."""
        cells = [f for f in self.page.fields if f.row and f.value]
        if not cells:
            return None
        f = self.rng.choice(cells)
        if sum(o.row.lower() == f.row.lower() and o.label.lower() == f.label.lower() for o in cells) > 1:
            return None
        text = self._frame(CELL_FRAMES, "cell").format(
            column=self._spoken(f.label), row=f.row if self.rng.random() < 0.7 else f.row.lower()
        )
        return Question("cell", text, f.value, f.value_spans, f.label_spans)

    def fact(self) -> Question | None:
        """Something that a sentence says."""
        if not self.page.facts:
            return None
        fact = self.rng.choice(self.page.facts)
        return Question("fact", fact.question, fact.answer, fact.spans)

    def reverse(self) -> Question | None:
        """The label of a value."""
        fields = [f for f in self._plain_fields() if len(f.value) > 2 and len(f.value_spans) == 1]
        fields = [f for f in fields if sum(o.value == f.value for o in self.page.fields) == 1]
        if not fields:
            return None
        f = self.rng.choice(fields)
        return Question(
            "reverse", self._frame(REVERSE_FRAMES, "reverse").format(value=f.value), f.label, f.label_spans, f.value_spans
        )

    def compare(self) -> Question | None:
        """Two fields that lie apart: which is larger, or are they the same."""
        fields = [f for f in self._plain_fields() if f.kind in ("amount", "number") and _number(f.value) is not None]
        if len(fields) < 2:
            return None
        a, b = self.rng.sample(fields, 2)
        low, high = sorted((a, b), key=lambda f: _number(f.value) or 0.0)
        if _number(low.value) == _number(high.value):
            return None
        word, best = self.rng.choice((("higher", high), ("larger", high), ("lower", low), ("smaller", low)))
        spans = a.value_spans + b.value_spans + (a if best is b else b).label_spans
        first, second = a.label.rstrip(" :."), b.label.rstrip(" :.")
        if self.rng.random() < 0.5:
            text = self._frame(COMPARE_FRAMES, "compare").format(word=word, first=first, second=second)
            return Question("compare", text, best.label, best.label_spans, spans)
        yes = "yes" if best is a else "no"
        evidence = a.value_spans + b.value_spans
        return Question(
            "compare",
            self._frame(IS_IT_FRAMES, "is it").format(word=word, first=first, second=second),
            yes,
            evidence,
            a.label_spans + b.label_spans,
            copied=False,
        )

    def check(self) -> Question | None:
        """Whether a box is checked."""
        if not self.page.checks:
            return None
        c = self.rng.choice(self.page.checks)
        text = self._frame(CHECK_FRAMES, "check").format(label=self._spoken(c.label))
        return Question("check", text, "yes" if c.checked else "no", (c.mark_span,), (c.label_span,), copied=False)

    def presence(self) -> Question | None:
        """Whether the page has a field at all."""
        fields = self._plain_fields()
        if fields and self.rng.random() < 0.5:
            f = self.rng.choice(fields)
            text = self._frame(PRESENCE_FRAMES, "presence").format(label=self._spoken(f.label))
            return Question("presence", text, "yes", f.label_spans, f.value_spans, copied=False)
        label = self._absent()[0]
        return Question(
            "presence", self._frame(PRESENCE_FRAMES, "presence").format(label=self._spoken(label)), "no", copied=False
        )

    def count(self) -> Question | None:
        """Rows of a table, its first or its last row; or boxes that are checked."""
        checks = self.page.checks
        if checks and (not self.page.tables or self.rng.random() < 0.2):
            marks = tuple(c.mark_span for c in checks)
            ticked = str(sum(c.checked for c in checks))
            return Question("count", self._frame(TICKED_FRAMES), ticked, marks, copied=False)
        if not self.page.tables:
            return None
        table = self.rng.choice(self.page.tables)
        if len(self.page.tables) > 1 or not table.rows:
            return None
        draw = self.rng.random()
        if draw < 0.4:
            return Question("count", self._frame(COUNT_FRAMES), str(len(table.rows)), table.spans, copied=False)
        frames, index = (FIRST_FRAMES, 0) if draw < 0.7 else (LAST_FRAMES, -1)
        text = self._frame(frames).format(title=table.columns[0].lower())
        return Question("count", text, table.rows[index], (table.spans[index],))

    def choice(self) -> Question | None:
        """A field with its value among false ones."""
        question = self.field()
        if question is None or len(question.answer) > 30:
            return None
        kind = next(f.kind for f in self.page.fields if f.value_spans == question.evidence)
        others = {f.value for f in self.page.fields if f.kind == kind} | {self.words.value(kind) for _ in range(3)}
        others.discard(question.answer)
        options = self.rng.sample(sorted(others), min(len(others), self.rng.randint(2, 3)))
        place = self.rng.randint(0, len(options))
        options.insert(place, question.answer)
        return replace(question, task="choice", answer="ABCDEF"[place], copied=False, options=tuple(options))

    def continue_line(self) -> Question | None:
        """The rest of a line, from its first characters."""
        runs = [run for run in self.page.runs if len(run.text) > 7 and any(c.isalnum() for c in run.text)]
        if not runs:
            return None
        run = self.rng.choice(runs)
        cut = self.rng.randint(3, min(12, len(run.text) - 3))
        start = run.text[:cut]
        if sum(start in other.text for other in self.page.runs) > 1:
            return None
        rest = run.text[cut : cut + 40]
        span = (run.span[0] + cut, run.span[0] + cut + len(rest))
        return Question(
            "continue", self._frame(CONTINUE_FRAMES).format(start=start), rest, (span,), ((run.span[0], run.span[0] + cut),)
        )

    def _absent(self) -> tuple[str, str]:
        """A label that the page does not have, and its kind; half the time one that looks like one that it has."""
        present = {f.label.lower().rstrip(" :.") for f in self.page.fields} | {f.name for f in self.page.fields}
        for _ in range(30):
            # The other pages of a document are asked for its labels, too: known ones and others.
            if self.split == "train" and self.rng.random() < UNKNOWN_SHARE:
                label = self.words.label()
                if label.lower() not in present:
                    return label, self.rng.choice(KINDS)
            draw = self.rng.random()
            if draw < 0.35 and self.page.fields:
                # A known field of a kind that occurs with another meaning: "delivery date" where there is an invoice date.
                kinds = {f.kind for f in self.page.fields}
                name = self.rng.choice([n for n, (kind, _) in FIELDS.items() if kind in kinds] or list(FIELDS))
                kind, spellings = FIELDS[name]
                if (
                    name not in present
                    and not present & {s.lower().rstrip(" :.") for s in spellings}
                    and not self._close(name)
                ):
                    return self.rng.choice(spellings), kind
            elif draw < 0.6 and self.page.fields:
                f = self.rng.choice(self.page.fields)
                parts = f.label.split(" ")
                if len(parts) > 1 and not f.name:
                    parts[self.rng.randrange(len(parts))] = self.words.word()
                    label = " ".join(parts)
                    if label.lower() not in present:
                        return label, f.kind
            elif draw < 0.85:
                name = self.rng.choice(list(FIELDS))
                kind, spellings = FIELDS[name]
                if (
                    name not in present
                    and not present & {s.lower().rstrip(" :.") for s in spellings}
                    and not self._close(name)
                ):
                    return self.rng.choice(spellings), kind
            else:
                label = " ".join(self.words.word() for _ in range(self.rng.randint(1, 2)))
                if label not in present:
                    return label, "phrase"
        return self.words.pseudo_word(), "code"

    def _close(self, name: str) -> bool:
        """Whether a field on the page might be taken for `name` by a person as well."""
        alike = {
            "date": {"invoice date", "order date", "start date", "delivery date", "time"},
            "total": {"subtotal", "premium", "rent", "deposit", "closing balance", "net pay"},
            "name": {"customer", "patient", "account holder", "employer", "contact", "signed by"},
            "end date": {"due date"},
            "start date": {"departure"},
            "venue": {"city", "address"},
        }
        if name in self.implied or (name in ("customer", "name") and self._addressed()):
            return True
        on_page = {f.name for f in self.page.fields}
        return any((name == a and on_page & b) or (name in b and a in on_page) for a, b in alike.items())

    def _addressed(self) -> bool:
        return any(f.label.lower() in ("recipient", "ship to", "bill to", "sold to") for f in self.page.fields)

    def not_found(self) -> Question | None:
        """A field, a cell or a fact that the page does not have."""
        cells = [f for f in self.page.fields if f.row]
        draw = self.rng.random()
        if cells and draw < 0.2:
            f = self.rng.choice(cells)
            row = self.words.phrase()
            if row.lower() not in {c.row.lower() for c in cells}:
                text = self._frame(CELL_FRAMES, "cell").format(column=self._spoken(f.label), row=row)
                return Question("not-found", text, NOT_FOUND, copied=False)
        if draw < 0.32 and (text := self._absent_fact()):
            return Question("not-found", text, NOT_FOUND, copied=False)
        if draw < 0.42 and (text := self._absent_asked()):
            return Question("not-found", text, NOT_FOUND, copied=False)
        label, kind = self._absent()
        return Question("not-found", self._ask_for(label, kind), NOT_FOUND, copied=False)

    def _absent_fact(self) -> str:
        """A question that a sentence would answer which is not on the page; none of its words names anything there."""
        _, questions = self.rng.choice([s for s in SENTENCES if is_held_out(s[0]) == (self.split == "held-out")])
        text, _ = self.rng.choice(questions)
        return "" if _content(text) & self._told() else text

    def _absent_asked(self) -> str:
        """What people ask about a field that the page does not have."""
        name = self.rng.choice(list(ASKED))
        text = self._frame(ASKED[name])
        spellings = _content(" ".join((name, *FIELDS[name][1])))
        return "" if (_content(text) | spellings) & self._told() or self._close(name) else text

    def _told(self) -> set[str]:
        """The words of labels, and of the questions that sentences answer."""
        labels = [" ".join((f.label, f.name, *(FIELDS[f.name][1] if f.name else ()))) for f in self.page.fields]
        return _content(" ".join([*labels, *(fact.question for fact in self.page.facts)]))


def _content(text: str) -> set[str]:
    """Words that carry meaning, as their first four letters, so that "ships", "shipped" and "shipping" are one."""
    return {word[:4] for word in re.findall("[a-z]{3,}", text.lower())} - FUNCTION_WORDS


def _number(text: str) -> float | None:
    """The number in a value, if it can be told: a comma or point before the last two digits is the decimal sign."""
    digits = "".join(c for c in text if c.isdigit() or c in ".,")
    if not any(c.isdigit() for c in digits):
        return None
    if len(digits) > 3 and digits[-3] in ".,":
        whole, cents = digits[:-3], digits[-2:]
    else:
        whole, cents = digits, "0"
    whole = whole.replace(".", "").replace(",", "")
    return float(f"{whole or 0}.{cents}")
