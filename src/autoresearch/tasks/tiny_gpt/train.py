"""
Train a small GPT for a fixed time and save it as model.pt.

    python train.py && python score.py

This is the file to edit: the knobs, the model, the optimizer, the schedule, the loop. Frozen are
prepare.py (the data), device.py (the clock) and score.py (the metric: bits per byte on held-out
text), which calls `load_model` in a process that sees only the programs and model.pt.
"""

import math
import os
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from device import Budget, keep_freed_memory, pick_device, print_summary
from prepare import TIME_BUDGET, load_meta, make_loader
from torch import nn

# -------------------------------------------------------------------------------------------------
# Knobs. The learning rates come from the original, where they were tuned for a width of 768.

DEPTH = 4  # transformer blocks, as the original advises for small machines; in [1, 6]
WIDTH = 64  # of the residual stream; one of: 32, 48, 64, 96, 128, 192, 256
HEADS = 2  # of attention; one of: 1, 2, 4
MLP_RATIO = 4  # hidden units of the MLP per unit of width; in [1, 8]
VALUE_EMBEDDINGS = True  # every other block, the last included, mixes a token embedding into V
SOFTCAP = 15.0  # logits are squashed into (-SOFTCAP, SOFTCAP); in [5, 60]
INIT_SCALE = 1.0  # of the matrices, relative to uniform with variance 1 / WIDTH; in [0.2, 3]

BATCH_SIZE = 8  # rows a step; in [2, 32]
SEQ_LEN = 128  # tokens a row, in training and when it is scored; in [32, 256]
MATRIX_LR = 0.04  # Muon, the blocks' matrices; in [0.005, 0.3]
EMBEDDING_LR = 0.6  # AdamW, token and value embeddings, times (WIDTH / 768) ** -0.5; in [0.05, 5]
UNEMBEDDING_LR = 0.004  # AdamW, the output matrix, times the same; in [0.0005, 0.1]
SCALAR_LR = 0.5  # AdamW, the residual scalars; in [0.02, 5]
WEIGHT_DECAY = 0.2  # of the matrices, fading to 0 with the budget; in [0, 1]
MOMENTUM = 0.95  # of Muon, Nesterov's; in [0.7, 0.99]
BETA1 = 0.8  # of AdamW; in [0.5, 0.95]
BETA2 = 0.95  # of AdamW; in [0.8, 0.999]
WARMUP = 0.0  # fraction of the budget for the learning rates to rise from 0; in [0, 0.3]
WARMDOWN = 0.5  # fraction of the budget for them to fall to 0; in [0.1, 1]

# -------------------------------------------------------------------------------------------------
# Model: rotary positions, QK norm, RMSNorm without weights, squared ReLU, no biases


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    """Apply rotary positions: rotate the halves of x (rows, heads, length, head_dim) as pairs."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, has_value_embedding):
        super().__init__()
        self.qkv = nn.ParameterList(matrix(WIDTH, WIDTH) for _ in range(3))
        self.proj = matrix(WIDTH, WIDTH, scale=0.0)
        self.gate = matrix(HEADS, WIDTH, scale=0.0) if has_value_embedding else None

    def forward(self, x, value_embedding, cos, sin):
        rows, length, _ = x.shape
        q, k, v = (F.linear(x, w).view(rows, length, HEADS, -1) for w in self.qkv)
        if value_embedding is not None:
            gate = 2 * torch.sigmoid(F.linear(x, self.gate))  # 1 at the start, one per head
            v = v + gate[..., None] * value_embedding.view(v.shape)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(y.transpose(1, 2).reshape(x.shape), self.proj)


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = matrix(MLP_RATIO * WIDTH, WIDTH)
        self.down = matrix(WIDTH, MLP_RATIO * WIDTH, scale=0.0)

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.up)).square(), self.down)


class GPT(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        assert WIDTH % HEADS == 0, f"WIDTH = {WIDTH} does not divide into HEADS = {HEADS}"
        head_dim = WIDTH // HEADS
        assert head_dim % 2 == 0, f"rotary needs an even WIDTH / HEADS, not {WIDTH} / {HEADS}"
        has_ve = [VALUE_EMBEDDINGS and i % 2 == (DEPTH - 1) % 2 for i in range(DEPTH)]
        self.embedding = nn.Parameter(torch.randn(vocab_size, WIDTH))
        self.value_embeddings = nn.ParameterDict(
            {str(i): matrix(vocab_size, WIDTH) for i in range(DEPTH) if has_ve[i]}
        )
        self.attention = nn.ModuleList(Attention(has_ve[i]) for i in range(DEPTH))
        self.mlp = nn.ModuleList(MLP() for _ in range(DEPTH))
        self.stream_scale = nn.Parameter(torch.ones(DEPTH))  # of the residual stream into a block
        self.token_scale = nn.Parameter(torch.full((DEPTH,), 0.1))  # of the embedding added to it
        self.unembedding = nn.Parameter(0.001 * torch.randn(vocab_size, WIDTH))
        frequencies = 10000 ** -torch.linspace(0, 1, head_dim // 2 + 1)[:-1]
        angles = torch.outer(torch.arange(SEQ_LEN), frequencies)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, idx, targets=None):
        """Return (rows, length, vocab_size) logits, or with targets the mean loss in nats."""
        cos, sin = self.cos[: idx.size(1)], self.sin[: idx.size(1)]
        x = tokens = norm(F.embedding(idx, self.embedding))
        for i in range(DEPTH):
            x = self.stream_scale[i] * x + self.token_scale[i] * tokens
            ve = self.value_embeddings.get(str(i))
            ve = None if ve is None else F.embedding(idx, ve)
            x = x + self.attention[i](norm(x), ve, cos, sin)
            x = x + self.mlp[i](norm(x))
        # Softcap: SOFTCAP * tanh(z / SOFTCAP), plus a constant that softmax ignores. It is written
        # with the sigmoid, which takes a quarter of tanh's time on a CPU.
        logits = F.linear(norm(x) * (2 / SOFTCAP), self.unembedding).float()
        logits = 2 * SOFTCAP * torch.sigmoid(logits)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def flops_per_token(self):
        """Forward and backward: 6 per weight of a matmul, and 12 x width x length of attention."""
        lookups = self.embedding.numel() + sum(p.numel() for p in self.value_embeddings.values())
        weights = sum(p.numel() for p in self.parameters()) - lookups
        return 6 * weights + 12 * DEPTH * WIDTH * SEQ_LEN


def matrix(rows, columns, scale=1.0):
    bound = scale * INIT_SCALE * math.sqrt(3 / WIDTH)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


# -------------------------------------------------------------------------------------------------
# Optimizer: Muon for the matrices, AdamW for the rest. Both are written out because importing
# torch.optim takes 1.5 s: it imports a compiler.

# Polar Express (arXiv 2505.16932): the steepest polynomials towards an orthogonal matrix.
POLAR_EXPRESS = (  # fixed
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalize(x):
    """Approximate the orthogonal matrices nearest to x (matrices, rows, columns)."""
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """Orthogonalised momentum for matrices of one shape, with cautious weight decay."""

    def __init__(self, params, lr):
        self.params, self.lr = params, lr * max(1.0, params[0].size(0) / params[0].size(1)) ** 0.5
        self.momentum = torch.zeros(len(params), *params[0].shape, device=params[0].device)

    def step(self, rate, decay):
        grad = torch.stack([p.grad for p in self.params])
        self.momentum.lerp_(grad, 1 - MOMENTUM)
        update = orthogonalize(grad.lerp(self.momentum, MOMENTUM))
        for p, u in zip(self.params, update, strict=True):
            u = u + decay * p * (u * p > 0)  # decay only where the update shrinks the weight
            p.sub_(u, alpha=self.lr * rate)


class AdamW:
    """Adam without weight decay, for a list of parameters."""

    def __init__(self, params, lr):
        self.params, self.lr, self.steps = params, lr, 0
        self.mean = [torch.zeros_like(p) for p in params]
        self.square = [torch.zeros_like(p) for p in params]

    def step(self, rate, decay):
        self.steps += 1
        grads = [p.grad for p in self.params]
        torch._foreach_lerp_(self.mean, grads, 1 - BETA1)
        torch._foreach_mul_(self.square, BETA2)
        torch._foreach_addcmul_(self.square, grads, grads, 1 - BETA2)
        scale = torch._foreach_sqrt(self.square)
        torch._foreach_mul_(scale, (1 - BETA2**self.steps) ** -0.5)
        torch._foreach_add_(scale, 1e-10)
        size = self.lr * rate / (1 - BETA1**self.steps)
        torch._foreach_addcdiv_(self.params, self.mean, scale, -size)


def make_optimizers(model):
    """Give each parameter an optimizer and a learning rate. Muon has one optimizer per shape."""
    blocks = [*model.attention.parameters(), *model.mlp.parameters()]
    shapes = sorted({p.shape for p in blocks})
    width_scale = (WIDTH / 768) ** -0.5
    embeddings = [model.embedding, *model.value_embeddings.values()]
    return [
        *(Muon([p for p in blocks if p.shape == shape], MATRIX_LR) for shape in shapes),
        AdamW(embeddings, EMBEDDING_LR * width_scale),
        AdamW([model.unembedding], UNEMBEDDING_LR * width_scale),
        AdamW([model.stream_scale], SCALAR_LR * 0.01),  # near 1, where a small step is large
        AdamW([model.token_scale], SCALAR_LR),
    ]


# -------------------------------------------------------------------------------------------------
# Training


def learning_rate(progress):
    """Return the factor on all learning rates at `progress` (0 to 1) of the budget."""
    rise = progress / WARMUP if WARMUP > 0 else 1.0
    fall = (1 - progress) / WARMDOWN if WARMDOWN > 0 else 1.0
    return min(1.0, rise, fall)


def train(model, budget, seed, device):
    """Train until the budget is spent. Returns the number of steps."""
    optimizers = make_optimizers(model)
    bf16 = torch.autocast("cuda", torch.bfloat16) if device == "cuda" else nullcontext()
    printed = -1.0
    for step, (inputs, targets) in enumerate(make_loader(BATCH_SIZE, SEQ_LEN, seed, device)):
        progress = budget.progress()
        if progress >= 1:
            break
        with bf16:
            loss = model(inputs, targets)
        if not loss.item() < 100:  # true for nan as well
            raise SystemExit(f"error: diverged: the loss is {loss.item():.4g} after {step} steps")
        loss.backward()
        with torch.no_grad():
            for optimizer in optimizers:
                optimizer.step(learning_rate(progress), WEIGHT_DECAY * (1 - progress))
        model.zero_grad(set_to_none=True)
        if step == 0 or progress - printed > 0.06:
            printed, speed = progress, (step + 1) * BATCH_SIZE * SEQ_LEN / budget.elapsed() / 1000
            print(f"step {step:05d} | loss {loss.item():.4f} | {progress:.1%} | {speed:.1f}k tok/s")
    return step


def load_model(path, device):
    """Return the trained model and its context, for score.py.

    `model(idx)` takes (rows, length <= context) tokens and returns the logits of each next token,
    (rows, length, vocab_size).
    """
    saved = torch.load(path, map_location=device)
    model = GPT(saved["vocab_size"])
    model.load_state_dict(saved["weights"])
    return model.to(device).eval(), SEQ_LEN


def main():
    device = pick_device()
    seed = int(os.environ.get("AUTORESEARCH_SEED", "1337"))
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(seed)
    vocab_size = load_meta()["vocab_size"]

    budget = Budget(device, TIME_BUDGET)
    model = GPT(vocab_size).to(device)
    steps = train(model, budget, seed, device)
    training_seconds = budget.elapsed()
    torch.save({"vocab_size": vocab_size, "weights": model.state_dict()}, "model.pt")
    load_model("model.pt", device)  # like score.py, so that a mistake shows here with a traceback

    tokens = steps * BATCH_SIZE * SEQ_LEN
    print_summary(
        budget,
        training_seconds=training_seconds,
        steps=steps,
        tokens=tokens,
        flops=tokens * model.flops_per_token(),
        params=sum(p.numel() for p in model.parameters()),
        depth=DEPTH,
    )


if __name__ == "__main__":
    main()
