"""Every environment variable that flipfast reads."""

import os


def server_url() -> str | None:
    """FLIPFAST_URL: the address of a flipfast server, for clients created without one."""
    return os.environ.get("FLIPFAST_URL") or None


def api_key() -> str | None:
    """FLIPFAST_API_KEY: the bearer key of that server."""
    return os.environ.get("FLIPFAST_API_KEY") or None


def show_one_gpu(index: int) -> None:
    """CUDA_VISIBLE_DEVICES: keep one of its GPUs, as "cuda:0"; call before CUDA is used."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)


def openai_api_key() -> str | None:
    """OPENAI_API_KEY: the bearer key of an OpenAI-compatible server that runs the inverter."""
    return os.environ.get("OPENAI_API_KEY") or None


def cpu_isa() -> str | None:
    """FLIPFAST_CPU_ISA: the instruction set for the CPU kernels, instead of the best available."""
    return os.environ.get("FLIPFAST_CPU_ISA") or None
