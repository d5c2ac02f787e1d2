"""
Compile the unchanged program once, so that runs need not. Frozen.

    python precompile.py        # after prepare.py, on the GPU

torch.compile's kernels go to compiled/kernels.bin. A run reads them from there and keeps what it
compiles itself in its own temporary folder: runs cannot write compiled/, so no run can change what
another one executes. A change of the program is compiled where it differs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FOLDER = Path(__file__).absolute().parent / "compiled"


def describe_machine() -> dict[str, str]:
    """What kernels are for."""
    import torch

    return {"torch": torch.__version__, "device": torch.cuda.get_device_name()}


def load_kernels(device: str) -> bool:
    """Use the kernels in compiled/, if they are for this GPU and this PyTorch. Whether they are."""
    if device != "cuda" or not (FOLDER / "machine.json").is_file():
        return False
    if json.loads((FOLDER / "machine.json").read_text(encoding="utf-8")) != describe_machine():
        return False
    return use(FOLDER / "kernels.bin")


def use(file: Path) -> bool:
    """Put the kernels of a file into this process's own cache."""
    import torch

    return torch.compiler.load_cache_artifacts(file.read_bytes()) is not None


def save(file: Path) -> int:
    """Write the kernels that this process has compiled. Returns how many bytes."""
    import torch

    artifacts = torch.compiler.save_cache_artifacts()
    data = artifacts[0] if artifacts else b""
    part = file.with_suffix(".part")
    part.write_bytes(data)
    os.replace(part, file)  # noqa: PTH105
    return len(data)


def main() -> None:
    from corpus import fail
    from device import pick_device
    from prepare import load_meta
    from train import Trainer

    if pick_device() != "cuda":
        fail("only for GPUs: on other devices nothing is compiled")
    Trainer(load_meta()["vocab_size"], "cuda").warm_up()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "machine.json").unlink(missing_ok=True)
    size = save(FOLDER / "kernels.bin")
    (FOLDER / "machine.json").write_text(json.dumps(describe_machine()), encoding="utf-8")
    print(f"compiled/kernels.bin: {size:,} bytes, for {describe_machine()['device']}")


if __name__ == "__main__":
    main()
