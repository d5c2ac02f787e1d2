"""Asks Optuna for positions worth trying.

Every proposal gets a new study of what was measured and what is in flight, so it depends on the
history alone, and a restarted tuner makes the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from autoresearch.agents.tuning.space import Measured, Situation, Space

TPE_CHANGES = (1, 2, 3)  # constants that TPE moves at a time


def propose(
    sampler: BaseSampler, measured: Sequence[Measured], space: Space, situation: Situation
) -> list[float]:
    """Return positions worth trying. They may fail `situation.is_allowed` if few are left."""
    distributions: dict[str, BaseDistribution] = {
        name: FloatDistribution(0.0, 1.0)
        if constant.ordered
        else CategoricalDistribution(space.levels[name] or ())
        for name, constant in space.constants.items()
    }

    # A crash is a pruned trial without a value: TPE ranks it below every other.
    states = [TrialState.PRUNED if m.score is None else TrialState.COMPLETE for m in measured]
    states += [TrialState.RUNNING] * len(situation.running)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        create_trial(
            state=state,
            value=trial.score,
            params=dict(zip(distributions, space.positions(trial.program.values), strict=True)),
            distributions=distributions,
        )
        for trial, state in zip((*measured, *situation.running), states, strict=True)
    )
    params = study.ask(distributions).params
    return [float(params[name]) for name in distributions]


def make_sampler(
    name: str, seed: int, space: Space, situation: Situation, rng: np.random.Generator
) -> BaseSampler:
    """Make "random", or "tpe" that moves a few constants and leaves the others at the
    incumbent's."""
    if name == "random":
        return RandomSampler(seed=seed)
    names = list(space.constants)
    count = min(int(rng.choice(TPE_CHANGES)), len(names))
    moved = {names[index] for index in rng.choice(len(names), size=count, replace=False)}
    present = zip(names, space.positions(situation.incumbent.program.values), strict=True)
    fixed = {name: position for name, position in present if name not in moved}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        tpe = TPESampler(multivariate=True, constant_liar=True, n_startup_trials=5, seed=seed)
        return PartialFixedSampler(fixed, tpe)
