"""Which way a metric is better: known by its name, or asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.errors import TaskError
from autoresearch.records import Goal
from autoresearch.task.directions import PHRASES, find_direction
from autoresearch.task.layouts import scaffold

HIGHER = """
r2 psnr fps accuracy val_acc f1 f1_score f1-macro auc roc_auc ROC_AUC tok/s tok_s tokens_per_second
tokens_per_sec achieved_tok/s throughput reward episode_reward mean_return IoU test/mIoU bleu4
rouge1 rougeL recall@10 precision_at_5 pass@1 top_5_accuracy neg_log_loss r2_score
images/sec GB/s speedup val_accuracy_% accuracy_score mean_average_precision log_likelihood
neg_mean_squared_error samples_per_second ssim win_rate
"""
LOWER = """
loss error brier brier_score brier_score_loss per_sample_loss perplexity bpb val_bpb latency seconds
parse_ms p95_latency_ms total_seconds training_seconds rmse RMSE val/loss valLoss trainLossMean
loss_2 energy_error max_error error_rate word_error_rate wer wall_time time_ms runtime_s fid
log_loss cross_entropy nll neg_log_likelihood negative_log_likelihood peak_vram_mb ns_per_op
ms/token exec_µs mean_absolute_error bits_per_byte fid_score
"""
UNKNOWN = """
loss_scale error_free_rate score fitness val_score size batch_size learning_rate lr epoch
accuracy_loss loss_score error_reduction 1-ssim -loss neg_loss minus_loss uptime_ms time_to_failure
time_to_failure_ms battery_seconds map compression_ratio f1_loss entropy ratio rate steps tokens
gflops params errors_per_second survival_time dropout loss_improvement timeout_ms mAP x µ
reward_loss speed_loss_ms2
"""


@pytest.mark.parametrize("name", HIGHER.split())
def test_higher_is_better(name: str) -> None:
    direction = find_direction(name)
    assert direction is not None and direction.goal is Goal.MAXIMIZE
    assert direction.source


@pytest.mark.parametrize("name", LOWER.split())
def test_lower_is_better(name: str) -> None:
    direction = find_direction(name)
    assert direction is not None and direction.goal is Goal.MINIMIZE


@pytest.mark.parametrize("name", UNKNOWN.split())
def test_a_name_that_does_not_tell(name: str) -> None:
    assert find_direction(name) is None


def test_no_term_is_listed_for_both_directions() -> None:
    from autoresearch.task.directions import TERMS

    listed = [" ".join(term.split()) for _, _, terms in TERMS for term in terms.split(",")]
    assert len(listed) == len(set(listed)) == len(PHRASES)


def test_init_refuses_a_name_that_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text('print(f"score: {1}")\n')
    with pytest.raises(TaskError, match=r"a higher score better(.|\n)*--goal"):
        scaffold(tmp_path)
    files = scaffold(tmp_path, goal="maximize")
    assert 'goal = "maximize"' in files["autoresearch.toml"]
    assert 'goal = "minimize"' in scaffold(tmp_path, metric="brier_score")["autoresearch.toml"]
