"""What one device can do at its best: the one table of chips, for plans and for measured runs.

Sources, read in November 2026: cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e} (peak in bf16, HBM, its bandwidth, both directions of all ICI
ports together; DCN of v5e: 6.4 Tbit/s of a pod over its 256 chips). `usable` is what the compiler of libtpu 0.0.42.1 gives a program, read from its own refusal of one too large. GPUs: NVIDIA's data
sheets of A100, H100 and H200, bf16 on tensor cores without sparsity. `kinds` of TPUs: jax/_src/pallas/mosaic/tpu_info.py of jax 0.10.
"""
import dataclasses
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """kinds: the names that JAX has for such a device (device_kind). peak: bf16 FLOP/s. The rest is for plans: platform: the compiler's name, empty
    for what it is not asked for. hbm, usable: bytes. hbm_bandwidth, ici_bandwidth, dcn_bandwidth: bytes/s; ici: of all ports, both directions; dcn: a chip's share of the network between slices, one direction. clock: cycles/s. per_name:
    what a slice's number counts for each chip (2: cores). options: of the compiler's topology."""

    kinds: tuple[str, ...]
    peak: float
    platform: str = ""
    hbm: float = 0.0
    usable: float = 0.0
    hbm_bandwidth: float = 0.0
    ici_bandwidth: float = 0.0
    dcn_bandwidth: float = 0.0
    clock: float = 0.0
    per_name: int = 1
    options: tuple[tuple[str, Any], ...] = ()


CHIPS = {
    # The page says 1200 GB/s of HBM, the paper of v4 (arXiv:2304.01433) 1.2 TB/s: 1228 is from memory, as is ICI: 6 links of 50 GB/s each way, and DCN: that of v5p.
    # Clocks: v4's is the paper's; the others are the peak over what their matrix units multiply and add in a cycle, v6e's units from memory.
    # megacore: the two cores of a chip are one device, as a TPU VM has them.
    "v4": Chip(("TPU v4",), 275e12, "v4", 32 * GIB, 30.75 * GIB, 1.228e12, 600e9, 6.25e9, 1.05e9, 2, (("chip_config_name", "megacore"),)),
    "v5e": Chip(("TPU v5 lite", "TPU v5e"), 197e12, "v5e", 16 * GIB, 15.75 * GIB, 819e9, 400e9, 3.125e9, 1.5e9),
    "v5p": Chip(("TPU v5", "TPU v5p"), 459e12, "v5p", 95 * GIB, 95.74 * GIB, 2765e9, 1200e9, 6.25e9, 1.75e9, 2),  # the compiler gives a little more than the page states
    "v6e": Chip(("TPU v6 lite", "TPU v6e"), 918e12, "v6e", 32 * GIB, 31.25 * GIB, 1638e9, 800e9, 12.5e9, 1.75e9),
    "a100": Chip(("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"), 312e12),
    "h100": Chip(("NVIDIA H100 80GB HBM3",), 989e12),
    "h100-pcie": Chip(("NVIDIA H100 PCIe",), 756e12),
    "h200": Chip(("NVIDIA H200",), 989e12),
}


def peak(kind: str) -> float | None:
    """bf16 FLOP/s of a device by its device_kind; None for a CPU and for what the table does not hold."""
    return next((chip.peak for chip in CHIPS.values() if kind in chip.kinds), None)
