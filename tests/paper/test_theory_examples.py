"""The examples in the documentation of `dmf.theory` run, and show what they say."""

import numpy as np

import dmf.theory

from helpers import code_blocks


def test_the_examples(capsys):
    space = {"__name__": "__main__"}
    examples = code_blocks(dmf.theory.__doc__)
    assert len(examples) == 9
    for example in examples:
        assert len(example.strip().splitlines()) < 20
        exec(compile(example, "dmf.theory", "exec"), space)
    printed = dict(
        line.rsplit(" ", 1)
        for line in capsys.readouterr().out.splitlines()
        if line[0] in "mArc" and "dtype" not in line
    )
    errors = {name: float(value) for name, value in printed.items()}
    assert errors["compressed 0.1"] < 0.02 < errors["compressed 0.0"]
    assert max(errors[name] for name in ("rates and a schedule", "momentum")) < 0.02
    assert errors["Adam"] < 0.1
    assert space["path"].history.loss[-1] < 1e-3
    assert space["rotated"].network.dtype == complex and space["rotated"].history.loss[-1] < 1e-6
    low, high = dmf.theory.two_period_orbit(space["values"][0], 3, space["step"])
    now = np.linalg.svd(space["run"].network.product())[1][:2]
    assert min(np.abs(now - low).min(), np.abs(now - high).min()) < 1e-6
