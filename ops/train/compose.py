# The rows of the tables below are data, one a line.
# ruff: noqa: E501
"""Composes documents: a flow of blocks (fields, tables, prose, check boxes) in columns, in many structures.

What carries over to other people's documents is variety of structure, so each block draws its own arrangement: label left,
above, in a frame or in a header cell; colon or none; dotted leaders; right-aligned values; two fields in a line; wrapped
values.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ops.train.document import (
    PX_PER_PT,
    Check,
    Fact,
    Field,
    Page,
    Shape,
    Span,
    Stamp,
    Stroke,
    Style,
    Table,
    strike,
    text_width,
    wrap,
)
from ops.train.faces import Split, choose_family, face, families, is_held_out
from ops.train.words import FIELDS, KINDS, Words

A4 = (1654, 2339)
LETTER = (1700, 2200)

FIELD_LAYOUTS = ("inline", "columns", "right", "leaders", "above", "framed", "pairs", "below", "grid", "blanks", "captions")
TABLE_LAYOUTS = ("plain", "ruled", "grid", "striped", "header-only", "booktabs", "open")
HEADERS = ("title", "badge", "letterhead", "beside", "banner", "ruled", "folio")
CLOSINGS = ("nothing", "signature", "line", "signed")
"""Arrangements. Those that `is_held_out`, with their sort before them, are only in held-out pages, beside all others."""
LOOSE_SHARE = 0.35
"""Of training pages' blocks of fields, and of their tables: those whose distances and rules are anyone's, so that no arrangement
is learned by heart."""
OVER_SHARE = 0.25
"""Of those blocks of fields: with labels beneath their values. Held-out "captions" part the two by a line, these never."""
SMALL_PAPER = {
    "receipt": ((630, 4000), (630, 4000), (450, 4000)),
    "ticket": ((1181, 827), (827, 1165), (1575, 640)),
    "label": ((800, 1200), (1200, 800), (827, 1165)),
    "parking permit": ((1181, 827),),
    "membership card": ((1020, 640),),
}
"""Kinds that are printed on small paper half of the time; a height of 4000 is a roll that is cut below the text."""

DOCUMENTS: dict[str, tuple[str, ...]] = {
    # kind: fields that belong there; blocks are drawn at random
    "invoice": ("invoice number", "invoice date", "due date", "order number", "customer number", "customer", "total", "subtotal", "tax", "tax rate", "discount", "shipping", "payment terms", "vat number", "iban", "bic", "reference", "delivery date"),
    "receipt": ("date", "time", "total", "subtotal", "tax", "payment method", "cashier", "reference", "quantity", "discount"),
    "form": ("name", "first name", "date of birth", "place of birth", "address", "city", "country", "phone", "email", "occupation", "employer", "date", "signed by"),
    "letter": ("date", "reference", "contact", "phone", "email", "customer number", "policy number"),
    "statement": ("account holder", "iban", "bic", "bank", "opening balance", "closing balance", "date", "interest rate", "customer number"),
    "certificate": ("name", "date of birth", "course", "grade", "date", "signed by", "reference", "start date", "end date"),
    "ticket": ("name", "flight", "seat", "gate", "departure", "arrival", "date", "venue", "reference", "total"),
    "label": ("tracking number", "weight", "name", "address", "city", "country", "order number", "serial number", "end date"),
    "contract": ("start date", "end date", "rent", "deposit", "name", "address", "policy number", "premium", "signed by", "date"),
    "payslip": ("name", "employer", "department", "salary", "net pay", "tax", "date", "iban", "occupation"),
    "delivery note": ("order number", "order date", "delivery date", "customer", "address", "city", "tracking number", "quantity", "weight", "supplier"),
    "medical report": ("patient", "date of birth", "doctor", "diagnosis", "dose", "date", "reference", "phone"),
    "utility bill": ("customer number", "meter reading", "consumption", "total", "due date", "address", "start date", "end date", "tax"),
    "quotation": ("reference", "date", "customer", "contact", "total", "subtotal", "discount", "end date", "project", "payment terms", "supplier"),
    "data sheet": ("model", "serial number", "weight", "quantity", "country", "supplier", "date"),
    "purchase order": ("order number", "order date", "supplier", "delivery date", "payment terms", "shipping", "subtotal", "tax", "total", "contact"),
    "timesheet": ("name", "department", "start date", "end date", "project", "signed by", "quantity"),
    "credit note": ("reference", "date", "invoice number", "customer", "customer number", "subtotal", "tax", "total"),
    "reminder": ("invoice number", "invoice date", "due date", "customer number", "total", "iban", "bic", "contact"),
    "order confirmation": ("order number", "order date", "customer", "delivery date", "payment method", "shipping", "tax", "total"),
    "remittance advice": ("date", "supplier", "account holder", "iban", "bic", "bank", "reference", "total"),
    "expense claim": ("name", "department", "date", "project", "total", "signed by", "iban"),
    "repair order": ("order number", "date", "customer", "phone", "model", "serial number", "total", "signed by"),
    "insurance card": ("policy number", "name", "date of birth", "start date", "end date", "premium", "phone"),
    "membership card": ("name", "customer number", "start date", "end date"),
    "parking permit": ("reference", "name", "start date", "end date", "venue", "total"),
    "loan agreement": ("account holder", "interest rate", "start date", "end date", "total", "bank", "iban", "signed by"),
    "school report": ("name", "date of birth", "course", "grade", "date", "signed by"),
    "prescription": ("patient", "date of birth", "doctor", "dose", "date", "quantity", "phone"),
    "admission form": ("patient", "first name", "date of birth", "address", "city", "phone", "contact", "date", "signed by"),
    "job sheet": ("order number", "date", "customer", "address", "phone", "start date", "end date", "signed by"),
    "rental agreement": ("name", "address", "rent", "deposit", "start date", "end date", "iban", "signed by"),
    "cash voucher": ("reference", "date", "name", "total", "project", "cashier", "signed by"),
    "tax return": ("name", "date of birth", "address", "tax", "salary", "employer", "iban", "reference"),
    "price list": ("date", "start date", "contact", "phone", "email"),
}  # fmt: skip
"""Document kinds. Those whose name `is_held_out` are never trained on."""

COLUMN_TITLES: dict[str, tuple[str, ...]] = {
    "position": ("Pos.", "No.", "#", "Line", "Nr."),
    "phrase": ("Description", "Item", "Product", "Article", "Service", "Task", "Name"),
    "code": ("Code", "SKU", "Art. no.", "Ref.", "Number", "ID"),
    "number": ("Qty", "Quantity", "Units", "Pcs", "Count", "Stock"),
    "amount": ("Price", "Unit price", "Amount", "Total", "Cost", "Sum", "Debit", "Credit", "Balance", "Net", "Gross"),
    "date": ("Date", "Due", "Delivered", "Booked", "Start", "End"),
    "percent": ("Tax", "VAT", "Share", "Discount", "Rate"),
    "person": ("Name", "Employee", "Responsible", "Contact"),
    "city": ("City", "Place", "Branch"),
    "time": ("Time", "Departure", "Arrival", "Start", "End"),
    "quantity": ("Weight", "Size", "Length", "Volume"),
}  # fmt: skip

SENTENCES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("The monthly rent of {amount} is payable to {person} from {date}.", (("How much is the monthly rent?", "amount"), ("To whom is the rent payable?", "person"), ("From when is the rent payable?", "date"))),
    ("We received your payment of {amount} on {date}.", (("How much was paid?", "amount"), ("When was the payment received?", "date"), ("What amount was received?", "amount"))),
    ("Please contact {person} at {phone} if you have any questions.", (("Who should be contacted with questions?", "person"), ("Which number should be called?", "phone"))),
    ("This agreement is made between {company} and {person}.", (("Which company is party to the agreement?", "company"), ("Who is the other party to the agreement?", "person"))),
    ("The goods will be delivered to {city} on {date}.", (("Where will the goods be delivered?", "city"), ("When will the goods be delivered?", "date"))),
    ("The meeting takes place in {city} at {time}.", (("Where does the meeting take place?", "city"), ("At what time is the meeting?", "time"))),
    ("A deposit of {amount} is due on signing.", (("How much is the deposit?", "amount"), ("What deposit is due on signing?", "amount"))),
    ("{person} has worked for {company} since {date}.", (("Who has worked for the company?", "person"), ("Since when has the person worked there?", "date"), ("Which company does the letter name as employer?", "company"))),
    ("Your order {code} was shipped on {date}.", (("Which order was shipped?", "code"), ("When was the order shipped?", "date"))),
    ("Interest of {percent} is charged on late payments.", (("What interest is charged on late payments?", "percent"),)),
    ("We are pleased to offer {person} the position of {job}.", (("Who is offered the position?", "person"), ("Which position is offered?", "job"))),
    ("The warranty ends on {date}.", (("When does the warranty end?", "date"), ("Until when is the warranty valid?", "date"))),
    ("Your new password is {random_text}.", (("What is the new password?", "random_text"),)),
    ("The patient was examined by {person} in {city}.", (("Who examined the patient?", "person"), ("Where was the patient examined?", "city"))),
    ("Our office in {city} is open until {time}.", (("Until what time is the office open?", "time"), ("In which city is the office?", "city"))),
    ("The invoice {code} over {amount} is still unpaid.", (("Which invoice is unpaid?", "code"), ("How much is still unpaid?", "amount"))),
    ("Notice must be given before {date}.", (("Before which date must notice be given?", "date"),)),
    ("The machine weighs {quantity} and was built in {country}.", (("How much does the machine weigh?", "quantity"), ("Where was the machine built?", "country"))),
    ("Send the signed form to {email}.", (("Where should the form be sent?", "email"),)),
    ("A fee of {amount} applies to each cancelled booking.", (("What fee applies to a cancelled booking?", "amount"),)),
    ("The lecture by {person} starts at {time}.", (("Who gives the lecture?", "person"), ("When does the lecture start?", "time"))),
    ("All prices include {percent} tax.", (("What share of tax do the prices include?", "percent"),)),
    ("The contract was signed by {person} on {date}.", (("Who signed the contract?", "person"), ("When was the contract signed?", "date"))),
    ("Please quote {code} in all letters.", (("Which reference should be quoted?", "code"),)),
    ("The room costs {amount} per night.", (("How much is the room per night?", "amount"),)),
    ("The train to {city} leaves at {time}.", (("When does the train leave?", "time"), ("Where does the train go?", "city"))),
    ("Sales grew by {percent} in {city}.", (("By how much did sales grow?", "percent"), ("Where did sales grow?", "city"))),
    ("The parcel for {person} contains {number} items.", (("For whom is the parcel?", "person"), ("How many items does the parcel contain?", "number"))),
)  # fmt: skip
"""Patterns of prose with the questions that each answers; those whose text `is_held_out` are never trained on."""

SENDER_QUESTIONS = (
    "Who sent this?", "Which company issued this document?", "What is the name of the company?", "Who is the sender?",
    "Which company is named at the top of the page?", "Who issued the document?", "Whose letterhead is this?", "What company is this from?",
)  # fmt: skip
SIGNER_QUESTIONS = (
    "Who signed?", "Who signed this document?", "Whose signature is on the page?", "What is the name below the signature?", "By whom was it signed?",
)  # fmt: skip
REGARDS = (
    "Yours sincerely",
    "Yours faithfully",
    "Kind regards",
    "Best regards",
    "With best wishes",
    "Respectfully",
    "Regards",
)
STAMPS = ("PAID", "COPY", "RECEIVED", "APPROVED", "VOID", "URGENT", "DRAFT", "ORIGINAL", "CERTIFIED", "CONFIDENTIAL")


def allowed(sort: str, names: tuple[str, ...], split: Split) -> tuple[str, ...]:
    """The arrangements or wordings of a sort that pages of a split may use."""
    return tuple(name for name in names if split == "held-out" or not is_held_out(f"{sort}/{name}"))


@dataclass(frozen=True)
class Difficulty:
    """How rich the pages of a stage are.

    Attributes:
        variety: entries of each word table in use; None is all.
        recurring: share of values that are words from the table instead of typed values.
        blocks: least and most blocks on a page.
        width_px: least and most page width; None is whole paper.
        height_px: least page height of those; they end with their text where that is longer.
        layouts: arrangements of fields in use.
        tables: whether tables, prose and check boxes appear.
    """

    variety: int | None = None
    recurring: float = 0.0
    blocks: tuple[int, int] = (4, 9)
    width_px: tuple[int, int] | None = None
    height_px: int = 0
    layouts: tuple[str, ...] = FIELD_LAYOUTS
    tables: bool = True


FULL = Difficulty()
SHEET = Difficulty(blocks=(14, 24), width_px=(2339, 2339), height_px=3307)
"""A3: twice as large as A4, with print of the same size."""


class Composer:
    """Fills one page.

    Args:
        rng: source of all choices.
        split: which faces, words and templates may be used.
        difficulty: how rich the page is.
    """

    def __init__(self, rng: random.Random, split: Split, difficulty: Difficulty = FULL) -> None:
        self.rng = rng
        self.split = split
        self.difficulty = difficulty
        self.words = Words(rng, split, difficulty.variety)
        self.kind = rng.choice([kind for kind in DOCUMENTS if is_held_out(kind) == (split == "held-out")])
        self.used: set[str] = set()
        paths = families(split)[choose_family(rng, split)]
        size = rng.choice((7, 8, 8.5, 9, 9, 9.5, 10, 10, 10, 10.5, 11, 11, 12)) * PX_PER_PT
        if difficulty.width_px and rng.random() < 0.15:
            size *= rng.uniform(1.0, 1.6)
        grey = rng.choice((0, 0, 0, 0, 20, 40, 70, 90))
        self.body = Style(face(paths[0]), size, grey=grey)
        bold = face(paths[1] if len(paths) > 1 else paths[0])
        self.bold = replace(self.body, face=bold)
        other = families(split)[choose_family(rng, split)]
        self.heading = (
            replace(self.bold, size_px=size * rng.uniform(1.2, 2.2))
            if rng.random() < 0.7
            else Style(face(other[0]), size * rng.uniform(1.2, 2.2))
        )
        self.label = rng.choice(
            (
                self.body,
                self.body,
                self.bold,
                replace(self.body, grey=min(110, grey + 60)),
                replace(self.body, size_px=size * 0.85),
            )
        )
        self.value = rng.choice((self.body, self.body, self.bold)) if self.label is not self.bold else self.body
        if rng.random() < 0.08:
            self.value = Style(face(rng.choice(families(split)[choose_family(rng, split)])), size)
        self.leading = size * rng.uniform(1.12, 1.7)
        self.colon = rng.choice((":", ":", ":", ":", "", "", "", " :", "."))
        # Most documents write their dates and sums in one way.
        if rng.random() < 0.6:
            self.words.formats.update({kind: rng.random() for kind in ("date", "amount", "percent", "time")})

    # -- the page
    # -------------------------------------------------------------------------------------------------------------

    def compose(self) -> Page:
        """Write the blocks from top to bottom; the page of a narrow stage, and a roll, ends with its text."""
        rng, difficulty = self.rng, self.difficulty
        narrow = difficulty.width_px is not None
        if difficulty.width_px:
            width, height = rng.randint(*difficulty.width_px), 4000
            margin = rng.uniform(4, 40)
        elif self.kind in SMALL_PAPER and rng.random() < 0.5:
            width, height = rng.choice(SMALL_PAPER[self.kind])
            margin = rng.uniform(20, 60)
        else:
            width, height = rng.choice((A4, A4, A4, LETTER))
            margin = rng.uniform(70, 200) if rng.random() < 0.6 else rng.uniform(150, 330)
        roll = height == 4000
        self.page = Page(width, height)
        self.bottom = height - margin - 60
        self.y = margin + rng.uniform(0, 20)
        n_blocks = rng.randint(*difficulty.blocks)
        if not narrow and rng.random() < 0.35:
            # Much of what people print ends above the middle of the sheet.
            n_blocks = rng.randint(1, 3)
        if not narrow:
            self._header(margin, width - margin)
            if rng.random() < 0.6:
                self._opening(margin, width - margin)
        written = 0
        while written < n_blocks and self.y < self.bottom - 6 * self.leading:
            if width > 1200 and rng.random() < 0.3:
                self._two_columns(margin, width - margin)
                written += 1
            else:
                self._block(margin, width - margin)
            written += 1
            self.y += self.leading * rng.uniform(0.3, 1.5)
        if not narrow and self.y < self.bottom - 8 * self.leading:
            self._closing(margin, width - margin)
        if roll:
            self.page.height = max(int(self.y + margin), difficulty.height_px)
        elif not narrow:
            self._footer(margin, width - margin, height)
        if not narrow:
            self._marks()
        if rng.random() < 0.1:
            self.page.paper = rng.randint(225, 250)
        if not self.page.runs:
            self._prose(margin, width - margin)
        return self.page.finish()

    def _block(self, x0: float, x1: float) -> None:
        blocks: list[tuple[Callable[[float, float], None], float]] = [(self._fields, 5.0)]
        if self.difficulty.tables:
            blocks += [(self._prose, 1.2), (self._checks, 0.8), (self._address, 0.8), (self._title, 0.7)]
            if "sender" not in self.used:
                blocks.append((self._sender, 0.4))
            if x1 - x0 > 420:
                blocks.append((self._table, 2.5))
        block = self.rng.choices([b for b, _ in blocks], [w for _, w in blocks])[0]
        block(x0, x1)

    def _two_columns(self, x0: float, x1: float) -> None:
        rng = self.rng
        blocks: tuple[Callable[[float, float], None], ...]
        blocks = (self._fields, self._fields, self._address, self._prose, self._checks)
        if rng.random() < 0.15:
            blocks = (self._prose,) * 5
        sides: list[list[Callable[[float, float], None]]]
        sides = [[rng.choice(blocks) for _ in range(rng.randint(1, 2))] for _ in range(2)]
        self._beside(x0, x1, rng.uniform(0.4, 0.6), sides)

    def _beside(self, x0: float, x1: float, share: float, sides: list[list[Callable[[float, float], None]]]) -> None:
        """Blocks in a left and a right column, which begin at the same height."""
        middle, gap = x0 + (x1 - x0) * share, self.rng.uniform(20, 60)
        top, deepest = self.y, self.y
        for (left, right), blocks in zip(((x0, middle - gap / 2), (middle + gap / 2, x1)), sides, strict=True):
            self.y = top
            for block in blocks:
                if self.y < self.bottom - 6 * self.leading:
                    block(left, right)
                    self.y += self.leading * 0.6
            deepest = max(deepest, self.y)
        self.y = deepest

    def _header(self, x0: float, x1: float) -> None:
        """The sender and the title."""
        rng = self.rng
        layout = rng.choice(allowed("header", HEADERS, self.split))
        title = rng.choice((self.kind, self.kind, self.words.phrase()))
        title = rng.choice((title.upper(), title.capitalize(), title.title()))
        room = x1 - x0
        if text_width(title, self.heading) > room:
            title = title.split(" ")[0]
        if layout == "badge":
            self._badge(x0, x1)
        if layout in ("letterhead", "folio", "banner") and rng.random() < 0.8:
            self._sender(x0, x1, rng.choice((0.0, 0.0, 0.5, 1.0)))
        aligned = rng.choice((0.0, 0.0, 0.5, 1.0))
        if layout == "beside":
            top = self.y
            self._sender(x0, x1, 0.0)
            lowest, self.y, aligned = self.y, top, 1.0
            if text_width(title, self.heading) > room * 0.45:
                self.y = lowest
        self.y += self.heading.size_px
        x = x0 + aligned * max(0.0, room - text_width(title, self.heading))
        style = self.heading
        if layout == "banner":
            self.page.shapes.append(
                Shape((x0 - 12, self.y - style.size_px, x1 + 12, self.y + style.size_px * 0.4), rng.randint(0, 90), None)
            )
            style = replace(style, grey=255)
        self.page.write(title, style, x, self.y)
        if layout in ("ruled", "folio"):
            for offset in (0.35,) if layout == "ruled" else (0.35, -1.1):
                y = self.y + style.size_px * offset
                self.page.shapes.append(Shape((x0, y, x1, y + rng.randint(1, 4)), rng.choice((0, 80, 150)), None))
        if layout == "beside":
            self.y = max(self.y, lowest)
        self.y += self.leading * rng.uniform(0.8, 2)

    def _badge(self, x0: float, x1: float) -> None:
        """A logo, with the company's name beside it if it stands at the left."""
        rng = self.rng
        side = rng.uniform(60, 160)
        x = rng.choice((x0, x1 - side))
        for _ in range(rng.choice((1, 1, 2))):
            left, top = x + rng.uniform(0, 0.2) * side, self.y + rng.uniform(0, 0.2) * side
            box = (left, top, x + side, self.y + side * rng.uniform(0.6, 1))
            self.page.shapes.append(Shape(box, rng.choice((0, 90, 160, 200, 230)), None, 1, rng.random() < 0.4))
        if x == x0:
            self._name(self.words.company(), self.heading, x0 + side + 30, self.y + side * 0.5)
        self.y += side + 20

    def _name(self, company: str, style: Style, x: float, baseline: float) -> None:
        """The sender's name, and the question who sent this."""
        span = self.page.write(company, style, x, baseline)
        self.used.update(("supplier", "sender", "from", "employer", "vendor", "seller", "issued by"))
        question = self.rng.choice(allowed("wording", SENDER_QUESTIONS, self.split))
        self.page.facts.append(Fact(question, self.page.text(span).strip(), (span,)))

    def _sender(self, x0: float, x1: float, aligned: float = 0.0) -> None:
        """A company's name and address, aligned left (0), centred (0.5) or right (1)."""
        rng, words = self.rng, self.words
        lines = [words.company(), words.street(), words.town(), words.phone(), words.email()][
            : rng.choice((2, 3, 3, 3, 4, 5))
        ]
        name = rng.choice((self.body, self.bold, replace(self.bold, size_px=self.body.size_px * rng.uniform(1.1, 1.6))))
        for number, line in enumerate(lines):
            style = self.body if number else name
            self.y += max(self.leading, style.size_px * 1.1)
            x = x0 + aligned * max(0.0, x1 - x0 - text_width(line, style))
            if number:
                self.page.write(line, style, x, self.y)
            else:
                self._name(line, style, x, self.y)
        self.y += self.leading * rng.uniform(0.4, 1.6)

    def _opening(self, x0: float, x1: float) -> None:
        """What the document is about: the fields that belong to its kind, alone or beside an address."""
        names = tuple(name for name in DOCUMENTS[self.kind] if name not in self.used)[: self.rng.randint(2, 6)]

        def about(left: float, right: float) -> None:
            self._fields(left, right, names)

        draw = self.rng.random()
        if x1 - x0 < 900 or draw < 0.55:
            about(x0, x1)
        else:
            sides: list[list[Callable[[float, float], None]]] = [[self._address], [about]]
            self._beside(x0, x1, self.rng.uniform(0.45, 0.65), sides if draw < 0.85 else sides[::-1])
        self.y += self.leading * self.rng.uniform(0.5, 1.5)

    def _closing(self, x0: float, x1: float) -> None:
        """Who signed, on a line or below a greeting."""
        rng = self.rng
        layout = rng.choice(allowed("closing", CLOSINGS, self.split))
        if layout == "nothing" or rng.random() < 0.3 or "signed by" in self.used:
            return
        self.used.add("signed by")
        x = x0 + rng.choice((0.0, 0.0, 0.55)) * (x1 - x0)
        name = self.words.person()
        width = max(text_width(name, self.body), min(x1 - x, rng.uniform(250, 500)))
        if layout == "signature":
            self.y += self.leading * 1.5
            self.page.write(rng.choice(REGARDS) + rng.choice((",", "")), self.body, x, self.y)
        if layout == "signed":
            self.y += self.leading * 1.5
            self.page.write(rng.choice(FIELDS["signed by"][1]), self.label, x, self.y)
        self.y += self.leading * rng.uniform(2, 3)
        if rng.random() < 0.75:
            self._scribble(x, self.y, width)
        if layout != "signature":
            self.page.shapes.append(Shape((x, self.y + 4, x + width, self.y + 5), rng.choice((0, 100)), None))
        self.y += self.leading * 1.1
        span = self.page.write(name, self.body, x, self.y)
        question = rng.choice(allowed("wording", SIGNER_QUESTIONS, self.split))
        self.page.facts.append(Fact(question, self.page.text(span).strip(), (span,)))

    def _scribble(self, x: float, y: float, width: float) -> None:
        """Something like a signature."""
        rng = self.rng
        steps = rng.randint(25, 60)
        height, turns, slant = self.body.size_px * rng.uniform(0.5, 1.2), rng.uniform(3, 9), rng.uniform(0.1, 0.5)
        at = np.linspace(0, 1, steps)
        up = np.sin(at * turns * 6.28 + rng.uniform(0, 6)) * np.interp(at, (0, 0.2, 1), (1.5, 0.8, 0.3)) * height
        up += np.sin(at * turns * 15 + rng.uniform(0, 6)) * height * 0.25
        along = x + width * rng.uniform(0.4, 0.8) * at + slant * up + np.cos(at * turns * 6.28) * height * 0.5
        points = tuple(zip(along.tolist(), (y - height * 0.6 - up).tolist(), strict=True))
        self.page.strokes.append(Stroke(points, rng.choice((0, 30, 60, 90)), rng.randint(2, 5)))

    def _marks(self) -> None:
        """What others leave on the paper: a stamp, a note by hand, punch holes, a bar code."""
        rng, page = self.rng, self.page
        if rng.random() < 0.12:
            text = rng.choice((rng.choice(STAMPS), self.words.date(), self.words.word().upper()))
            style = replace(self.bold, size_px=self.body.size_px * rng.uniform(1.2, 2.6), grey=rng.randint(120, 200))
            centre = (page.width * rng.uniform(0.2, 0.8), min(self.y, page.height * 0.9) * rng.uniform(0.1, 1.0))
            page.stamps.append(Stamp(text, style, centre, rng.choice((-1, 1)) * rng.uniform(6, 35), rng.random() < 0.4))
        if rng.random() < 0.05:
            self._scribble(page.width * rng.uniform(0.1, 0.6), page.height * rng.uniform(0.1, 0.9), rng.uniform(100, 500))
        if rng.random() < 0.04 and page.height > 2000:
            grey = rng.choice((0, 40, 120, 200))
            for y in (page.height / 2 - 315, page.height / 2 + 315):
                page.shapes.append(Shape((30, y - 24, 78, y + 24), grey, None, 1, True))
        if rng.random() < (0.3 if self.kind in SMALL_PAPER else 0.02) and self.y + 120 < self.bottom:
            x, y = page.width * rng.uniform(0.1, 0.3), self.y + rng.uniform(10, 40)
            for _ in range(rng.randint(25, 50)):
                bar = rng.choice((2, 2, 4, 6))
                page.shapes.append(Shape((x, y, x + bar - 1, y + 60), 0, None))
                x += bar + rng.choice((2, 2, 4, 6))

    def _footer(self, x0: float, x1: float, height: float) -> None:
        if self.rng.random() < 0.5:
            return
        style = replace(self.body, size_px=self.rng.uniform(6, 8) * PX_PER_PT)
        y = height - self.rng.uniform(50, 90)
        x = x0
        while True:
            name, kind, label = self._new_label()
            text, value = f"{label}: ", self._new_value(kind)
            if x + text_width(text + value, style) > x1:
                return
            label_span = self.page.write(text, style, x, y)
            value_span = self.page.write(value, style, x + text_width(text, style), y)
            self._add(name, kind, ((label_span[0], label_span[0] + len(label)),), (value_span,))
            x += text_width(text + value, style) + self.rng.uniform(30, 60)

    # -- labels and values
    # ----------------------------------------------------------------------------------------------------

    def _new_label(self, wanted: str = "") -> tuple[str, str, str]:
        """Canonical name, kind of value and printed label of a new field.

        Args:
            wanted: its canonical name; without one, half are from the document's kind and half are open.
        """
        rng = self.rng
        for _ in range(20):
            if wanted or rng.random() < 0.5:
                pool = DOCUMENTS[self.kind] if rng.random() < 0.75 else tuple(FIELDS)
                name = wanted or rng.choice(pool)
                kind, spellings = FIELDS[name]
                label = strike(rng, spellings)
            else:
                name, kind = "", rng.choice(KINDS)
                label = strike(rng, (self.words.label(),))
            if label.lower() not in self.used and not (name and name in self.used):
                self.used.update((label.lower(), name))
                return name, kind, label
        label = self.words.pseudo_word().capitalize()
        return "", "random_text", label

    def _new_value(self, kind: str) -> str:
        if self.rng.random() < self.difficulty.recurring:
            return self.words.phrase()
        if self.rng.random() < 0.08:
            return self.words.random_text()
        return self.words.value(kind)

    def _add(self, name: str, kind: str, label_spans: tuple[Span, ...], value_spans: tuple[Span, ...]) -> None:
        """Record a field as it was printed (`spell` may have changed characters)."""
        label, value = (" ".join(self.page.text(span).strip() for span in spans) for spans in (label_spans, value_spans))
        self.page.fields.append(Field(name, kind, label, value, label_spans, value_spans))

    def _is_loose(self) -> bool:
        """Whether the next block of fields, or table, has no named arrangement."""
        return self.split == "train" and self.rng.random() < LOOSE_SHARE

    # -- blocks
    # ---------------------------------------------------------------------------------------------------------------

    def _fields(self, x0: float, x1: float, names: tuple[str, ...] = ()) -> None:
        """Labels with their values: those of `names`, or one to seven of any."""
        rng = self.rng
        layout = rng.choice(allowed("fields", self.difficulty.layouts, self.split))
        fields = [self._new_label(name) for name in names or [""] * rng.randint(1, 7)]
        pairs = [(name, kind, label, self._new_value(kind)) for name, kind, label in fields]
        if self._is_loose():
            loose = self._fields_over_labels if rng.random() < OVER_SHARE else self._loose_fields
            loose(x0, x1, pairs)
            return
        if layout in ("above", "grid", "framed", "captions"):
            self._field_cells(x0, x1, pairs, layout)
            return
        colon = self.colon
        label_widths = [text_width(label + colon, self.label) for _, _, label, _ in pairs]
        widest = max(label_widths)
        gap = text_width("n", self.body) * rng.uniform(1, 5)
        indent = rng.choice((0.0, 0.0, max(0.0, (x1 - x0) * 0.5 - widest))) if layout == "right" else 0.0
        tab = widest + gap
        if layout in ("columns", "leaders", "right", "blanks") and tab > (x1 - x0) * 0.6:
            layout = "below"
        if layout == "columns" and rng.random() < 0.35:
            tab = max(tab, (x1 - x0) * rng.uniform(0.2, 0.5))
        ragged = layout in ("columns", "blanks") and rng.random() < 0.15
        pitch = self.leading * rng.choice((1.0, 1.0, 1.0, 1.2, 1.5))
        dot = rng.choice((".", ".", " .", "_", "-")) if layout == "leaders" else "."
        x = x0 + indent
        for (name, kind, label, value), label_width in zip(pairs, label_widths, strict=True):
            self.y += pitch
            if self.y > self.bottom:
                return
            if layout == "pairs" and x > x0 and x + label_width + gap + text_width(value, self.value) < x1:
                self.y -= pitch
            else:
                x = x0 + indent
            label_span = self.page.write(label + colon, self.label, x + (widest - label_width if ragged else 0), self.y)
            value_x = x + (tab if layout in ("columns", "leaders", "right", "blanks") else label_width + gap)
            if layout == "inline" or layout == "pairs":
                value_x = x + label_width + text_width(" ", self.body) * rng.choice((1, 1, 2))
            if layout == "right":
                value_x = max(value_x, x1 - text_width(value, self.value))
            if layout == "below":
                value_x, self.y = x + rng.choice((0, 0, 30)), self.y + self.leading
            if layout in ("right", "leaders") and value_x + text_width(value, self.value) > x1:
                value_x, self.y = x, self.y + self.leading
            lines = wrap(value, self.value, max(x1 - value_x, 80))
            if layout == "leaders" and value_x > x:
                value_x = max(value_x, x1 - text_width(lines[0], self.value))
                n_dots = int((value_x - x - label_width - 12) / text_width(dot, self.body))
                if n_dots > 2:
                    self.page.write(dot * n_dots, self.body, x + label_width + 4, self.y)
            spans = []
            for index, line in enumerate(lines[:3]):
                if index:
                    self.y += self.leading
                spans.append(self.page.write(line, self.value, value_x, self.y))
            self._add(name, kind, ((label_span[0], label_span[0] + len(label)),), tuple(spans))
            if layout == "pairs":
                x = value_x + text_width(value, self.value) + gap + 20
            if layout == "blanks" or (layout in ("columns", "right") and rng.random() < 0.1):
                y = self.y + self.leading * 0.25
                self.page.shapes.append(Shape((value_x if layout == "blanks" else x0, y, x1, y + 1), 120, None))

    def _loose_fields(self, x0: float, x1: float, pairs: list[tuple[str, str, str, str]]) -> None:
        """Values right of their labels or below them, at distances and with marks that no named arrangement has."""
        rng = self.rng
        before = rng.choice(("", "", "", "", "- ", "• ", "* ", "» "))
        after = rng.choice((":", ":", "", "", " -", " –", " =", " |", "?", ".:", " *"))
        below, broken = rng.random() < 0.4, rng.random() < 0.3
        gap, drop = self.body.size_px * rng.uniform(0.3, 9), self.leading * rng.uniform(0.95, 1.9)
        indent = self.body.size_px * rng.uniform(-1, 4) * rng.choice((0, 1))
        pitch = self.leading * rng.uniform(1.0, 2.4)
        room = (x1 - x0) / rng.choice((1, 1, 2, 2, 3))
        x = x0
        deepest = self.y
        for name, kind, label, value in pairs:
            words = label.split(" ")
            lines = [" ".join(words[:-1]), words[-1]] if broken and len(words) > 1 else [label]
            lines = [before + lines[0], *lines[1:]]
            lines[-1] += after
            label_width = max(text_width(line, self.label) for line in lines)
            value_width = text_width(value, self.value)
            needed = max(label_width, indent + value_width) if below else label_width + gap + value_width
            if x > x0 and x + needed > x1:
                x, self.y = x0, deepest
            y = self.y + pitch
            last_y = y + self.leading * (len(lines) - 1)
            value_y = last_y + drop if below else rng.choice((y, last_y))
            if max(last_y, value_y) > self.bottom or x + needed > x1:
                return
            spans = [self.page.write(line, self.label, x, y + n * self.leading) for n, line in enumerate(lines)]
            value_x = max(x0, x + indent) if below else x + label_width + gap
            value_span = self.page.write(value, self.value, value_x, value_y)
            named = [(a + len(before) * (n == 0), z) for n, (a, z) in enumerate(spans)]
            named[-1] = (named[-1][0], named[-1][1] - len(after))
            self._add(name, kind, tuple(named), (value_span,))
            deepest = max(deepest, last_y, value_y)
            x += max(room, needed + self.body.size_px * 2) if room < x1 - x0 else x1 - x0 + 1
        self.y = deepest

    def _fields_over_labels(self, x0: float, x1: float, pairs: list[tuple[str, str, str, str]]) -> None:
        """Values with their labels close beneath them: nearness and print alone tell these labels from those above values."""
        rng = self.rng
        small = replace(self.label, size_px=self.label.size_px * rng.uniform(0.65, 1.0))
        before, after = rng.choice((("", ""), ("", ""), ("", ""), ("(", ")"), ("[", "]")))
        drop = max(small.size_px, self.leading * rng.uniform(0.75, 1.25))
        pitch = drop + self.leading * rng.uniform(1.5, 3.2)
        aligned = rng.choice((0.0, 0.0, 0.5, 1.0))
        framed, grey = rng.random() < 0.3, rng.choice((0, 60, 150))
        room = (x1 - x0) / rng.choice((1, 1, 2, 2, 3, 4))
        x, top = x0, self.y
        for name, kind, label, value in pairs:
            widths = text_width(value, self.value), text_width(before + label + after, small)
            width = max(*widths, room - self.body.size_px * 2)
            if x > x0 and x + width > x1:
                x, top = x0, top + pitch
            y = top + self.leading
            if y + drop > self.bottom or x + width > x1:
                break
            value_x, label_x = (x + aligned * (max(widths) - own) for own in widths)
            value_span = self.page.write(value, self.value, value_x, y)
            first, end = self.page.write(before + label + after, small, label_x, y + drop)
            self._add(name, kind, ((first + len(before), end - len(after)),), (value_span,))
            if framed:
                box = (x - 8, y - self.leading, x + width + 4, y + drop + self.leading * 0.35)
                self.page.shapes.append(Shape(box, None, grey))
            x += max(room, width + self.body.size_px * 2)
            self.y = y + drop

    def _field_cells(self, x0: float, x1: float, pairs: list[tuple[str, str, str, str]], layout: str) -> None:
        """Fields side by side, the label in small print above its value or, as a caption, below it, in frames or not."""
        rng = self.rng
        small = replace(self.label, size_px=self.label.size_px * rng.uniform(0.7, 1.0))
        if rng.random() < 0.4:
            small = replace(small, grey=rng.randint(80, 130))
        widest = max(max(text_width(label, small), text_width(value, self.value)) for _, _, label, value in pairs) + 24
        n_columns = max(1, min(4, int((x1 - x0) // widest)))
        width = (x1 - x0) / n_columns
        height = small.size_px * 1.25 + self.leading * rng.uniform(1.0, 1.4)
        ink, line = rng.choice((0, 60, 120)), rng.choice((1, 2, 2, 3))
        for start in range(0, len(pairs), n_columns):
            if self.y + height > self.bottom:
                return
            for column, (name, kind, label, value) in enumerate(pairs[start : start + n_columns]):
                x = x0 + column * width
                if layout == "captions":
                    value_span = self.page.write(value, self.value, x + 8, self.y + self.leading)
                    middle = self.y + self.leading * 1.25
                    self.page.shapes.append(Shape((x, middle, x + width - 16, middle + 1), ink, None))
                    label_span = self.page.write(label, small, x + 8, middle + small.size_px)
                else:
                    label_span = self.page.write(label, small, x + 8, self.y + small.size_px * 1.05)
                    value_span = self.page.write(value, self.value, x + 8, self.y + height - self.leading * 0.3)
                if layout in ("grid", "framed"):
                    self.page.shapes.append(Shape((x, self.y, x + width, self.y + height), None, ink, line))
                self._add(name, kind, (label_span,), (value_span,))
            self.y += height + (self.leading if layout == "captions" else 0)

    def _table(self, x0: float, x1: float) -> None:
        """A table, as wide as the column or as its words need, with or without sums below."""
        rng = self.rng
        layout = rng.choice(allowed("table", TABLE_LAYOUTS, self.split))
        if self._is_loose():
            layout = "loose"
        name_at, kinds = self._columns(x0, x1)
        titles: list[str] = []
        for kind in kinds:
            free = [t for t in COLUMN_TITLES[kind] if t not in titles]
            titles.append(strike(rng, free) if free and rng.random() < 0.7 else self.words.word().capitalize())
        stacked = layout == "loose" and rng.random() < 0.4
        if stacked:
            titles = [f"{t} {self.words.word()}" if " " not in t and rng.random() < 0.5 else t for t in titles]
        title_lines = [title.split(" ", 1) if stacked else [title] for title in titles]
        n_rows = rng.randint(2, 12 if not self.difficulty.width_px else 5)
        texts = self._rows(n_rows, name_at, kinds)
        pitch = self.leading * (rng.uniform(1.0, 1.4) if rng.random() < 0.7 else rng.uniform(1.4, 2.0))
        banded = layout in ("striped", "header-only", "loose") and rng.random() < 0.6
        dark = banded and rng.random() < 0.3
        header = replace(self.bold, grey=255 if dark else 0) if banded else rng.choice((self.bold, self.body))
        # The print of a whole row is one, but for the names', which may stand out.
        styles = [
            self.bold if c == name_at and layout == "open" else self.value if c != name_at else self.body
            for c in range(len(kinds))
        ]
        pad = rng.uniform(8, 22)
        if layout == "loose":
            pad, pitch = rng.uniform(6, 45), pitch * rng.uniform(0.9, 1.5)
            # Never the names: that they stand out where no line parts them from the titles is what "open" tables do.
            styles[rng.choice([c for c in range(len(kinds)) if c != name_at])] = rng.choice((self.bold, self.body))
        needed = [
            max(*(text_width(t, header) for t in title_lines[c]), *(text_width(row[c], styles[c]) for row in texts))
            + 2 * pad
            for c in range(len(kinds))
        ]
        while len(needed) > 2 and sum(needed) > x1 - x0:
            del needed[-1], kinds[-1], title_lines[-1]
        edges = self._edges(x0, x1, needed, name_at)
        x0, x1 = edges[0], edges[-1]
        numeric = ("amount", "number", "percent", "quantity")
        to_right = rng.random() < 0.8
        aligned = [1.0 if to_right and kind in numeric else rng.choice((0.0,) * 7 + (0.5,)) for kind in kinds]
        top = self.y

        def cell(text: str, style: Style, column: int, baseline: float) -> Span:
            room = edges[column + 1] - edges[column] - 2 * pad
            width = text_width(text, style)
            while text and width > room + 1:
                text = text[:-1].rstrip()
                width = text_width(text, style)
            return self.page.write(text, style, edges[column] + pad + aligned[column] * max(0.0, room - width), baseline)

        lift = self.leading * (max(len(lines) for lines in title_lines) - 1)
        self.y += pitch + lift
        if banded:
            self.page.shapes.append(Shape((x0, top, x1, self.y + pitch * 0.25), 60 if dark else 215, None))
        # The last lines stand on one line, whatever is above them.
        title_spans = [
            [cell(line, header, column, self.y - self.leading * (len(lines) - n)) for n, line in enumerate(lines, start=1)]
            for column, lines in enumerate(title_lines)
        ]
        printed = [" ".join(self.page.text(span) for span in spans) for spans in title_spans]
        names: list[str] = []
        name_spans: list[Span] = []
        for number, row in enumerate(texts):
            self.y += pitch
            if self.y > self.bottom:
                break
            if layout == "striped" and number % 2:
                self.page.shapes.append(Shape((x0, self.y - pitch * 0.8, x1, self.y + pitch * 0.2), 235, None))
            if layout == "ruled":
                self.page.shapes.append(Shape((x0, self.y - pitch * 0.75, x1, self.y - pitch * 0.75 + 1), 100, None))
            spans = [cell(row[c], styles[c], c, self.y) for c in range(len(kinds))]
            name = self.page.text(spans[name_at])
            for column, span in enumerate(spans):
                if column != name_at and name and name.lower() not in names and span[1] > span[0]:
                    labels = (spans[name_at], *title_spans[column])
                    value = self.page.text(span)
                    self.page.fields.append(Field("", kinds[column], printed[column], value, labels, (span,), row=name))
            names.append(name.lower())
            name_spans.append(spans[name_at])
        ordered = [printed[name_at], *(title for c, title in enumerate(printed) if c != name_at)]
        self.page.tables.append(Table(tuple(ordered), tuple(self.page.text(s) for s in name_spans), tuple(name_spans)))
        self.y += pitch * 0.25
        under = [min(top + lift + line * pitch + pitch * 0.25, self.y) for line in range(1, len(names) + 2)]
        self._table_rules(layout, [top, *under], pitch, edges)
        if kinds[-1] == "amount" and rng.random() < 0.55:
            left = edges[-3] if len(edges) > 3 and rng.random() < 0.7 else edges[0]
            self._totals(left + pad, x1 - pad, pitch, to_right=aligned[-1] == 1.0, column=edges[-2] + pad)

    def _columns(self, x0: float, x1: float) -> tuple[int, list[str]]:
        """Which column names the rows, and the kinds of all: a number or a date may come before the names."""
        rng = self.rng
        n_columns = rng.randint(2, max(2, min(7, int((x1 - x0) / (self.body.size_px * 5.5)))))
        others = rng.choices([k for k in COLUMN_TITLES if k not in ("phrase", "position")], k=n_columns - 1)
        if rng.random() < 0.4:
            others[-1] = "amount"
        if n_columns > 2 and rng.random() < 0.25:
            return 1, [rng.choice(("position", "position", "date", "code")), "phrase", *others[1:]]
        return 0, ["phrase", *others]

    def _rows(self, n_rows: int, name_at: int, kinds: list[str]) -> list[list[str]]:
        """The words of a table's cells; some rows have nearly the same name, which tells looking up from guessing."""
        rng = self.rng
        stem = self.words.word()
        rows = []
        for number in range(n_rows):
            row = [str(number + 1) if kind == "position" else self._new_value(kind) for kind in kinds]
            row = ["" if rng.random() < 0.04 else text for text in row]
            row[name_at] = f"{stem} {self.words.word()}".capitalize() if rng.random() < 0.3 else self.words.phrase()
            rows.append(row)
        return rows

    def _edges(self, x0: float, x1: float, needed: list[float], name_at: int) -> list[float]:
        """Where the columns of a table begin and the last one ends."""
        rng = self.rng
        spare = x1 - x0 - sum(needed)
        if spare < 0:
            needed = [width * (x1 - x0) / sum(needed) for width in needed]
        else:
            draw = rng.random()
            if draw < 0.35:
                x0 += rng.choice((0.0, 0.0, 0.0, 0.5, 1.0)) * spare
            elif draw < 0.55:
                needed[name_at] += spare
            elif draw < 0.8:
                needed = [width * (x1 - x0) / sum(needed) for width in needed]
            else:
                needed = [width + spare / len(needed) for width in needed]
        edges = [x0]
        for width in needed:
            edges.append(edges[-1] + width)
        return edges

    def _table_rules(self, layout: str, ys: list[float], pitch: float, edges: list[float]) -> None:
        """Rules of a table: `ys` are where they may be above the titles, below them and below each row."""
        shapes, top, x0, x1 = self.page.shapes, ys[0], edges[0], edges[-1]
        if layout == "loose":
            self._loose_rules(ys, edges)
        elif layout == "grid":
            grey = self.rng.choice((0, 80, 80, 150))
            for edge in edges:
                shapes.append(Shape((edge, top, edge + 1, self.y), grey, None))
            for y in ys:
                shapes.append(Shape((x0, y, x1, y + 1), grey, None))
        elif layout not in ("plain", "open"):
            shapes.append(Shape((x0, top + pitch * 1.2, x1, top + pitch * 1.2 + 2), 0, None))
        if layout in ("booktabs", "open"):
            for y in (top, self.y):
                shapes.append(Shape((x0, y, x1, y + 3), 0, None))

    def _loose_rules(self, ys: list[float], edges: list[float]) -> None:
        """Some of the rules at `ys`, and between some of the columns."""
        rng, shapes, x0, x1 = self.rng, self.page.shapes, edges[0], edges[-1]
        grey, weight, over = rng.choice((0, 0, 80, 150)), rng.choice((1, 1, 2, 3)), rng.uniform(-12, 12)
        every, share = rng.choice((0, 0, 1, 1, 2, 3)), rng.random()
        chosen = [y for y in (ys[0], ys[1], ys[-1]) if rng.random() < share]
        chosen += [y for number, y in enumerate(ys[2:-1], start=2) if every and number % every == 0]
        shapes += [Shape((x0 - over, y, x1 + over, y + weight), grey, None) for y in chosen]
        upright = rng.choice((0.0, 0.0, 0.0, 0.5, 1.0))
        shapes += [Shape((edge, ys[0], edge + weight, self.y), grey, None) for edge in edges if rng.random() < upright]

    def _totals(self, left: float, right: float, pitch: float, *, to_right: bool, column: float) -> None:
        """Sums under a table's last column: labels at `left`, values against `right` or from `column` on."""
        rng = self.rng
        sums = [name for name in ("subtotal", "discount", "shipping", "tax", "total") if name not in self.used]
        sums = [name for name in sums if name == "total" or rng.random() < 0.5]
        gap = rng.choice((0.0, 0.0, 0.4, 1.0))
        self.y += pitch * gap
        ruled = rng.random() < 0.4
        for name in sums:
            self.y += pitch
            if self.y > self.bottom:
                return
            name, kind, label = self._new_label(name)
            value = self._new_value(kind)
            style = self.bold if name == "total" and rng.random() < 0.6 else self.body
            x = max(left, right - text_width(value, style)) if to_right else column
            room = x - left - text_width(label + self.colon, style)
            if room < 8:
                left = max(0.0, left + room - 16)
            label_span = self.page.write(label + self.colon, style, left, self.y)
            value_span = self.page.write(value, style, x, self.y)
            self._add(name, kind, ((label_span[0], label_span[0] + len(label)),), (value_span,))
            if ruled and name == "total":
                self.page.shapes.append(Shape((left, self.y - pitch * 0.8, right, self.y - pitch * 0.8 + 2), 0, None))

    def _prose(self, x0: float, x1: float) -> None:
        """A paragraph: filler sentences and some that answer questions."""
        rng = self.rng
        pieces: list[tuple[str, str]] = []
        asked: list[tuple[str, str]] = []
        for _ in range(rng.randint(1, 4)):
            if rng.random() < 0.55:
                pieces.append((self.words.sentence() + " ", ""))
                continue
            pattern, questions = rng.choice([s for s in SENTENCES if is_held_out(s[0]) == (self.split == "held-out")])
            if pattern in self.used:
                continue
            self.used.add(pattern)
            for part in pattern.replace("{", "}").split("}"):
                pieces.append((self.words.value(part), part + pattern) if "{" + part + "}" in pattern else (part, ""))
            pieces.append((" ", ""))
            asked += [(question, slot + pattern) for question, slot in questions]
        text = "".join(piece for piece, _ in pieces).rstrip()
        marks: dict[str, tuple[int, int]] = {}
        position = 0
        for piece, key in pieces:
            if key:
                marks[key] = (position, position + len(piece))
            position += len(piece)
        starts: list[tuple[int, Span]] = []
        position = 0
        for line in wrap(text, self.body, x1 - x0):
            self.y += self.leading
            if self.y > self.bottom:
                break
            starts.append((position, self.page.write(line, self.body, x0, self.y)))
            position += len(line) + 1
        for question, key in asked:
            begin, end = marks[key]
            spans = []
            for at, (first, last) in starts:
                low, high = max(begin, at), min(end, at + last - first)
                if low < high:
                    spans.append((first + low - at, first + high - at))
            answer = " ".join(self.page.text(span).strip() for span in spans)
            if len(answer.replace(" ", "")) == len(text[begin:end].replace(" ", "")) and spans:
                self.page.facts.append(Fact(question, answer, tuple(spans)))

    def _checks(self, x0: float, x1: float) -> None:
        rng = self.rng
        mark = rng.choice("☑☒")
        x = x0
        self.y += self.leading
        across = rng.random() < 0.4
        for _ in range(rng.randint(2, 5)):
            label = self.words.phrase() if rng.random() < 0.8 else self._new_label()[2]
            checked = rng.random() < 0.5
            width = text_width("☐ " + label, self.body)
            if (across and x + width > x1) or not across:
                x = x0
                self.y += self.leading
            if self.y > self.bottom or x + width > x1 or label.lower() in self.used:
                continue
            self.used.add(label.lower())
            span = self.page.write(f"{mark if checked else '☐'} {label}", self.body, x, self.y)
            self.page.checks.append(
                Check(self.page.text((span[0] + 2, span[1])), checked, (span[0] + 2, span[1]), (span[0], span[0] + 1))
            )
            x += width + self.body.size_px * 1.5

    def _address(self, x0: float, x1: float) -> None:
        """A heading with a name and address below it."""
        rng, words = self.rng, self.words
        if not {"bill to", "ship to", "sold to", "sender", "recipient", "from"} - self.used:
            return
        heading = rng.choice(
            [h for h in ("Bill to", "Ship to", "Sold to", "Sender", "Recipient", "From") if h.lower() not in self.used]
        )
        self.used.add(heading.lower())
        kind = rng.choice(("person", "company"))
        lines = [(kind, words.value(kind)), ("street", words.street()), ("town", words.town())]
        if rng.random() < 0.3:
            lines.append(("country", words.country()))
        self.y += self.leading
        label_span = self.page.write(heading + rng.choice((":", "")), self.label, x0, self.y)
        label_span = (label_span[0], label_span[0] + len(heading))
        for index, (line_kind, line) in enumerate(lines):
            self.y += self.leading
            while text_width(line, self.value) > x1 - x0:
                line = line[:-1]
            span = self.page.write(line.strip(), self.value, x0, self.y)
            if index == 0:
                name = "customer" if heading in ("Bill to", "Sold to") and "customer" not in self.used else ""
                self.used.add(name)
                self._add(name, line_kind, (label_span,), (span,))

    def _title(self, x0: float, x1: float) -> None:
        text = self.words.phrase()
        style = replace(self.heading, size_px=min(self.heading.size_px, self.body.size_px * 1.6))
        self.y += style.size_px * 1.2
        if text_width(text, style) < x1 - x0:
            self.page.write(text, style, x0, self.y)
        if self.rng.random() < 0.4:
            self.page.shapes.append(Shape((x0, self.y + 6, x1, self.y + 8), self.rng.choice((0, 120)), None))
        self.y += self.leading * 0.2


ASKEW = 0.12
"""Share of whole sheets that lie askew on the scanner's glass."""


def compose(seed: str, split: Split, difficulty: Difficulty = FULL) -> Page:
    """The page that a seed stands for."""
    rng = random.Random(f"{split}/{seed}")
    page = Composer(rng, split, difficulty).compose()
    if difficulty.width_px is None and rng.random() < ASKEW:
        page.warp(_askew(rng, page.width, page.height))
    return page


def _askew(rng: random.Random, width: int, height: int) -> NDArray[np.float64]:
    """Up to 1.5 degrees about the middle and a slight perspective, as a homography [3, 3]."""
    angle, scale = np.radians(rng.uniform(-1.5, 1.5)), rng.uniform(0.97, 1.0)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    tilt_x, tilt_y = (rng.uniform(-0.015, 0.015) / side * (rng.random() < 0.5) for side in (width, height))
    middle = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    turned = np.array([[cos, -sin, 0], [sin, cos, 0], [tilt_x, tilt_y, 1]])
    matrix: NDArray[np.float64] = middle @ turned @ np.linalg.inv(middle)
    return matrix
