"""Which way a metric is better, told by its name; or that the name does not tell.

A name is split into words. Every word has to be known: a term of the table, or a word that leaves a
term's direction as it is (`val`, `mean`, `per sample`). One unknown word, such as `scale` in
`loss_scale` or `free` in `error_free_rate`, or two terms that disagree, and the name tells nothing:
then the user has to say it. A night in the wrong direction costs more than one question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from autoresearch.records import Goal

SKLEARN = "scikit-learn, metrics and scoring"
TORCHMETRICS = "TorchMetrics, higher_is_better"
LANGUAGE = "language modelling: compression and perplexity"
TIME = "time that the program takes"
RATE = "work in a unit of time"
MEMORY = "memory that the program takes"
SUCCESS = "rewards, returns and rates of success"

TERMS: tuple[tuple[Goal, str, str], ...] = (
    (Goal.MINIMIZE, SKLEARN, "loss, losses, log loss, logloss, hinge, cost, error, errors, "
     "error rate, err, brier, brier score, brier score loss, mse, rmse, mae, medae, mape, smape, "
     "msle, rmsle, mase, nrmse, deviance, pinball loss, davies bouldin, "
     "davies bouldin score, zero one loss, hamming loss, coverage error, false positive rate, fpr, "
     "false negative rate, fnr, misclassification rate, residual, regret"),
    (Goal.MAXIMIZE, SKLEARN, "accuracy, acc, top accuracy, precision, recall, f1, f2, fbeta, auc, "
     "auroc, roc auc, auprc, pr auc, average precision, r2, r squared, rsquared, "
     "explained variance, jaccard, mcc, matthews corrcoef, kappa, cohen kappa, ndcg, dcg, "
     "silhouette, adjusted rand, v measure, homogeneity, completeness, neg mean squared error, "
     "neg root mean squared error, neg mean absolute error, neg log loss, neg brier score, "
     "true positive rate, tpr, sensitivity, specificity, log likelihood, loglik"),
    (Goal.MINIMIZE, TORCHMETRICS, "wer, cer, ter, mer, word error rate, char error rate, "
     "match error rate, edit distance, fid, fid score, kid, lpips, hamming distance, "
     "kl divergence, calibration error, ece, crps, chamfer distance, wasserstein distance"),
    (Goal.MAXIMIZE, TORCHMETRICS, "psnr, ssim, ms ssim, snr, si snr, sdr, si sdr, pesq, stoi, "
     "inception score, iou, miou, giou, mean iou, dice, bleu, sacrebleu, chrf, rouge, "
     "rouge l, rougel, rouge lsum, meteor, bertscore, exact match, hit rate, mrr, mean reciprocal "
     "rank, pearson, pearsonr, spearman, spearmanr, mean average precision"),
    (Goal.MINIMIZE, LANGUAGE, "perplexity, ppl, bpb, bpc, bpw, bpd, bits per byte, bits per char, "
     "bits per character, bits per token, bits per dim, cross entropy, crossentropy, xent, nll, "
     "negative log likelihood, neg log likelihood"),
    (Goal.MAXIMIZE, SUCCESS, "reward, rewards, return, returns, episode return, win rate, "
     "winrate, success rate, solve rate, pass rate, pass at, elo, sharpe, sharpe ratio, profit"),
    (Goal.MINIMIZE, TIME, "latency, runtime, run time, wall time, walltime, cpu time, time, "
     "duration, elapsed, seconds, secs, sec, milliseconds, microseconds, nanoseconds, hours, "
     "ms, us, µs, ns, cycles, instructions"),
    (Goal.MAXIMIZE, RATE, "throughput, speedup, bandwidth, goodput, fps, qps, rps, tps, iops, mfu"),
    (Goal.MINIMIZE, MEMORY, "memory, peak memory, vram, peak vram, rss, max rss, peak rss, "
     "memory usage, memory footprint"),
)  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEUTRAL = _words(
    "val valid validation dev test eval evaluation train training holdout held out final last best "
    "current overall total sum mean avg average median macro micro weighted max maximum worst peak "
    "p50 p90 p95 p99 p999 abs absolute squared root relative rel normalized norm log log10 energy "
    "epoch step model task sample samples token tokens batch item image frame request op "
    "iteration iter call query example row episode per of the at on in wall cpu gpu clock user sys "
    "real mb gb kb mib gib bytes pct percent db s score top top1 top5 k"
)
"""Words that leave a term's direction as it is."""

WORK = _words(
    "tok token tokens frame frames step steps sample samples images img imgs request requests "
    "req reqs op ops operation operations iteration iterations iter iters it item items query "
    "queries row rows record records example examples word words char chars byte bytes kb mb gb tb "
    "kib mib gib mbit gbit episode episodes move moves node nodes call calls transaction "
    "transactions message messages event events line lines file files game games flop flops gflop "
    "gflops mflops tflops"
)
"""What a program does: more of it in a unit of time is better."""

UNITS_OF_TIME = _words("s sec secs second seconds ms us ns min minute minutes h hour")
SHORT_UNITS = _words("ms us µs ns")
WANTED_LONG = _words(
    "uptime up life lifetime alive survival survive lasting between until before to timeout "
    "interval battery audio video saved idle sleep"
)
"""Words that may make a long time the better one."""

PHRASES = {
    tuple(term.split()): (goal, source)
    for goal, source, terms in TERMS
    for term in (" ".join(term.split()) for term in terms.split(","))
}
LONGEST_PHRASE = max(map(len, PHRASES))


class Direction(NamedTuple):
    """The goal, the `term` in the name that tells it, and the source of that."""

    goal: Goal
    term: str
    source: str

    def __str__(self) -> str:
        better = "lower" if self.goal is Goal.MINIMIZE else "higher"
        return f"{better} is better for {self.term!r} ({self.source})"


def find_direction(name: str) -> Direction | None:
    """What a metric's name tells about its direction; None where it does not, or not for certain.

    >>> find_direction("val/loss").goal.value, find_direction("loss_scale")
    ('minimize', None)
    """
    words = _split(name)
    if name.startswith("-") or not words:
        return None
    found = list(_find_terms(words))
    if None in found:
        return None
    directions = [direction for direction in found if direction is not None]
    if len({direction.goal for direction in directions}) != 1:
        return None
    first = directions[0]
    is_score = "score" in words and "score" not in first.term
    if is_score and first.goal is Goal.MINIMIZE:
        return None  # a score is higher, a loss is lower
    return first


def _split(name: str) -> list[str]:
    """The words of a name in lower case. `/s` is `per s`; `/` before other words is a folder."""
    text = re.sub(r"/(?=(?:s|sec|second|ms|min|hour|h)$)", " per ", name.replace("@", " at "))
    text = re.sub(r"(?<=[a-zµ]{2})(?=[A-Z][a-z])", " ", text)  # valLoss, trainLossMean
    return re.findall(r"[^\W_]+", text.lower())


def _find_terms(words: list[str]) -> Iterator[Direction | None]:
    """The directions of the terms in a name; None for a word that is not known."""
    if work := _read_rate(words):
        yield Direction(Goal.MAXIMIZE, work, RATE)
        return
    if len(words) > 1 and words[-1] in SHORT_UNITS and not WANTED_LONG & set(words):
        yield Direction(Goal.MINIMIZE, words[-1], TIME)
        words = [word for word in words[:-1] if _is_term(word)]  # parse_ms: any name of a part
    at = 0
    while at < len(words):
        size, direction = _match(words, at)
        if size:
            yield direction
        elif not _is_neutral(words, at):
            yield None
        at += size or 1


def _read_rate(words: list[str]) -> str | None:
    """`tokens per second`, `tok/s`, `steps_s`: work in a unit of time. None for anything else."""
    if words[-1] not in UNITS_OF_TIME or len(words) < 2:
        return None
    what = words[:-2] if words[-2] == "per" else words[:-1] if words[-1] == "s" else []
    others = [word for word in what[:-1] if word not in NEUTRAL | WORK | {"achieved"}]
    return " ".join(words) if what and what[-1] in WORK and not others else None


def _match(words: list[str], at: int) -> tuple[int, Direction | None]:
    for size in range(min(LONGEST_PHRASE, len(words) - at), 0, -1):
        phrase = tuple(words[at : at + size])
        entry = PHRASES.get(phrase)
        if entry is None and size == 1:  # rouge1, bleu4, acc5
            entry = PHRASES.get((re.sub(r"(?<=\D{2})\d+$", "", phrase[0]),))
        if entry is not None:
            return size, Direction(entry[0], " ".join(phrase), entry[1])
    return 0, None


def _is_term(word: str) -> bool:
    return (word,) in PHRASES


def _is_neutral(words: list[str], at: int) -> bool:
    """A number is no part of `1 - ssim`, so it is neutral only after a word."""
    return words[at] in NEUTRAL or (words[at].isdigit() and at > 0)
