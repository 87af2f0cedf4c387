"""Which device is taken."""

from __future__ import annotations

import logging

import pytest
import torch

from shapeguide.errors import ConfigError
from shapeguide.machine import choose_device, choose_precision


def machine_with(patch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: cuda)
    patch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "taken"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "cpu"), (False, False, "cpu")],
)
def test_auto_takes_what_has_been_tried(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, taken: str
) -> None:
    machine_with(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device("auto").type == taken


def test_mps_is_passed_over_with_a_word_and_taken_when_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine_with(monkeypatch, cuda=False, mps=True)
    with caplog.at_level(logging.INFO, logger="shapeguide"):
        choose_device("auto")
    assert "'mps' is untried" in caplog.text
    assert choose_device("mps").type == "mps"


def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine_with(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ConfigError, match="'cuda' is not available here; choose one of: auto, cpu"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("found", "taken"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "fp32"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_bf16_is_taken_where_the_processor_is_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, object], taken: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == taken
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
