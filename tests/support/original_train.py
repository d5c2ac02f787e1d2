"""A program that uses prepare.py and `kernels` as the original's train.py does, small enough for a
CPU. Its model is one block."""

import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from kernels import get_kernel
from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader

fa3 = get_kernel("varunneal/flash-attention-3").flash_attn_interface


class Model(nn.Module):
    def __init__(self, vocab_size, width=64):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.head = nn.Linear(width, vocab_size, bias=False)

    def forward(self, idx, targets=None, reduction="mean"):
        x = self.embedding(idx)
        q, k, v = (t.unflatten(-1, (2, -1)) for t in self.qkv(x).chunk(3, dim=-1))
        x = x + fa3.flash_attn_func(q, k, v, causal=True, window_size=(MAX_SEQ_LEN, 0)).flatten(2)
        logits = self.head(x)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


torch.set_num_threads(1)
torch.manual_seed(42)
tokenizer = Tokenizer.from_directory()
model = Model(tokenizer.get_vocab_size())
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
loader = make_dataloader(tokenizer, 8, MAX_SEQ_LEN, "train")
step, start = 0, time.process_time()
while time.process_time() - start < TIME_BUDGET:
    x, y, epoch = next(loader)
    optimizer.zero_grad()
    model(x, y).backward()
    optimizer.step()
    step += 1
print("---")
print(f"val_bpb:          {evaluate_bpb(model, tokenizer, 8):.6f}")
print(f"training_seconds: {time.process_time() - start:.1f}")
print(f"num_steps:        {step}")
print(f"peak_vram_mb:     {0.0:.1f}")
assert os.environ["AUTORESEARCH_SEED"]
