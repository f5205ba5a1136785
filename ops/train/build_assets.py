"""Write the fonts and word tables that the document generator draws from; run once, by hand, on a machine with Debian's
fonts.

    python -m ops.train.build_assets

Fonts are subset to the alphabet, without kerning, ligatures, hints and names (a modified font may not carry a reserved
name), so that a run of text is exactly the sum of its advances. The words come from Faker and the system's word list.
Everything is written sorted and compressed, so that a second run gives the same files.
"""

import io
import lzma
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

from faker import Faker
from fontTools import subset
from fontTools.ttLib import TTFont

from pipeline.vlms.embedded.alphabet import CHARACTERS

HERE = Path(__file__).parent
SHARE = (Path("/usr/share/fonts"), Path("/usr/share/texmf"), Path("/usr/share/texlive"))
DOC = Path("/usr/share/doc")

FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    # design family: (Debian package, files; the first is the regular face)
    "liberation-sans": (
        "fonts-liberation",
        ("LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf", "LiberationSans-Italic.ttf"),
    ),
    "liberation-serif": (
        "fonts-liberation",
        ("LiberationSerif-Regular.ttf", "LiberationSerif-Bold.ttf", "LiberationSerif-Italic.ttf"),
    ),
    "liberation-mono": ("fonts-liberation", ("LiberationMono-Regular.ttf", "LiberationMono-Bold.ttf")),
    "dejavu-sans": ("fonts-dejavu-core", ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")),
    "dejavu-serif": ("fonts-dejavu-core", ("DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf")),
    "dejavu-mono": ("fonts-dejavu-core", ("DejaVuSansMono.ttf",)),
    "dejavu-condensed": ("fonts-dejavu-extra", ("DejaVuSansCondensed.ttf", "DejaVuSansCondensed-Bold.ttf")),
    "gyre-heros": ("fonts-texgyre", ("texgyreheros-regular.otf", "texgyreheros-bold.otf")),
    "gyre-heros-condensed": ("fonts-texgyre", ("texgyreheroscn-regular.otf", "texgyreheroscn-bold.otf")),
    "gyre-termes": ("fonts-texgyre", ("texgyretermes-regular.otf", "texgyretermes-bold.otf")),
    "gyre-cursor": ("fonts-texgyre", ("texgyrecursor-regular.otf", "texgyrecursor-bold.otf")),
    "gyre-adventor": ("fonts-texgyre", ("texgyreadventor-regular.otf", "texgyreadventor-bold.otf")),
    "gyre-bonum": ("fonts-texgyre", ("texgyrebonum-regular.otf", "texgyrebonum-bold.otf")),
    "gyre-schola": ("fonts-texgyre", ("texgyreschola-regular.otf", "texgyreschola-bold.otf")),
    "gyre-pagella": ("fonts-texgyre", ("texgyrepagella-regular.otf", "texgyrepagella-bold.otf")),
    "latin-modern-roman": ("fonts-lmodern", ("lmroman10-regular.otf", "lmroman10-bold.otf", "lmroman10-italic.otf")),
    "latin-modern-sans": ("fonts-lmodern", ("lmsans10-regular.otf", "lmsans10-bold.otf")),
    "latin-modern-mono": ("fonts-lmodern", ("lmmono10-regular.otf",)),
    "carlito": ("fonts-crosextra-carlito", ("Carlito-Regular.ttf", "Carlito-Bold.ttf", "Carlito-Italic.ttf")),
    "caladea": ("fonts-crosextra-caladea", ("Caladea-Regular.ttf", "Caladea-Bold.ttf")),
    "roboto": ("fonts-roboto-unhinted", ("Roboto-Regular.ttf", "Roboto-Bold.ttf", "Roboto-Light.ttf")),
    "roboto-condensed": ("fonts-roboto-unhinted", ("RobotoCondensed-Regular.ttf", "RobotoCondensed-Bold.ttf")),
    "roboto-slab": ("fonts-roboto-slab", ("RobotoSlab-Regular.otf", "RobotoSlab-Bold.otf")),
    "open-sans": ("fonts-open-sans", ("OpenSans-Regular.ttf", "OpenSans-Bold.ttf", "OpenSans-Italic.ttf")),
    "lato": ("fonts-lato", ("Lato-Regular.ttf", "Lato-Bold.ttf", "Lato-Light.ttf")),
    "noto-sans": ("fonts-noto-core", ("NotoSans-Regular.ttf", "NotoSans-Bold.ttf")),
    "noto-serif": ("fonts-noto-core", ("NotoSerif-Regular.ttf", "NotoSerif-Bold.ttf")),
    "noto-mono": ("fonts-noto-mono", ("NotoSansMono-Regular.ttf",)),
    "cabin": ("fonts-cabin", ("Cabin-Regular.otf", "Cabin-Bold.otf")),
    "cantarell": ("fonts-cantarell", ("Cantarell-Regular.otf", "Cantarell-Bold.otf")),
    "courier-prime": ("fonts-courier-prime", ("Courier Prime.otf", "Courier Prime Bold.otf")),
    "eb-garamond": ("fonts-ebgaramond", ("EBGaramond12-Regular.otf", "EBGaramond12-Italic.otf")),
    "go": ("fonts-go", ("Go-Regular.ttf", "Go-Bold.ttf")),
    "go-mono": ("fonts-go", ("Go-Mono.ttf",)),
    "hack": ("fonts-hack", ("Hack-Regular.ttf",)),
    "inter": ("fonts-inter", ("Inter-Regular.otf", "Inter-Bold.otf", "Inter-Medium.otf")),
    "jetbrains-mono": ("fonts-jetbrains-mono", ("JetBrainsMono-Regular.ttf",)),
    "junicode": ("fonts-junicode", ("JunicodeTwoBeta-Regular.otf",)),
    "karla": ("fonts-karla", ("Karla-Regular.otf", "Karla-Bold.otf")),
    "libertine": ("fonts-linuxlibertine", ("LinLibertine_R.otf", "LinLibertine_RB.otf")),
    "biolinum": ("fonts-linuxlibertine", ("LinBiolinum_R.otf", "LinBiolinum_RB.otf")),
    "manrope": ("fonts-manrope", ("Manrope-Regular.ttf", "Manrope-Bold.ttf")),
    "old-standard": ("fonts-oldstandard", ("OldStandard-Regular.ttf", "OldStandard-Bold.ttf")),
    "pt-sans": ("fonts-paratype", ("PTS55F.ttf", "PTS75F.ttf")),
    "pt-serif": ("fonts-paratype", ("PTF55F.ttf", "PTF75F.ttf")),
    "play": ("fonts-play", ("Play-Regular.ttf", "Play-Bold.ttf")),
    "quattrocento": ("fonts-quattrocento", ("Quattrocento-Regular.otf",)),
    "quicksand": ("fonts-quicksand", ("Quicksand-Regular.ttf", "Quicksand-Bold.ttf")),
    "dosis": ("fonts-dosis", ("Dosis-Medium.otf", "Dosis-Bold.otf")),
    "gfs-didot": ("fonts-gfs-didot", ("GFSDidot.otf", "GFSDidotBold.otf")),
    "gfs-artemisia": ("fonts-gfs-artemisia", ("GFSArtemisia.otf", "GFSArtemisiaBold.otf")),
    "inconsolata": ("fonts-inconsolata", ("Inconsolata.otf",)),
    "b612": ("fonts-b612", ("B612-Regular.otf", "B612-Bold.otf")),
    "comic-neue": ("fonts-comic-neue", ("ComicNeue-Regular.otf", "ComicNeue-Bold.otf")),
    "dancing-script": ("fonts-dancingscript", ("DancingScript-Regular.otf",)),
    "averia-serif": ("fonts-averia-serif-gwf", ("AveriaSerifGWF-Regular.ttf", "AveriaSerifGWF-Bold.ttf")),
    "league-mono": ("fonts-league-mono", ("LeagueMono-Regular.otf", "LeagueMono-Condensed.otf")),
    "cardo": ("fonts-cardo", ("Cardo104s.ttf",)),
    "stix": ("fonts-stix", ("STIX-Regular.otf", "STIX-Bold.otf")),
    "tuffy": ("fonts-tuffy", ("Tuffy.ttf", "Tuffy_Bold.ttf")),
}


def write_fonts() -> None:
    """Subset every face of `FAMILIES` into `fonts/`, with the copyright file of its package."""
    found = {path.name: path for folder in SHARE for path in sorted(folder.rglob("*.?tf"))}
    for family, (package, files) in FAMILIES.items():
        for index, name in enumerate(files):
            source = found[name]
            font = TTFont(source)
            options = subset.Options(
                hinting=False, layout_features=[], name_IDs=[], notdef_outline=True, desubroutinize=True, glyph_names=False
            )
            options.drop_tables += ["kern", "GPOS", "GSUB", "GDEF", "MATH", "BASE", "FFTM", "DSIG", "hdmx", "VDMX", "LTSH"]
            subsetter = subset.Subsetter(options)
            subsetter.populate(text=CHARACTERS)
            subsetter.subset(font)
            font["head"].modified = font["head"].created
            font.recalcTimestamp = False
            data = io.BytesIO()
            font.save(data)
            (HERE / "fonts" / f"{family}-{index}{source.suffix}").write_bytes(data.getvalue())
        licence = DOC / package / "copyright"
        if licence.exists():
            shutil.copy(licence, HERE / "fonts" / f"COPYRIGHT.{package}")


def table(name: str, entries: set[str]) -> None:
    """Write one word table, entries that the alphabet cannot spell left out."""
    known = sorted(e for e in (unicodedata.normalize("NFC", e).strip() for e in entries) if e and set(e) <= set(CHARACTERS))
    (HERE / "tables" / f"{name}.txt.xz").write_bytes(lzma.compress("\n".join(known).encode(), preset=9))
    print(name, len(known))


INDECENT = re.compile(
    "anus|bastard|bitch|bollock|boob|brothel|bugger|chink|clitor|coit|condom|copulat|cunt|dick|dildo|erotic|fag|fart|fornicat|fuck|"
    "genital|incest|kike|masturb|molest|negr|nigg|nipple|orgas|penis|phall|piss|porn|prick|prostit|pussy|rapis|raping|retard|"
    "scrot|semen|sex|shit|slut|testic|turd|vagin|wank|whor"
)
"""Pages of random words are shown to people."""


def write_tables() -> None:
    """Draw names, places, companies and jobs from Faker in several locales, and words from the system's list."""
    fakers = [
        Faker(locale)
        for locale in ("en_US", "en_GB", "en_CA", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "sv_SE", "pt_PT")
    ]
    for index, faker in enumerate(fakers):
        faker.seed_instance(index)

    def draw(make: Callable[[Faker], str], each: int) -> set[str]:
        return {make(faker) for faker in fakers for _ in range(each)}

    table("first_names", draw(lambda f: f.first_name(), 2000))
    table("last_names", draw(lambda f: f.last_name(), 3000))
    table("streets", draw(lambda f: f.street_name(), 2500))
    table("cities", draw(lambda f: f.city(), 2500))
    table("companies", draw(lambda f: f.company(), 2500))
    table("countries", {fakers[0].country() for _ in range(3000)})
    table("jobs", {fakers[0].job() for _ in range(5000)})
    words = Path("/usr/share/dict/words").read_text(encoding="utf-8").split()
    fit = {w for w in words if w.isalpha() and w.islower() and 3 <= len(w) <= 11 and not INDECENT.search(w)}
    table("words", fit)


if __name__ == "__main__":
    (HERE / "fonts").mkdir(exist_ok=True)
    (HERE / "tables").mkdir(exist_ok=True)
    write_fonts()
    write_tables()
