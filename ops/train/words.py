# The rows of the tables below are data, one a line.
# ruff: noqa: E501
"""Words and values that documents are filled with, split into a training and a held-out part by hash."""

import functools
import lzma
import random
from collections.abc import Callable
from pathlib import Path

from ops.train.faces import Split, is_held_out

TABLES = Path(__file__).parent / "tables"
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
CONSONANTS, VOWELS = "bcdfghjklmnprstvwz", "aeiou"
DIGITS, CAPITALS = "0123456789", "ABCDEFGHJKLMNPQRSTUVWXYZ"
COINED_SHARE = 0.3
"""Of training's words and names: those made of two. An answer costs 1.4 nats with words that training has seen, 2.0 with
others: how words go on was partly known by heart, and only what stands there is to be copied."""


@functools.cache
def table(name: str, split: Split) -> tuple[str, ...]:
    """Entries of a word table that belong to a split, in an order that is the same everywhere."""
    entries = lzma.decompress((TABLES / f"{name}.txt.xz").read_bytes()).decode().split("\n")
    chosen = [entry for entry in entries if is_held_out(entry) == (split == "held-out")]
    random.Random(name).shuffle(chosen)
    return tuple(chosen)


class Words:
    """Draws words and typed values.

    Args:
        rng: source of all choices.
        split: which part of the tables may be used.
        variety: how many entries of each table may be used; small at the start of training, when words must recur.
    """

    def __init__(self, rng: random.Random, split: Split, variety: int | None = None) -> None:
        self.rng = rng
        self.split = split
        self.variety = variety
        self.formats: dict[str, float] = {}
        """Kinds of value whose spelling is fixed, as a document's is: where among the spellings, from 0 to 1."""

    def entry(self, name: str) -> str:
        """One entry of a table; in training also the beginning of one with the end of another."""
        entry = self._drawn(name)
        if self.split == "held-out" or self.variety or self.rng.random() >= COINED_SHARE:
            return entry
        other = self._drawn(name)
        cut, rest = (self.rng.randint(1, max(1, len(text) - 1)) for text in (entry, other))
        coined = " ".join((entry[:cut] + other[rest:]).split())
        return entry if is_held_out(coined) else coined

    def _drawn(self, name: str) -> str:
        entries = table(name, self.split)
        return entries[self.rng.randrange(min(len(entries), self.variety or len(entries)))]

    def word(self) -> str:
        """A dictionary word, or in training what `entry` makes of two."""
        return self.entry("words")

    def pattern(self, pattern: str) -> str:
        """Fill a pattern: # a digit, @ a capital, * either; the rest stays."""
        pick = self.rng.choice
        swap: dict[str, Callable[[], str]] = {
            "#": lambda: pick(DIGITS),
            "@": lambda: pick(CAPITALS),
            "*": lambda: pick(DIGITS + CAPITALS),
        }
        return "".join(swap[c]() if c in swap else c for c in pattern)

    def pseudo_word(self) -> str:
        """A word that no dictionary has."""
        return "".join(self.rng.choice(CONSONANTS) + self.rng.choice(VOWELS) for _ in range(self.rng.randint(2, 4)))

    def code(self) -> str:
        """A document number."""
        year = str(self.rng.randint(2009, 2027))
        shapes = (
            "####", "#####", "######", "########", "@-####", "@@-#####", "@@@-####", "INV-####", "INV-######", f"{year}-####",
            f"{year}/###", "**-****", "@#####", "###-###-###", "@@ ######", f"R{year}-###", "#####-##", "@@#@@#", "No. ####",
            "##/####", "#.###.###", "@@@ ### ###", "PO-#####", "#-@@-###",
        )  # fmt: skip
        return self.pattern(self.rng.choice(shapes))

    def _spelled(self, kind: str, spellings: tuple[str, ...]) -> str:
        return spellings[int(self.formats.get(kind, self.rng.random()) * len(spellings))]

    def date(self) -> str:
        """A date in one of the usual spellings."""
        rng = self.rng
        day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1995, 2029)
        name = MONTHS[month - 1]
        return self._spelled(
            "date",
            (
                f"{day:02}/{month:02}/{year}", f"{month}/{day}/{year}", f"{day:02}.{month:02}.{year}",
                f"{day}.{month}.{year}", f"{year}-{month:02}-{day:02}", f"{year}-{month:02}-{day:02}", f"{day} {name} {year}", f"{name} {day}, {year}", f"{day} {name[:3]} {year}", f"{name[:3]} {day}, {year}",
                f"{day:02}-{name[:3]}-{year}", f"{day:02}/{month:02}/{year % 100:02}", f"{day:02}-{month:02}-{year}",
                f"{name} {year}",
            )
        )  # fmt: skip

    def amount(self) -> str:
        """A sum of money with or without its currency."""
        rng = self.rng
        value = rng.choice((rng.randint(1, 99), rng.randint(100, 999), rng.randint(1000, 9999), rng.randint(10000, 999999)))
        cents = f"{rng.choice((0, 0, 50, 99, rng.randint(0, 99))):02}"
        plain, grouped = f"{value}.{cents}", f"{value:,}.{cents}"
        comma = f"{value:,}".replace(",", rng.choice((".", " "))) + "," + cents
        if self.split == "train" and rng.random() < 0.1:
            return rng.choice(
                (f"-{plain}", f"-${grouped}", f"-{comma}", f"-{comma} €", f"- {grouped}", f"€ -{grouped}", f"({grouped})",
                 f"{grouped}-", f"–{plain}", f"{grouped} CR", f"{plain} DR", f"+{plain}", f"$ {grouped}", f"{comma}-")
            )  # fmt: skip
        return self._spelled(
            "amount",
            (f"${grouped}", f"${grouped}", f"£{grouped}", f"€{grouped}", f"€ {grouped}", f"{comma} €", f"EUR {comma}", f"USD {grouped}",
             f"{grouped} EUR", grouped, plain, comma, f"${value:,}", f"{plain} CHF", f"{grouped} USD", f"GBP {grouped}",
             f"{comma} EUR")
        )  # fmt: skip

    def number(self) -> str:
        """A plain count."""
        return str(self.rng.choice((self.rng.randint(1, 20), self.rng.randint(1, 200), self.rng.randint(100, 99999))))

    def percent(self) -> str:
        """A share."""
        return self._spelled(
            "percent", (f"{self.rng.randint(1, 99)}%", f"{self.rng.randint(1, 99)} %", f"{self.rng.uniform(0, 30):.1f}%")
        )

    def time(self) -> str:
        """A time of day."""
        hour, minute = self.rng.randint(1, 12), self.rng.randint(0, 59)
        if self.split == "train" and self.rng.random() < 0.3:
            part = self.rng.choice(("a.m.", "p.m.", "h", "Uhr", "hrs", "GMT", "CET", "o'clock"))
            return f"{hour}:{minute:02} {part}" if self.rng.random() < 0.7 else f"{hour} {part}"
        return self._spelled(
            "time", (f"{hour + 11:02}:{minute:02}", f"{hour}:{minute:02} {self.rng.choice(('AM', 'PM', 'am', 'pm'))}")
        )

    def quantity(self) -> str:
        """A number with a unit."""
        unit = self.rng.choice(
            ("kg", "g", "km", "m", "cm", "mm", "l", "ml", "kWh", "V", "W", "pcs", "hours", "days", "m²", "°C", "bar")
        )
        number = self.rng.choice(
            (str(self.rng.randint(1, 999)), f"{self.rng.uniform(0, 99):.1f}", f"{self.rng.uniform(0, 9):.2f}")
        )
        return f"{number} {unit}"

    def phone(self) -> str:
        """A telephone number."""
        return self.pattern(
            self.rng.choice(
                ("+## ### ######", "(###) ###-####", "###-###-####", "+## (0)## ### ## ##", "0## #######", "+1 ### ### ####")
            )
        )

    def person(self) -> str:
        """A name."""
        first, last = self.entry("first_names"), self.entry("last_names")
        return self.rng.choice(
            (f"{first} {last}",) * 5
            + (f"{last}, {first}", f"{first[0]}. {last}", f"{self.rng.choice(('Mr', 'Ms', 'Dr.', 'Mrs'))} {first} {last}")
        )

    def company(self) -> str:
        """A company's name."""
        if self.rng.random() < 0.4:
            kind = self.rng.choice(
                ("Ltd", "Inc.", "GmbH", "LLC", "B.V.", "S.A.", "AG", "Group", "& Sons", "Partners", "plc")
            )
            return f"{self.word().capitalize()} {self.word().capitalize()} {kind}"
        return self.entry("companies")

    def street(self) -> str:
        """A street with a house number."""
        street, number = self.entry("streets"), self.rng.randint(1, 999)
        return self.rng.choice((f"{number} {street}", f"{street} {number}"))

    def town(self) -> str:
        """A town with a postal code."""
        return f"{self.pattern(self.rng.choice(('#####', '####', '@@# #@@', '@#@ #@#')))} {self.entry('cities')}"

    def city(self) -> str:
        """A town alone."""
        return self.entry("cities")

    def country(self) -> str:
        """A country."""
        return self.entry("countries")

    def email(self) -> str:
        """A mail address."""
        host = f"{self.word()}.{self.rng.choice(('com', 'org', 'de', 'fr', 'net', 'co.uk', 'eu'))}"
        return self.rng.choice((f"{self.word()}@{host}", f"{self.word()}.{self.word()}@{host}", f"info@{host}"))

    def website(self) -> str:
        """A web site."""
        return f"www.{self.word()}.{self.rng.choice(('com', 'org', 'de', 'fr', 'net', 'co.uk', 'eu'))}"

    def account(self) -> str:
        """A bank or tax number."""
        return self.pattern(
            self.rng.choice(
                (
                    "@@## #### #### #### ####",
                    "DE## #### #### #### #### ##",
                    "@@########",
                    "@@ ### ### ###",
                    "########",
                    "@@@@@@##",
                )
            )
        )

    def job(self) -> str:
        """An occupation."""
        return self.entry("jobs")

    def phrase(self) -> str:
        """One to three words."""
        words = [self.word() for _ in range(self.rng.choice((1, 1, 2, 2, 3)))]
        style = self.rng.random()
        if style < 0.4:
            words[0] = words[0].capitalize()
        elif style < 0.55:
            words = [word.capitalize() for word in words]
        elif style < 0.62:
            words = [word.upper() for word in words]
        return " ".join(words)

    def label(self) -> str:
        """A label that nobody knows: words, a word that no dictionary has, or letters and digits."""
        draw = self.rng.random()
        if draw < 0.65:
            return " ".join(self.word() for _ in range(self.rng.choice((1, 1, 2, 2, 3)))).capitalize()
        if draw < 0.85:
            return self.pseudo_word().capitalize()
        return self.pattern(self.rng.choice(("@-##", "@#", "@@##", "Item ##", "No. #", "Part @", "Line ##")))

    def random_text(self) -> str:
        """Letters and digits without any sense, so that nothing is gained by guessing."""
        return self.pattern("*" * self.rng.randint(3, 9))

    def value(self, kind: str) -> str:
        """A value of a kind, which is the name of one of the methods above."""
        return str(getattr(self, kind)())

    def sentence(self) -> str:
        """Filler prose."""
        words = [self.word() for _ in range(self.rng.randint(5, 14))]
        for index in range(len(words)):
            if self.rng.random() < 0.35:
                words[index] = self.rng.choice(
                    ("the", "of", "and", "to", "in", "for", "is", "with", "by", "that", "a", "be", "on", "are")
                )
        return " ".join([words[0].capitalize(), *words[1:]]) + self.rng.choice((".", ".", ".", ";", "!"))


KINDS = (
    "code", "date", "amount", "number", "percent", "time", "quantity", "phone", "person", "company", "street", "town", "city",
    "country", "email", "website", "account", "job", "phrase", "random_text",
)  # fmt: skip
"""Kinds of values that a field of an open-vocabulary label may have."""

FIELDS: dict[str, tuple[str, tuple[str, ...]]] = {
    # canonical name: (kind of value, spellings of the label)
    "invoice number": ("code", ("Invoice number", "Invoice no.", "Invoice No", "Invoice #", "Invoice ID", "Bill number", "Inv. no.")),
    "invoice date": ("date", ("Invoice date", "Date of invoice", "Date of issue", "Issue date", "Billing date")),
    "due date": ("date", ("Due date", "Payment due", "Due by", "Pay by", "Payment due date")),
    "order number": ("code", ("Order number", "Order no.", "Order #", "Order ID", "PO number", "Purchase order")),
    "order date": ("date", ("Order date", "Date of order", "Ordered on")),
    "delivery date": ("date", ("Delivery date", "Ship date", "Shipping date", "Delivered on", "Date of delivery")),
    "customer number": ("code", ("Customer number", "Customer no.", "Customer ID", "Client number", "Account no.")),
    "customer": ("person", ("Customer", "Client", "Bill to", "Customer name", "Client name", "Sold to", "Billed to")),
    "supplier": ("company", ("Supplier", "Vendor", "Seller", "Issued by", "Supplier name")),
    "total": ("amount", ("Total", "Grand total", "Total due", "Amount due", "Total amount", "Balance due", "TOTAL", "Amount payable")),
    "subtotal": ("amount", ("Subtotal", "Sub-total", "Net amount", "Net total", "Total before tax")),
    "tax": ("amount", ("Tax", "VAT", "Sales tax", "VAT amount", "Tax amount", "GST")),
    "tax rate": ("percent", ("Tax rate", "VAT rate", "VAT %")),
    "discount": ("amount", ("Discount", "Rebate", "Less discount")),
    "shipping": ("amount", ("Shipping", "Shipping cost", "Postage", "Delivery charge", "Freight")),
    "payment method": ("phrase", ("Payment method", "Paid by", "Method of payment", "Payment type")),
    "payment terms": ("phrase", ("Payment terms", "Terms", "Terms of payment")),
    "vat number": ("account", ("VAT number", "VAT no.", "VAT ID", "Tax ID", "Tax number")),
    "iban": ("account", ("IBAN", "Bank account", "Account number", "Bank details")),
    "bic": ("account", ("BIC", "SWIFT", "SWIFT code", "Sort code")),
    "bank": ("company", ("Bank", "Bank name", "Name of bank")),
    "phone": ("phone", ("Phone", "Tel.", "Telephone", "Phone number", "Tel", "Mobile", "Contact number")),
    "fax": ("phone", ("Fax", "Fax no.", "Fax number")),
    "email": ("email", ("Email", "E-mail", "Email address", "Mail", "E-mail address")),
    "website": ("website", ("Website", "Web", "Internet", "Homepage", "Online")),
    "address": ("street", ("Address", "Street", "Street address", "Home address")),
    "city": ("town", ("City", "Town", "Place", "Postcode and city")),
    "country": ("country", ("Country", "Country of origin", "Nationality")),
    "contact": ("person", ("Contact", "Contact person", "Your contact", "Attention", "Attn.")),
    "name": ("person", ("Name", "Full name", "Surname and name", "Name of holder")),
    "first name": ("phrase", ("First name", "Given name", "Forename")),
    "date of birth": ("date", ("Date of birth", "Born on", "Birth date", "DOB")),
    "place of birth": ("city", ("Place of birth", "Birthplace", "Born in")),
    "occupation": ("job", ("Occupation", "Job title", "Position", "Profession", "Role")),
    "employer": ("company", ("Employer", "Company", "Company name", "Organisation")),
    "department": ("phrase", ("Department", "Division", "Unit", "Section")),
    "salary": ("amount", ("Salary", "Gross pay", "Annual salary", "Wage")),
    "net pay": ("amount", ("Net pay", "Take-home pay", "Amount paid")),
    "start date": ("date", ("Start date", "Valid from", "From", "Commencement date", "Begins on")),
    "end date": ("date", ("End date", "Valid until", "Expiry date", "Expires", "Valid to", "Best before")),
    "policy number": ("code", ("Policy number", "Policy no.", "Contract number", "Agreement no.")),
    "premium": ("amount", ("Premium", "Annual premium", "Monthly premium")),
    "reference": ("code", ("Reference", "Ref.", "Our reference", "Your reference", "Reference no.", "Case number", "File no.")),
    "tracking number": ("code", ("Tracking number", "Tracking no.", "Shipment number", "Parcel no.")),
    "weight": ("quantity", ("Weight", "Gross weight", "Net weight")),
    "serial number": ("code", ("Serial number", "Serial no.", "S/N", "Batch no.", "Lot number")),
    "model": ("code", ("Model", "Model no.", "Article number", "Item no.", "SKU")),
    "rent": ("amount", ("Rent", "Monthly rent", "Rent per month")),
    "deposit": ("amount", ("Deposit", "Security deposit", "Down payment")),
    "opening balance": ("amount", ("Opening balance", "Previous balance", "Balance brought forward")),
    "closing balance": ("amount", ("Closing balance", "New balance", "Balance", "Current balance")),
    "meter reading": ("number", ("Meter reading", "Reading", "Current reading")),
    "consumption": ("quantity", ("Consumption", "Usage", "Energy used")),
    "flight": ("code", ("Flight", "Flight no.", "Train", "Journey no.")),
    "seat": ("code", ("Seat", "Seat no.", "Seat number", "Row")),
    "gate": ("code", ("Gate", "Platform", "Terminal")),
    "departure": ("time", ("Departure", "Departs", "Departure time", "Boarding time")),
    "arrival": ("time", ("Arrival", "Arrives", "Arrival time")),
    "venue": ("company", ("Venue", "Location", "Hotel", "Place of event")),
    "doctor": ("person", ("Doctor", "Physician", "Treating doctor", "Surgeon")),
    "patient": ("person", ("Patient", "Patient name", "Name of patient")),
    "diagnosis": ("phrase", ("Diagnosis", "Finding", "Result")),
    "dose": ("quantity", ("Dose", "Dosage", "Strength")),
    "grade": ("percent", ("Grade", "Score", "Mark", "Overall score")),
    "course": ("phrase", ("Course", "Subject", "Programme", "Title of course")),
    "signed by": ("person", ("Signed by", "Signature of", "Approved by", "Authorised by", "Signatory", "Signed")),
    "manager": ("person", ("Manager", "Supervisor", "Team leader", "Head of department")),
    "cashier": ("person", ("Cashier", "Sales clerk", "Prepared by", "Processed by")),
    "quantity": ("number", ("Quantity", "Qty", "Number of items", "Pieces")),
    "time": ("time", ("Time", "Printed at", "Time of day", "Opening time")),
    "date": ("date", ("Date", "Dated", "Date of letter")),
    "project": ("phrase", ("Project", "Project name", "Job", "Title")),
    "account holder": ("person", ("Account holder", "Cardholder", "Owner", "Beneficiary", "Payee")),
    "interest rate": ("percent", ("Interest rate", "Annual rate", "APR", "Rate")),
}  # fmt: skip
