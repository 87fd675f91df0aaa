"""Will a text fit: what is told agrees with what was measured, and whatever is unknown is told in one line."""

import pandas as pd
import pytest
import torch
from tiny import save_tiny_model

import paper_lib
from paper_lib.errors import InputError
from paper_lib.live import fit as fit_module
from paper_lib.live.load import load_lm
from paper_lib.measured import load_tried
from paper_lib.paths import SHIPPED
from paper_lib.sizing import fit_sizing

pytestmark = pytest.mark.slow

SHORT, LONG = (
    "He came.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of.",
)


def test_short_texts_fit_and_long_ones_take_more_vectors():
    short, long = (paper_lib.fit(text, model=SHIPPED) for text in (SHORT, LONG))
    assert short.chance > 0.5 > long.chance
    assert long.n_vectors > short.n_vectors >= 1
    assert (short.protocol, short.criterion) == ("strict", "exact")
    assert short.knee_nats == long.knee_nats == fit_sizing(load_tried()).knees["novels-5m, strict"]


def test_nats_are_those_of_the_model_after_its_start_token():
    lm = load_lm(SHIPPED)
    ids = [lm.start_id, *lm.tokenizer.encode(SHORT, add_special_tokens=False)]
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0, :-1]
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
    told = paper_lib.fit(SHORT, model=lm)
    assert told.nats == pytest.approx(nats, rel=1e-5)
    assert told.n_tokens == len(ids) - 1
    assert f"{len(ids) - 1} tokens, {nats:.0f} nats" in str(told)


def test_what_is_unknown_is_told_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="nothing is known of what vectors of .* hold; run and freeze a sweep of it"):
        paper_lib.fit(SHORT, model=str(save_tiny_model(tmp_path / "model")))
    with pytest.raises(InputError, match="was not measured under anchored; use kuratov2025, strict"):
        paper_lib.fit(SHORT, model=SHIPPED, protocol="anchored")
    tried = load_tried().query("model == 'novels-5m, strict'").assign(fits=True)
    monkeypatch.setattr(
        fit_module, "load_tried", lambda: pd.concat([tried, load_tried().query("origin == 'published'")])
    )
    with pytest.raises(InputError, match="every text that was tried with .* fits, so the limit is unknown"):
        paper_lib.fit(SHORT, model=SHIPPED)
    with pytest.raises(InputError, match="the text is empty"):
        paper_lib.fit("", model=SHIPPED)
