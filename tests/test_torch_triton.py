"""The Triton kernels compile for a GPU that is not there, from the plans and calls of ``torch_kernels``, and fit it."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from triton_modes import kernels

from course_lib.torch_kernels import HOPPER_BYTES, TritonLSTM, plan_for

CAPABILITY = 90  # Hopper

every_plan = pytest.mark.parametrize(
    ("dtype", "H", "precision"),
    [
        (torch.bfloat16, 128, "ieee"),
        (torch.bfloat16, 300, "ieee"),
        (torch.float32, 64, "ieee"),
        (torch.float32, 512, "ieee"),
        (torch.float32, 64, "tf32"),
        (torch.float64, 33, "ieee"),
        (torch.float64, 65, "ieee"),
    ],
    ids=lambda part: str(part).removeprefix("torch."),
)


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A function: from a dtype, H and a precision to the compiled kernels of a forward and a backward pass, never run."""
    triton = pytest.importorskip("triton", reason="Triton exists for Linux only")
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    if not (tools / "ptxas").exists():
        pytest.skip("this Triton comes without NVIDIA's assembler")
    device = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", CAPABILITY, 32),
    )
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    run, compiled = JITFunction.run, []
    compile_only = lambda self, *args, **options: compiled.append(run(self, *args, **{**options, "warmup": True}))  # noqa: E731
    monkeypatch.setattr(JITFunction, "run", compile_only)

    def compiled_for(dtype, H, precision="ieee"):
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = precision
        plan = plan_for(H, dtype)
        torch.backends.cuda.matmul.fp32_precision = before
        shapes = [(3, 5, 2), (5, H), (5, H), (4 * H, 2), (4 * H, H), (4 * H,)]
        inputs = [torch.zeros(shape, dtype=dtype, requires_grad=True) for shape in shapes]
        hs, h, c = TritonLSTM.apply(*inputs, None, plan)
        (hs.sum() + h.sum() + c.sum()).backward()
        return plan, dict(zip(("forward", "backward"), compiled, strict=True))

    monkeypatch.setattr(triton.runtime.driver, "_active", device)
    with kernels(interpreted=False):
        yield SimpleNamespace(compiled_for=compiled_for, tools=tools)


@every_plan
def test_kernels_compile_and_fit_a_hopper_gpu(compiler, tmp_path, dtype, H, precision):
    plan, both = compiler.compiled_for(dtype, H, precision)
    assert plan.precision == precision
    for way, kernel in both.items():
        assert kernel.metadata.name == f"{way}_{plan.variant}"
        assert (kernel.metadata.num_warps, kernel.metadata.num_stages) == (plan.num_warps, plan.num_stages)
        shared, size = kernel.metadata.shared, dtype.itemsize
        if plan.variant == "resident":
            room = {2: 12, 1: 6}[plan.num_stages] * plan.BLOCK_N * plan.BLOCK_H * size
            assert 4 * plan.BLOCK_H**2 * size <= shared <= 4 * plan.BLOCK_H**2 * size + room
        assert shared <= HOPPER_BYTES
        multiplied_by_tensor_cores = "mma.sync" in kernel.asm["ptx"] or "wgmma" in kernel.asm["ptx"]
        assert multiplied_by_tensor_cores == (plan.BLOCK_N == 16)
        binary = tmp_path / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        usage = subprocess.run([compiler.tools / "cuobjdump", "-res-usage", binary], capture_output=True, text=True, check=True)
        assert re.search(r"\bSTACK:0\b", usage.stdout), usage.stdout  # all in registers, none of them spilled to memory


@pytest.mark.parametrize("H", [128, 300])
def test_threads_meet_where_they_share_memory(compiler, H):
    """What the interpreter cannot see. Resident: nowhere, since states stay inside. Streamed: after the states of a step, and
    backward also between da and dh; each inside the time loop and outside the loops over tiles."""
    plan, both = compiler.compiled_for(torch.bfloat16, H)
    depths = {way: barrier_depths(kernel.asm["ttir"]) for way, kernel in both.items()}
    expected = {"resident": {"forward": [], "backward": []}, "streamed": {"forward": [1], "backward": [1, 1]}}
    assert depths == expected[plan.variant]


def barrier_depths(ir):
    """How many loops are around each barrier of Triton's intermediate code, by its indentation: a kernel's body has 4."""
    lines = [line for line in ir.splitlines() if re.search(r"^ +\S*\bbarrier\b", line)]
    return [(len(line) - len(line.lstrip()) - 4) // 2 for line in lines]
