"""
Train a GPT of about 50 million parameters for five minutes on one GPU, and save it as model.pt.

    python train.py && python score.py
    torchrun --standalone --nproc_per_node=8 train.py     # the same on 8 GPUs

This is the file to edit: the knobs, the model, the optimizer, the schedule, the loop. Frozen are
prepare.py (the data), device.py (the clock), precompile.py (kernels from before) and score.py (the
metric: bits per byte on held-out text), which calls `load_model` in a process that sees only the
programs and model.pt.
"""

import gc
import importlib
import math
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from corpus import fail
from device import Budget, keep_freed_memory, pick_device, print_summary
from precompile import load_kernels
from prepare import TIME_BUDGET, load_meta, make_loader
from torch import nn

# -------------------------------------------------------------------------------------------------
# Knobs. A blank line between them lets patches that change one each be applied in any order.

DEPTH = 8  # transformer blocks; in [2, 24]

WIDTH = 512  # of the residual stream; one of: 256, 384, 512, 640, 768, 1024

HEAD_DIM = 128  # of attention; one of: 64, 128

MLP_RATIO = 4  # hidden units of the MLP per unit of width; in [1, 8]

SEQ_LEN = 2048  # tokens a row, in training and when it is scored; one of: 1024, 2048, 4096

WINDOWS = "SSSL"  # short and long, over and over; one of: "SSSL", "SSSSL", "SSL", "SL", "L"

SHORT_WINDOW = SEQ_LEN // 2  # tokens that a block with a short window looks back

ROTARY_BASE = 10000.0  # the longest wavelength, in tokens, over 2 pi; in [1000, 1000000]

VALUE_EMBEDDINGS = True  # every other block, the last included, mixes a token embedding into V

GATE_CHANNELS = 32  # of the stream, which decide how much of it; in [8, 64]

SOFTCAP = 15.0  # logits are squashed into (-SOFTCAP, SOFTCAP); in [5, 60]

INIT_SCALE = 1.0  # of the matrices, relative to uniform with variance 1 / WIDTH; in [0.2, 3]

TOKEN_SCALE = 0.1  # how much of the token's embedding each block adds at first; in [0, 0.5]

TOTAL_BATCH = 2**19  # tokens a step; its exponent in [16, 20]

DEVICE_BATCH = 128  # rows that one GPU has in memory at a time; one of: 16, 32, 64, 128, 256

MATRIX_LR = 0.04  # Muon, the blocks' matrices; in [0.005, 0.3]

EMBEDDING_LR = 0.6  # AdamW, token and value embeddings, times (WIDTH / 768) ** -0.5; in [0.05, 5]

UNEMBEDDING_LR = 0.004  # AdamW, the output matrix, times the same; in [0.0005, 0.1]

SCALAR_LR = 0.5  # AdamW, the residual scalars; in [0.02, 5]

WEIGHT_DECAY = 0.2  # of the matrices, fading to 0 with the budget; in [0, 1]

EMBEDDING_DECAY = 0.0  # of the token embedding; in [0, 0.1]

VALUE_DECAY = 0.0  # of the value embeddings; in [0, 0.1]

UNEMBEDDING_DECAY = 0.0  # of the output matrix; in [0, 0.1]

MOMENTUM = 0.95  # of Muon, Nesterov's; in [0.7, 0.99]

MOMENTUM_STEPS = 300  # in which it rises from 0.85; in [1, 2000]

MUON_BETA2 = 0.95  # of the mean square by which Muon evens out its updates; in [0.8, 0.999]

BETA1 = 0.8  # of AdamW; in [0.5, 0.95]

BETA2 = 0.95  # of AdamW; in [0.8, 0.999]

WARMUP = 0.0  # fraction of the budget for the learning rates to rise from 0; in [0, 0.3]

WARMDOWN = 0.5  # fraction of the budget for them to fall; in [0.1, 1]

FINAL_LR = 0.0  # what they fall to, as a fraction; in [0, 0.3]

ATTENTION = "auto"  # fixed; the others are "flash", "flex" and "sdpa"

# -------------------------------------------------------------------------------------------------
# Several GPUs: torchrun starts a process for each, and tells it which one it is.

RANK = int(os.environ.get("RANK", "0"))
WORLD = int(os.environ.get("WORLD_SIZE", "1"))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", "0"))


def join(device):
    """Take this process's GPU, or one thread, and meet the other processes, if there are any."""
    if device == "cuda":
        torch.cuda.set_device(LOCAL_RANK)
    elif device == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    if WORLD > 1:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")


def average_gradients(model):
    for p in model.parameters() if WORLD > 1 else ():
        dist.all_reduce(p.grad)
        p.grad /= WORLD


def agree(loss, progress):
    """Return the loss and the clock of the first process, so that all stop after the same step."""
    if WORLD == 1:
        return loss, progress
    numbers = [loss, progress]
    dist.broadcast_object_list(numbers, src=0)
    return numbers


# -------------------------------------------------------------------------------------------------
# Attention: q, k and v are (rows, length, heads, head_dim). A token sees itself and `window` tokens
# before it.


def pick_attention(device):
    """Return (name, function) of the fastest attention that is here.

    "flash" is a package: FlashAttention 3 (Hopper), or 2 (NVIDIA since Ampere, AMD). "flex" is
    PyTorch's FlexAttention, compiled by Triton. "sdpa" runs everywhere, but in a short window it
    computes what it then masks.
    """
    if device == "cuda" and ATTENTION in ("auto", "flash"):
        for package in ("flash_attn_interface", "flash_attn"):
            if function := find_flash(package):
                return package, lambda q, k, v, window: function(
                    q, k, v, causal=True, window_size=(window, 0)
                )
    if ATTENTION == "flash":
        fail('ATTENTION = "flash", and neither flash_attn_interface nor flash_attn is installed')
    if ATTENTION == "flex" or (ATTENTION == "auto" and device == "cuda"):
        return "flex", make_flex(device)
    return "sdpa", attend_sdpa


def find_flash(package):
    """Return `flash_attn_func` of a package, which older ones return in a tuple with statistics.
    None if the package is not installed, or not for this GPU."""
    try:
        function = importlib.import_module(package).flash_attn_func
    except (ImportError, AttributeError, OSError):
        return None
    is_hopper = torch.version.hip is None and torch.cuda.get_device_capability()[0] == 9
    if package == "flash_attn_interface" and not is_hopper:
        return None

    def first(*args, **options):
        result = function(*args, **options)
        return result[0] if isinstance(result, tuple) else result

    return first


def make_flex(device):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def make_mask(window):
        def sees(b, h, q, k):
            return (q >= k) & (q - k <= window)

        return create_block_mask(sees, None, None, SEQ_LEN, SEQ_LEN, device=device)

    masks = {window: make_mask(window) for window in set(window_sizes())}

    def attend(q, k, v, window):
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return flex_attention(q, k, v, block_mask=masks[window]).transpose(1, 2)

    return attend


def attend_sdpa(q, k, v, window):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    length, mask = q.size(2), None
    if window < length - 1:
        place = torch.arange(length, device=q.device)
        back = place[:, None] - place
        mask = (back >= 0) & (back <= window)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return y.transpose(1, 2)


def window_sizes():
    """Return how many tokens each block looks back."""
    sizes = {"S": SHORT_WINDOW, "L": SEQ_LEN}
    return [*(sizes[WINDOWS[i % len(WINDOWS)]] for i in range(DEPTH - 1)), SEQ_LEN]


# -------------------------------------------------------------------------------------------------
# Model: rotary positions, QK norm, RMSNorm without weights, squared ReLU, no biases. Its weights
# are float32. It computes in `dtype`.


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def linear(x, weight):
    return F.linear(x, weight.to(x.dtype))


def rotate(x, cos, sin):
    """Apply rotary positions: rotate the halves of x (rows, length, heads, head_dim) as pairs."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, attend, window, has_value_embedding):
        super().__init__()
        self.attend, self.window = attend, window
        self.qkv = nn.ParameterList(matrix(WIDTH, WIDTH) for _ in range(3))
        self.proj = matrix(WIDTH, WIDTH, scale=0.0)
        self.gate = (
            matrix(WIDTH // HEAD_DIM, GATE_CHANNELS, scale=0.0) if has_value_embedding else None
        )

    def forward(self, x, value_embedding, cos, sin):
        rows, length, _ = x.shape
        q, k, v = (linear(x, w).view(rows, length, -1, HEAD_DIM) for w in self.qkv)
        if value_embedding is not None:
            gate = 2 * torch.sigmoid(linear(x[..., :GATE_CHANNELS], self.gate))  # 1 at the start
            v = v + gate[..., None] * value_embedding.view(v.shape)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        y = self.attend(q, k, v, self.window)
        return linear(y.reshape(x.shape), self.proj)


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = matrix(MLP_RATIO * WIDTH, WIDTH)
        self.down = matrix(WIDTH, MLP_RATIO * WIDTH, scale=0.0)

    def forward(self, x):
        return linear(F.relu(linear(x, self.up)).square(), self.down)


class GPT(nn.Module):
    def __init__(self, vocab_size, attend, dtype):
        super().__init__()
        assert WIDTH % HEAD_DIM == 0, f"WIDTH = {WIDTH} does not divide into HEAD_DIM = {HEAD_DIM}"
        self.dtype = dtype
        has_ve = [VALUE_EMBEDDINGS and i % 2 == (DEPTH - 1) % 2 for i in range(DEPTH)]
        self.embedding = nn.Parameter(torch.randn(vocab_size, WIDTH))
        self.value_embeddings = nn.ParameterDict(
            {str(i): matrix(vocab_size, WIDTH) for i in range(DEPTH) if has_ve[i]}
        )
        self.attention = nn.ModuleList(
            Attention(attend, window, has_ve[i]) for i, window in enumerate(window_sizes())
        )
        self.mlp = nn.ModuleList(MLP() for _ in range(DEPTH))
        self.stream_scale = nn.Parameter(torch.ones(DEPTH))  # of the residual stream into a block
        self.token_scale = nn.Parameter(torch.full((DEPTH,), TOKEN_SCALE))
        self.unembedding = nn.Parameter(0.001 * torch.randn(vocab_size, WIDTH))
        frequencies = ROTARY_BASE ** -torch.linspace(0, 1, HEAD_DIM // 2 + 1)[:-1]
        angles = torch.outer(torch.arange(SEQ_LEN), frequencies)[:, None, :]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, idx, targets=None):
        """Return (rows, length, vocab_size) logits, or with targets the mean loss in nats."""
        cos, sin = (t[: idx.size(1)].to(self.dtype) for t in (self.cos, self.sin))
        x = tokens = norm(F.embedding(idx, self.embedding).to(self.dtype))
        for i in range(DEPTH):
            x = self.stream_scale[i] * x + self.token_scale[i] * tokens
            ve = self.value_embeddings.get(str(i))
            ve = None if ve is None else F.embedding(idx, ve).to(self.dtype)
            x = x + self.attention[i](norm(x), ve, cos, sin)
            x = x + self.mlp[i](norm(x))
        logits = linear(norm(x), self.unembedding).float()
        logits = SOFTCAP * torch.tanh(logits / SOFTCAP)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def flops_per_token(self):
        """Forward and backward: 6 per weight of a matmul, and 12 x width x window of attention."""
        lookups = self.embedding.numel() + sum(p.numel() for p in self.value_embeddings.values())
        weights = sum(p.numel() for p in self.parameters()) - lookups - 2 * DEPTH
        return 6 * weights + 12 * WIDTH * sum(min(w, SEQ_LEN) for w in window_sizes())


def matrix(rows, columns, scale=1.0):
    bound = scale * INIT_SCALE * math.sqrt(3 / WIDTH)
    return nn.Parameter(torch.empty(rows, columns).uniform_(-bound, bound))


# -------------------------------------------------------------------------------------------------
# Optimizer: Muon for the matrices, AdamW for the rest. The steps are functions of tensors, so that
# a compiler can fuse them, and does not compile them again when a rate changes.

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


def even_out(update, square, beta2):
    """Give the rows (of wide matrices: the columns) of an update like sizes, and keep that of the
    whole (NorMuon, arXiv 2510.05491). `square` is their running mean square."""
    along = -1 if update.size(-2) >= update.size(-1) else -2
    now = update.square().mean(dim=along, keepdim=True)
    square.lerp_(now, 1 - beta2)
    scale = square.clamp_min(1e-10).rsqrt()
    size, new_size = (s.sum(dim=(-2, -1), keepdim=True).sqrt() for s in (now, now * scale.square()))
    return update * scale * (size / new_size.clamp_min(1e-10))


def muon_step(params, grads, mean, square, rate, decay, momentum, beta2, dtype):
    """Update (matrices, rows, columns) in place."""
    mean.lerp_(grads, 1 - momentum)
    update = orthogonalize(grads.lerp(mean, momentum).to(dtype)).float()
    update = even_out(update, square, beta2)
    shrinks = update * params >= 0  # decay only where the update shrinks the weight
    params.sub_(rate * (update + decay * params * shrinks))


def adamw_step(param, grad, mean, square, step, rate, decay, beta1, beta2):
    param.mul_(1 - rate * decay)
    mean.lerp_(grad, 1 - beta1)
    square.lerp_(grad.square(), 1 - beta2)
    size = (square / (1 - beta2**step)).sqrt() + 1e-10
    param.sub_(rate / (1 - beta1**step) * mean / size)


class Muon:
    """Orthogonalised momentum for matrices of one shape, with cautious weight decay."""

    def __init__(self, params, lr, dtype, step):
        rows, columns = params[0].shape
        self.params, self.dtype, self.function = params, dtype, step
        self.lr = lr * max(1.0, rows / columns) ** 0.5
        self.mean = torch.zeros(len(params), rows, columns, device=params[0].device)
        self.square = self.mean.mean(dim=-1 if rows >= columns else -2, keepdim=True)

    def step(self, rate, decay, momentum):
        params, grads = torch.stack(self.params), torch.stack([p.grad for p in self.params])
        numbers = map(torch.tensor, (self.lr * rate, decay, momentum, MUON_BETA2))
        self.function(params, grads, self.mean, self.square, *numbers, self.dtype)
        torch._foreach_copy_(self.params, params.unbind(0))

    def reset(self):
        self.mean.zero_()
        self.square.zero_()


class AdamW:
    """Adam with decoupled weight decay, for a list of parameters."""

    def __init__(self, params, lr, step, decay=0.0, beta1=BETA1, beta2=BETA2):
        self.params, self.function, self.steps = params, step, 0
        self.lr, self.decay, self.betas = lr, decay, (beta1, beta2)
        self.mean = [torch.zeros_like(p) for p in params]
        self.square = [torch.zeros_like(p) for p in params]

    def step(self, rate, decay, momentum):
        self.steps += 1
        numbers = (float(self.steps), self.lr * rate, self.decay, *self.betas)
        numbers = [torch.tensor(number) for number in numbers]
        for p, mean, square in zip(self.params, self.mean, self.square, strict=True):
            self.function(p, p.grad, mean, square, *numbers)

    def reset(self):
        self.steps = 0
        torch._foreach_zero_([*self.mean, *self.square])


def make_optimizers(model, compiler):
    """Give each parameter an optimizer and a learning rate. Muon has one optimizer per shape."""
    muon, adamw = compiler(muon_step), compiler(adamw_step)
    blocks = [*model.attention.parameters(), *model.mlp.parameters()]
    shapes = sorted({p.shape for p in blocks})
    width_scale = (WIDTH / 768) ** -0.5
    value_embeddings = [*model.value_embeddings.values()]
    groups = [
        Muon([p for p in blocks if p.shape == shape], MATRIX_LR, model.dtype, muon)
        for shape in shapes
    ]
    return [
        *groups,
        AdamW([model.embedding], EMBEDDING_LR * width_scale, adamw, EMBEDDING_DECAY),
        AdamW(value_embeddings, EMBEDDING_LR * width_scale, adamw, VALUE_DECAY),
        AdamW([model.unembedding], UNEMBEDDING_LR * width_scale, adamw, UNEMBEDDING_DECAY),
        AdamW([model.stream_scale], SCALAR_LR * 0.01, adamw),  # near 1: a small step is large
        AdamW([model.token_scale], SCALAR_LR, adamw, beta1=0.96),
    ]


# -------------------------------------------------------------------------------------------------
# Schedules: of the budget's progress (0 to 1), and of the steps


def learning_rate(progress):
    """Return the factor on all learning rates."""
    rise = progress / WARMUP if WARMUP > 0 else 1.0
    fall = (1 - progress) / WARMDOWN if WARMDOWN > 0 else 1.0
    return min(1.0, rise, fall + (1 - min(1.0, fall)) * FINAL_LR)


def weight_decay(progress):
    return WEIGHT_DECAY * (1 - progress)


def muon_momentum(step, progress):
    return 0.85 + (MOMENTUM - 0.85) * min(1.0, step / MOMENTUM_STEPS)


# -------------------------------------------------------------------------------------------------
# Training


def pick_compiler(device):
    """Return the compiler, which does nothing without a GPU, and the type to compute in."""
    if device == "cuda":
        return torch.compile, torch.bfloat16
    return lambda function, **options: function, torch.float32


class Trainer:
    """A model with its optimizers, compiled if there is a GPU."""

    def __init__(self, vocab_size, device):
        self.device = device
        self.attention, attend = pick_attention(device)
        compiler, dtype = pick_compiler(device)
        self.model = GPT(vocab_size, attend, dtype).to(device)
        self.forward = compiler(self.model, dynamic=False)
        self.optimizers = make_optimizers(
            self.model, lambda function: compiler(function, dynamic=False, fullgraph=True)
        )
        rows = TOTAL_BATCH // SEQ_LEN // WORLD
        self.rows = min(DEVICE_BATCH, rows)  # at a time
        if TOTAL_BATCH % (SEQ_LEN * WORLD) or rows % self.rows:
            fail(
                f"TOTAL_BATCH = {TOTAL_BATCH} is no multiple of DEVICE_BATCH x SEQ_LEN x GPUs "
                f"= {DEVICE_BATCH} x {SEQ_LEN} x {WORLD}"
            )
        self.micro_steps = rows // self.rows

    def backward(self, inputs, targets):
        """Add a part of the step to the gradients. Returns its loss, which is not there yet: a GPU
        works on while Python goes on."""
        loss = self.forward(inputs, targets)
        (loss / self.micro_steps).backward()
        return loss.detach()

    def update(self, rate, decay, momentum):
        average_gradients(self.model)
        with torch.no_grad():
            for optimizer in self.optimizers:
                optimizer.step(rate, decay, momentum)
        self.model.zero_grad(set_to_none=True)

    def warm_up(self):
        """Compile everything and allocate the memory, outside the budget. It learns nothing: the
        tokens are all the same, the rates are 0, and the optimizers forget them."""
        shape = (2, self.rows, SEQ_LEN)
        inputs, targets = torch.zeros(shape, dtype=torch.long, device=self.device).unbind()
        for _ in range(2 if self.device == "cuda" else 1):
            for _ in range(self.micro_steps):
                self.backward(inputs, targets)
            self.update(0.0, 0.0, MOMENTUM)
        for optimizer in self.optimizers:
            optimizer.reset()

    def train(self, loader, budget):
        """Train until the budget is spent. Returns the number of steps."""
        step, progress, printed = 0, 0.0, -1.0
        inputs, targets = next(loader)
        while progress < 1:
            for _ in range(self.micro_steps):
                loss = self.backward(inputs, targets)
                inputs, targets = next(loader)  # while the GPU works
            momentum = muon_momentum(step, progress)
            self.update(learning_rate(progress), weight_decay(progress), momentum)
            step += 1
            loss, progress = agree(loss.item(), budget.progress())
            if not loss < 100:  # true for nan as well
                fail(f"diverged: the loss is {loss:.4g} after {step} steps")
            if RANK == 0 and (step == 1 or progress - printed > 0.04):
                printed, speed = progress, step * TOTAL_BATCH / budget.elapsed() / 1000
                line = f"step {step:05d} | loss {loss:.4f} | {progress:.1%} | {speed:.1f}k tok/s"
                print(line, flush=True)
        return step


def load_model(path, device):
    """Return the trained model and its context, for score.py.

    `model(idx)` takes (rows, length <= context) tokens and returns the logits of each next token,
    (rows, length, vocab_size). It computes in float32, whose rounding is the same in every batch.
    """
    saved = torch.load(path, map_location=device)
    model = GPT(saved["vocab_size"], attend_sdpa, torch.float32)
    model.load_state_dict(saved["weights"])
    return model.to(device).eval(), SEQ_LEN


def check_device(device):
    """End the program if it would not be done today."""
    if device == "cpu" and TOTAL_BATCH * WIDTH * DEPTH > 2**24:
        fail(
            "there is no GPU that PyTorch can use, and on a CPU a step of this size takes minutes. "
            "`python toy.py` makes it small enough to try it"
        )
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        fail(f"{torch.cuda.get_device_name()} has no bfloat16; NVIDIA's GPUs have it since Ampere")


def run():
    device = pick_device()
    check_device(device)
    join(device)
    seed = int(os.environ.get("AUTORESEARCH_SEED", "1337"))
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    load_kernels(device)

    trainer = Trainer(load_meta()["vocab_size"], device)
    if RANK == 0:
        print(f"device {device} x {WORLD}, attention {trainer.attention}, seed {seed}", flush=True)
    trainer.warm_up()
    gc.collect()  # then never: a collection stalls the GPU
    gc.freeze()
    gc.disable()
    budget = Budget(device, TIME_BUDGET)
    loader = make_loader(trainer.rows, SEQ_LEN, seed, device, budget, RANK, WORLD)
    steps = trainer.train(loader, budget)
    training_seconds = budget.elapsed()
    if RANK > 0:
        return

    model = trainer.model
    weights = model.state_dict()
    torch.save({"vocab_size": len(model.embedding), "weights": weights}, "model.pt")
    load_model("model.pt", device)  # like score.py, so that a mistake shows here with a traceback
    tokens = steps * TOTAL_BATCH
    print_summary(
        budget,
        training_seconds=training_seconds,
        steps=steps,
        tokens=tokens,
        flops=tokens * model.flops_per_token(),
        params=sum(p.numel() for p in model.parameters()),
        depth=DEPTH,
        devices=WORLD,
        file="run.json",
    )


def main():
    try:
        run()
    except (torch.OutOfMemoryError, MemoryError) as error:
        fail(
            f"out of memory: {error}\nHalve DEVICE_BATCH, now {DEVICE_BATCH} rows of {SEQ_LEN} "
            "tokens: a step takes the same tokens in more parts. Or make the model smaller"
        )
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
