"""Names and ``key=value`` texts become configurations; every mistake is named; digests are pinned."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from pipeline.config import (
    SEARCHES,
    AnswerConfig,
    GroundingConfig,
    MethodConfig,
    MethodName,
    RegionConfig,
    SaliencyConfig,
    ZoomConfig,
)
from pipeline.errors import UsageError
from pipeline.presets import METHODS, PRESETS, default_preset, method_config

FAMILIES = ["embedded", "llava", "llava_next", "internvl", "qwen2_5_vl"]
OFFICIAL = "fe2a4421a42fa6a9c24d01651a938b4ff2661857652bb79283d3f7395e00245f"

DIGESTS = {
    **{("document", family): "9a7fb44bdbef4cfab108308d54ade0a5f445c01b9dba23a085cdb9022ab11fe7" for family in FAMILIES},
    ("document", "embedded"): "cd513c917da00f0c0c37d1072fa6425a7969ae23dd75b665cbd375edf30007d0",
    **{("paper", family): "63eec8298bedc237ab46dfa6defffdee1e3f0a4df534daafb1b47e1a74cfca2c" for family in FAMILIES},
    **{("official", family): OFFICIAL for family in ("embedded", "llava", "llava_next")},
    ("official", "internvl"): "20c0323b55616e9a3dd862f1760d3528cd81654548a725e8389aef27dfb3ca64",
    ("official", "qwen2_5_vl"): "116df843ac710a3cbb41604703755fbaf15fbb8f06b9acf516fa0b0fb07126f7",
}
"""Stored with every answer: whoever changes one makes all stored answers be computed again, so change them knowingly."""

PLAIN_DIGEST = "cdb963c71c417bdd917449960fd52c81676bc13c30462833a76584be18ed326b"


def grounding(preset: str, family: str = "llava", **settings: str) -> GroundingConfig:
    found = method_config("entropy-gradient", family, preset, settings).search
    assert isinstance(found, GroundingConfig)
    return found


@pytest.mark.parametrize(("preset", "family"), DIGESTS)
def test_the_digest_of_every_preset_is_the_pinned_one(preset: str, family: str) -> None:
    assert method_config("entropy-gradient", family, preset).sha256 == DIGESTS[preset, family]


def test_the_digest_of_plain_is_the_pinned_one_for_every_family() -> None:
    assert {method_config("plain", family).sha256 for family in FAMILIES} == {PLAIN_DIGEST}


def test_the_digest_does_not_depend_on_the_presets_name() -> None:
    config = method_config("entropy-gradient", "llava", "paper")
    assert replace(config, preset="another").sha256 == config.sha256
    # The same parameters, reached from another preset.
    steps = {"sigma_rows": "1.5", "sigma_cols": "1.5", "margin_rows": "0", "margin_cols": "0", "context": "per-view"}
    assert method_config("entropy-gradient", "llava", "document", {**steps, "prompt": "paper"}).sha256 == config.sha256


def changed(value: Any) -> Any:
    """Another valid value of the same kind."""
    others = {
        "entropy": "max-probability", "all": "first", "exact": "official", "elbow": "half-maximum", "at-or-above": "above",
        "cells": "mass", "outward": "floor", "none": "thirds", "per-view": "joint", "spatial-entropy": "fixed",
        "improve": "worsen", "tokens": "pixels", "grounded": "next", "paper": "document", 8: 4, None: 3,
    }  # fmt: skip
    if isinstance(value, bool):
        return not value
    return others[value] if value in others else value / 2 if isinstance(value, float) else value + 1


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (part, field.name)
        for part, record in [("saliency", SaliencyConfig), ("region", RegionConfig), ("zoom", ZoomConfig)]
        for field in dataclasses.fields(record)
    ]
    + [("answer", field.name) for field in dataclasses.fields(AnswerConfig)],
)
def test_every_parameter_can_be_set_by_itself_and_changes_the_digest(part: str, name: str) -> None:
    config = method_config("entropy-gradient", "llava", "paper")
    before = config.to_dict()["answer"] if part == "answer" else config.to_dict()["search"][part]
    value = changed(before[name])
    other = method_config("entropy-gradient", "llava", "paper", {name: str(value).lower()})
    after = other.to_dict()["answer"] if part == "answer" else other.to_dict()["search"][part]
    assert after == {**before, name: value}
    assert other.sha256 != config.sha256


def test_paper_is_algorithm_1_with_sigma_of_a_cell_and_a_half_and_four_rounds() -> None:
    for family in FAMILIES:
        assert grounding("paper", family) == GroundingConfig(
            SaliencyConfig("entropy", 0.9, 1, 0, None, "all", "exact"),
            RegionConfig(1.5, 1.5, "elbow", "at-or-above", 8, "cells", 0, 0, "outward", "none"),
            ZoomConfig("per-view", 2, 4, "spatial-entropy", "improve", False, "grounded"),
        )


@pytest.mark.parametrize("family", ["llava", "llava_next", "embedded"])
def test_official_for_llava_is_the_released_code(family: str) -> None:
    assert grounding("official", family) == GroundingConfig(
        SaliencyConfig("entropy", 0.9, 1, 0, None, "first", "exact"),
        RegionConfig(1.5, 1.5, "elbow", "above", 4, "contrast-mass", 0, 0, "floor", "official"),
        ZoomConfig("joint", 2, 16, "spatial-entropy", "worsen", True, "next"),
    )


def test_official_for_qwen_and_internvl_is_as_in_the_authors_scripts_for_them() -> None:
    """No aspect clamp, K = 3, mass over the smoothed map; Qwen at sigma 2.5 and half the maximum."""
    internvl, qwen = grounding("official", "internvl"), grounding("official", "qwen2_5_vl")
    region = RegionConfig(1.5, 1.5, "elbow", "above", 4, "mass", 0, 0, "floor", "none")
    assert internvl.region == region
    assert qwen.region == replace(region, sigma_rows=2.5, sigma_cols=2.5, threshold="half-maximum")
    assert internvl.zoom == qwen.zoom == ZoomConfig("joint", 3, 16, "spatial-entropy", "worsen", True, "next")


def test_document_is_the_default_and_the_only_preset_that_leaves_room_for_not_found() -> None:
    assert default_preset("entropy-gradient") == "document"
    config = method_config("entropy-gradient", "llava")
    assert (config.preset, config.answer.prompt) == ("document", "document")
    assert config.search == GroundingConfig(
        SaliencyConfig(), RegionConfig(0.7, 0.7, margin_rows=1, margin_cols=1), ZoomConfig("joint")
    )
    embedded = method_config("entropy-gradient", "embedded")
    assert embedded.search == GroundingConfig(SaliencyConfig(), RegionConfig(0.7, 1.5), ZoomConfig("joint"))
    for preset in PRESETS["entropy-gradient"]:
        expected = "document" if preset == "document" else "paper"
        assert method_config("entropy-gradient", "llava", preset).answer.prompt == expected


def test_plain_has_no_grounding_and_takes_answer_parameters() -> None:
    config = method_config("plain", "llava", settings={"max_new_tokens": "7", "prompt": "paper", "not_found_margin": "-1.5"})
    assert config == MethodConfig("plain", "plain", AnswerConfig("paper", 7, -1.5))


def test_a_configuration_comes_back_from_its_stored_form() -> None:
    for method, presets in PRESETS.items():
        for preset in presets or [None]:
            config = method_config(method, "qwen2_5_vl", preset)
            assert MethodConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_plain_pass_of_a_configuration_asks_the_same_way() -> None:
    config = method_config("entropy-gradient", "llava", "paper", {"max_new_tokens": "9"})
    assert config.plain() == MethodConfig("plain", "plain", AnswerConfig("paper", 9))


def test_keys_may_be_written_with_dashes_and_none_and_booleans_in_any_case() -> None:
    assert grounding("paper", **{"decoding-step": "2"}).saliency.decoding_step == 2
    assert grounding("paper", layer="20").saliency.layer == 20
    assert grounding("paper", layer="None").saliency.layer is None
    assert grounding("paper", stop_degenerate="True").zoom.stop_degenerate is True
    assert grounding("official", stop_degenerate="false").zoom.stop_degenerate is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("entropy-gradien", "llava"), "unknown method 'entropy-gradien'; known: entropy-gradient, "),
        (("plane", "llava"), "unknown method 'plane'; known: plain, "),
        (("entropy-gradient", "llava", "papper"), "unknown preset 'papper'; known: paper, document, official"),
        (("entropy-gradient", "llava", ""), "unknown preset ''; known: document, paper, official"),
        (("plain", "llava", "paper"), "method plain has no presets, 'paper' was given; leave --preset out"),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones_nearest_first(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        method_config(*arguments)
    # Further methods follow after the nearest one.
    assert str(raised.value).startswith(message)


def test_an_unknown_parameter_is_told_with_the_known_ones_nearest_first() -> None:
    with pytest.raises(UsageError, match=r"^unknown parameter 'sigma_row'; known: sigma_rows, sigma_cols, .*answer_with"):
        grounding("paper", sigma_row="1")
    with pytest.raises(UsageError, match=r"^unknown parameter 'regions'; known: .*prompt"):
        method_config("plain", "llava", settings={"regions": "3"})
    # Method and preset have options of their own.
    with pytest.raises(UsageError, match=r"^unknown parameter 'preset'"):
        method_config("entropy-gradient", "llava", "paper", {"preset": "official"})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("connectivity", "6", "expected one of 4, 8"),
        ("objective", "kl", "expected one of entropy, top-p-entropy, max-probability, answer-entropy"),
        ("stop_degenerate", "yes", "expected true or false"),
        ("rounds", "four", "expected a whole number"),
        ("rounds", "2.5", "expected a whole number"),
        ("layer", "last", "expected a whole number"),
        ("sigma_rows", "wide", "expected a number"),
        ("not_found_margin", "low", "expected a number"),
        ("decoding_step", "0", "decoding_step is 0, expected 1 to 4"),
        ("decoding_step", "5", "decoding_step is 5, expected 1 to 4"),
        ("top_p", "0", "top_p is 0.0, expected above 0 and at most 1"),
        ("top_p", "1.1", "top_p is 1.1, expected above 0 and at most 1"),
        ("top_p", "nan", "top_p is nan, expected above 0 and at most 1"),
        ("leaf", "-1", "leaf is -1, expected 0 or more"),
        ("layer", "0", "layer 0 ends before the leaf at block 0"),
        ("regions", "0", "regions is 0 and rounds is 4, expected at least 1 each"),
        ("rounds", "0", "regions is 2 and rounds is 0, expected at least 1 each"),
        ("sigma_rows", "-1", "sigma is -1.0 by 1.5 cells, expected 0 to 1000"),
        ("sigma_cols", "nan", "sigma is 1.5 by nan cells, expected 0 to 1000"),
        ("sigma_cols", "inf", "sigma is 1.5 by inf cells, expected 0 to 1000"),
        ("margin_rows", "-1", "margin is -1 by 0 cells, expected 0 or more"),
        ("max_new_tokens", "0", "max_new_tokens is 0, expected at least 1"),
        ("not_found_margin", "nan", "not_found_margin is not a number"),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected(key: str, value: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        grounding("paper", **{key: value})
    assert str(raised.value) == f"--set {key}={value}: {message}"


def test_no_two_parameters_share_a_name() -> None:
    """`--set` names a field without saying which record it is in."""

    def names(record: Any) -> list[str]:
        fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        own = [name for name, value in fields.items() if not dataclasses.is_dataclass(value)]
        return own + [name for value in fields.values() if dataclasses.is_dataclass(value) for name in names(value)]

    for method in METHODS:
        known = names(method_config(method, "llava"))
        assert len(known) == len(set(known))


def test_the_methods_that_are_declared_are_the_methods_that_are_built() -> None:
    from pipeline.methods import METHODS as CLASSES

    assert set(METHODS) == set(CLASSES)
    for module, name in CLASSES.values():
        assert inspect.isclass(getattr(importlib.import_module(module), name))


def test_every_method_searches_by_the_record_that_its_presets_build() -> None:
    assert set(SEARCHES) == set(get_args(MethodName))
    for method in METHODS:
        for preset in PRESETS[method] or [None]:
            assert type(method_config(method, "llava", preset).search) is (SEARCHES[method] or type(None))
