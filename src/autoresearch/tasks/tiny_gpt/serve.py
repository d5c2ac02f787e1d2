"""
Answer the questions of score.py, in a process that executes the agent's code. Frozen.

It is started in a folder with the programs and model.pt, and sees nothing else. First it
writes how many tokens the model reads at a time. Then it answers until its input ends:

    out    {"context": N}, a line
    in     rows and length, uint32; (rows, length) tokens, uint16
    out    (rows, length, vocab_size) logits, float32
"""

import json
import os
import struct
import sys

import numpy as np

answers = os.fdopen(os.dup(1), "wb", buffering=0)
os.dup2(2, 1)  # the model's own output goes to stderr


def main():
    import torch
    from device import keep_freed_memory, pick_device
    from train import load_model

    device = pick_device()
    torch.set_num_threads(1)
    keep_freed_memory()
    model, context = load_model("model.pt", device)
    answers.write(json.dumps({"context": context}).encode() + b"\n")
    with torch.inference_mode():
        while header := sys.stdin.buffer.read(8):
            rows, length = struct.unpack("=II", header)
            tokens = np.frombuffer(sys.stdin.buffer.read(2 * rows * length), dtype=np.uint16)
            idx = torch.from_numpy(tokens.astype(np.int64)).view(rows, length).to(device)
            logits = memoryview(model(idx).float().cpu().contiguous().numpy()).cast("B")
            while logits:
                logits = logits[answers.write(logits) :]


if __name__ == "__main__":
    main()
