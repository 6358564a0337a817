"""In which numbers a model computes: what is asked for, and what the processor is good at."""

from typing import Literal

import torch

DType = Literal["float32", "bfloat16", "float16", "int8"]


def fastest_dtype(device: torch.device) -> DType:
    """bfloat16 where there are instructions for it, float32 elsewhere: emulated it is seven times slower."""
    if device.type == "cpu":
        known = torch.cpu.get_capabilities()
        return "bfloat16" if known.get("avx512_bf16") or known.get("amx_bf16") else "float32"
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "float32"
