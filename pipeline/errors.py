"""Everything that can go wrong on purpose, as one tree.

    ExhibitError
    ├── UsageError                 the command line or a setting is wrong                      exit 2
    │   ├── QuestionListError      a question list does not parse (file, line, column)         exit 2
    │   └── DatasetError           a benchmark's file is not what its format says              exit 2
    ├── EnvironmentProblem         this machine lacks something                                exit 3
    │   ├── PopplerMissing
    │   ├── ModelUnavailable       weights missing, wrong family, download refused
    │   │   └── EyeUnavailable     SPOT-E's CLIP, or the peft library, is missing
    │   ├── DatasetMissing         a benchmark's files are not in the folder
    │   ├── StoreUnavailable       database missing or locked
    │   │   └── SchemaMismatch     it is at another schema version than the code
    │   ├── InboxMissing           the folder of a schedule cannot be read
    │   ├── BrokerUnavailable      Redis does not answer; what was submitted is stored all the same
    │   └── DeviceLost             the GPU failed for good in this process; its jobs go elsewhere
    ├── DocumentError              the file is bad input: its answers fail, the batch goes on
    │   ├── DocumentNotFound
    │   ├── DocumentTooLarge
    │   ├── DocumentEmpty          zero bytes
    │   ├── UnknownFormat          neither a PDF nor a supported image
    │   ├── DocumentCorrupt
    │   ├── DocumentEncrypted      a password is needed, or the one given is wrong
    │   ├── DocumentHasNoPages
    │   ├── TooManyPages
    │   └── PageError              one page is bad; the others are answered
    │       ├── PageOutOfRange
    │       ├── PageTooLarge
    │       ├── PageCorrupt
    │       └── RasterLimit        the child ran into its memory, CPU, time or output limit
    ├── MethodError                the method could not finish for one question
    │   ├── NonFiniteSaliency
    │   ├── PromptTooLong
    │   ├── YesNoAmbiguous         ZoomEye asks yes or no, and the model begins both with the same token
    │   └── OutOfMemory            retryable: a smaller batch may fit
    ├── LeaseLost                  another worker owns this job now; nothing was written
    └── InternalError              an invariant of ours is broken: our bug                     exit 70

Each class has a stable ``code`` (stored, exported, a heading in ops/runbook.md) and says whether trying again without
changing anything can help (``retryable``).
"""

from __future__ import annotations

from typing import ClassVar


class ExhibitError(Exception):
    """Base of all errors that Exhibit raises on purpose; ``str()`` is what a user reads."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class UsageError(ExhibitError):
    """The command line or a setting is wrong."""

    code = "usage"
    exit_code = 2


class QuestionListError(UsageError):
    """A question list does not parse; the message names file, line, column and what was expected."""

    code = "question_list"


class DatasetError(UsageError):
    """A benchmark's file is not what its official format says; the message names file, line or record, and field."""

    code = "dataset"


class EnvironmentProblem(ExhibitError):
    """This machine lacks something that the command needs."""

    code = "environment"
    exit_code = 3


class PopplerMissing(EnvironmentProblem):
    """The poppler tools are not installed."""

    code = "poppler_missing"


class ModelUnavailable(EnvironmentProblem):
    """The model cannot be loaded: missing weights, an unknown family, or a refused download."""

    code = "model_unavailable"


class EyeUnavailable(ModelUnavailable):
    """SPOT-E's CLIP cannot be loaded: its weights or the peft library are missing; the message says what to do."""

    code = "eye_unavailable"


class DatasetMissing(EnvironmentProblem):
    """A benchmark's files are not in the folder; the message says which the official release has and where they go."""

    code = "dataset_missing"


class StoreUnavailable(EnvironmentProblem):
    """The database cannot be used: unreachable, locked for too long, or at another schema version."""

    code = "store_unavailable"


class BrokerUnavailable(EnvironmentProblem):
    """Redis does not answer; what was submitted is stored and is dispatched when it is back."""

    code = "broker_unavailable"


class SchemaMismatch(StoreUnavailable):
    """The database is at another schema version than the code; trying again does not help, upgrading one of them does."""

    code = "schema_mismatch"


class InboxMissing(EnvironmentProblem):
    """The folder of a schedule cannot be read; the next firing looks again."""

    code = "inbox_missing"


class DeviceLost(EnvironmentProblem):
    """The device failed in a way that this process cannot recover from; another process can do the job."""

    code = "device_lost"
    retryable = True


class DocumentError(ExhibitError):
    """The document is bad input; its answers fail and the batch goes on."""

    code = "document"


class DocumentNotFound(DocumentError):
    """The path names no readable file."""

    code = "document_not_found"


class DocumentTooLarge(DocumentError):
    """The file has more bytes than the limit."""

    code = "document_too_large"


class DocumentEmpty(DocumentError):
    """The file has no bytes."""

    code = "document_empty"


class UnknownFormat(DocumentError):
    """The file is neither a PDF nor a supported image."""

    code = "unknown_format"


class DocumentCorrupt(DocumentError):
    """The file claims a supported format but cannot be read."""

    code = "document_corrupt"


class DocumentEncrypted(DocumentError):
    """The document needs a password, or the given one is wrong."""

    code = "document_encrypted"


class DocumentHasNoPages(DocumentError):
    """The document is readable and has no pages."""

    code = "document_has_no_pages"


class TooManyPages(DocumentError):
    """The document has more pages than the limit."""

    code = "too_many_pages"


class PageError(DocumentError):
    """One page is bad; the document's other pages are answered."""

    code = "page"


class PageOutOfRange(PageError):
    """The document has no page of that number."""

    code = "page_out_of_range"


class PageTooLarge(PageError):
    """The page cannot be rasterized within the pixel limits."""

    code = "page_too_large"


class PageCorrupt(PageError):
    """The page cannot be drawn."""

    code = "page_corrupt"


class RasterLimit(PageError):
    """The rasterizing child ran into its memory, CPU, wall-time or output limit."""

    code = "raster_limit"


class MethodError(ExhibitError):
    """The method could not finish for one question."""

    code = "method"


class NonFiniteSaliency(MethodError):
    """The objective or a gradient is NaN or infinite; another dtype helps, trying again does not."""

    code = "non_finite_saliency"


class PromptTooLong(MethodError):
    """Question and views do not fit into the model's context."""

    code = "prompt_too_long"


class YesNoAmbiguous(MethodError):
    """The model begins "yes" and "no" with the same token, so that it cannot be asked what ZoomEye asks."""

    code = "yes_no_ambiguous"


class OutOfMemory(MethodError):
    """The device ran out of memory; a smaller batch may fit."""

    code = "out_of_memory"
    retryable = True


class LeaseLost(ExhibitError):
    """The job belongs to another worker by now; the result was thrown away and nothing was written."""

    code = "lease_lost"
    retryable = True


class InternalError(ExhibitError):
    """An invariant of ours is broken: this is our bug."""

    code = "internal"
    exit_code = 70
