"""A cell as one Python file for others: its Triton kernels and their launches, an operator of PyTorch with autograd."""

from __future__ import annotations

import keyword
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kernelgen.cells.language import Cell
from kernelgen.emit import triton_parameters, triton_resident, triton_streaming
from kernelgen.emit.text import backward_equations, equations
from kernelgen.emit.triton import HELPERS, helper_functions
from kernelgen.emit.triton_text import block_d
from kernelgen.program.shape import Shape
from kernelgen.symbolic.derive import derive

MARK = "Triton kernels by tilesmith"
"""How the docstring goes on after the cell's title."""


@dataclass(frozen=True)
class Pass:
    """The tilings of a direction. streaming: whether its kernel is that of emit/triton_streaming.py, launched for every
    step, rather than that of emit/triton_resident.py. chosen: its tile variables. others: further ones worth trying, of
    the same kernel; proved: what is known of the chosen one, in words."""

    chosen: Mapping[str, int]
    others: Sequence[Mapping[str, int]]
    proved: str
    streaming: bool = False


_TAKEN = {"torch", "triton", "tl", "contextlib", "step", "backward_step", "forward_op", "backward_op", *HELPERS}


def function_name(cell: Cell) -> str:
    """What the module's function is called: as the cell, where nothing else is."""
    taken = cell.name in _TAKEN or keyword.iskeyword(cell.name) or cell.name.endswith(("_kernel", "_tuned"))
    return f"{cell.name}_cell" if taken else cell.name


def triton_module(cell: Cell, shape: Shape, gpu: str, arch: str, ahead: Pass, back: Pass, parts: int) -> str:
    """The text. gpu, arch: for which it was tuned. ahead, back: forward and backward. parts: into how many the steps
    are cut for the gradient of R."""
    saving = replace(shape, save="gates", recompute=False)
    alone = replace(saving, save="hidden")  # of the states after every step, only h gets a gradient from outside
    bodies = [
        triton_streaming.forward(cell, saving, "forward_kernel", may_save=True)
        if ahead.streaming
        else triton_resident.forward(cell, saving, "forward_kernel", ahead.chosen["num_stages"], may_save=True),
        triton_streaming.backward(cell, alone, "backward_kernel")
        if back.streaming
        else triton_resident.backward(cell, alone, "backward_kernel", back.chosen["num_stages"]),
        triton_parameters.gradients(cell, saving, "parameter_gradients_kernel"),
        triton_parameters.sums(cell, saving, "sum_of_parts_kernel"),
    ]
    used = set().union(*(body.used for body in bodies))
    parts_text = [
        _docstring(cell, shape, gpu, ahead, back),
        "from __future__ import annotations\n\nimport contextlib\nimport os\n\nimport torch\nimport triton\n"
        "import triton.language as tl\nfrom torch import Tensor\n",
        _constants(cell, shape, ahead, back, parts),
        helper_functions(used, arch, shape.dtype),
        *dict.fromkeys(function for body in bodies for function in body.functions),
        *(body.kernel for body in bodies),
        _launches(cell, saving, [body.arguments for body in bodies], ahead.streaming, back.streaming),
    ]
    return "\n\n\n".join(part.strip("\n") for part in parts_text if part) + "\n"


def _docstring(cell: Cell, shape: Shape, gpu: str, ahead: Pass, back: Pass) -> str:
    gates, recurrent, bias = len(cell.input_gates), len(cell.recurrent_gates), len(cell.bias_gates)
    h, d, states = shape.heads, shape.head_dim, len(cell.states)

    def names(indices: Iterable[int]) -> str:
        return ", ".join(cell.gates[index].name for index in indices) or "none"

    return (
        f'"""{MARK}: {cell.title}\n\n'
        f"Tuned for {shape} on {gpu}; right for any batch and number of steps.\n"
        "It needs PyTorch and Triton, nothing else.\n\n"
        f"    h, last = {function_name(cell)}(wx, r, b, initial)\n\n"
        f"    wx       [B, T, {gates}, {h}, {d}]  inputs of the gates {names(cell.input_gates)}: W x, for every step\n"
        f"    r        [{recurrent}, {h}, {d}, {d}]  recurrent weights of {names(cell.recurrent_gates)}: "
        "r[g, head, unit, previous unit]\n"
        f"    b        [{bias}, {h}, {d}]  biases of {names(cell.bias_gates)}\n"
        f"    initial  [{states}, B, {h}, {d}]  the states {', '.join(cell.states)} before the first step; None for "
        "zeros\n"
        f"    h        [B, T, {h}, {d}]  {cell.states[0]} after every step\n"
        f"    last     [{states}, B, {h}, {d}]  all states after the last step\n\n"
        f"All are C-contiguous, of {shape.dtype}, on one GPU; sums are float32. h and last have gradients by all four "
        "arguments.\nautotune=True measures the candidates below at each new batch and number of steps, and takes the "
        "fastest.\n\n"
        "A step, of one head, where R_g h is the product of a gate:\n\n"
        f"{textwrap.indent(equations(cell), '    ')}\n\n"
        "Its gradients, where δx is that of x, and δx' that which comes from the later step and from outside:\n\n"
        f"{textwrap.indent(chr(10).join(backward_equations(cell)), '    ')}\n"
        f"    δ{cell.states[0]}(t-1) += the sum over the gates of R_g^T δg; "
        "δR_g = the sum over steps of δg h(t-1)^T\n\n"
        f"{_RUNS[ahead.streaming and back.streaming]}\n\n"
        f"{_filled(f'Forward: {ahead.proved}')}\n{_filled(f'Backward: {back.proved}')}\n"
        '"""'
    ).replace("\\", "\\\\")


_RUNS = (
    "One program of a kernel runs a tile of BLOCK_B sequences of one head through all steps. R stays in the layout\n"
    "that the matrix instructions read; h goes from step to step within the program, so no program waits for another.",
    "Every step is a launch: a program makes BLOCK_M units of a head for BLOCK_B sequences, and reads R from L2. So\n"
    "many launches are best recorded in a CUDA graph (torch.cuda.graph, or torch.compile's mode reduce-overhead).",
)


def _filled(text: str) -> str:
    return textwrap.fill(text, 110, subsequent_indent="    ", break_long_words=False)


def _config(tiling: Mapping[str, int], streaming: bool) -> str:
    names = {"BLOCK_B": "batch_tile"}
    if streaming:
        names |= {"BLOCK_M": "units", "BLOCK_K": "part_k", "STAGES": "num_stages"}
    else:
        names |= {"WEIGHTS_IN_REGISTERS": "weights_in_registers"}
    constants = ", ".join(f'"{name}": {tiling[variable]}' for name, variable in names.items())
    stages = tiling["num_stages"] if streaming else 1
    return f"triton.Config({{{constants}}}, num_warps={tiling['num_warps']}, num_stages={stages})"


def _constants(cell: Cell, shape: Shape, ahead: Pass, back: Pass, parts: int) -> str:
    lines = [
        f"HEADS, D = {shape.heads}, {shape.head_dim}",
        f"DTYPE = torch.{shape.dtype}",
        f"PARTS = {parts}  # into which the steps of all sequences are cut for the gradients of r and b",
        f"PARAMETER_TILE = {dict(triton_parameters.constants(shape.head_dim, parts))!r}",
        f"SUM_BLOCK = {triton_parameters.SUM_BLOCK}",
        "",
        "# The tuned launch comes first.",
    ]
    for name, tilings in (("FORWARD", ahead), ("BACKWARD", back)):
        every = [tilings.chosen, *tilings.others]
        lines += [f"{name} = [", *(f"    {_config(tiling, tilings.streaming)}," for tiling in every), "]"]
    return "\n".join(lines)


def _kept(restored: Sequence[str] = (), zeroed: Sequence[str] = ()) -> str:
    """What an autotuned kernel reads and writes, which must be as before when it is run once more."""
    text = f", restore_value={list(restored)!r}" if restored else ""
    return text + (f", reset_to_zero={list(zeroed)!r}" if zeroed else "")


def _launches(cell: Cell, shape: Shape, arguments: Sequence[Sequence[str]], ahead: bool, back: bool) -> str:
    """The text of the operators. ahead, back: whether the forward, the backward kernel is launched for every step."""
    code, states = derive(cell), len(cell.states)
    gates, recurrent, bias = len(cell.input_gates), len(cell.recurrent_gates), len(cell.bias_gates)
    saved, products, biases = len(code.saved_gates), len(cell.inputless_products), len(cell.inputless_biases)
    members = len(triton_parameters.members(cell))
    name = f"tilesmith_{cell.name}_{shape.heads}x{shape.head_dim}_{shape.dtype}"
    forward_names, backward_names, gradient_names, sum_names = (
        ", ".join(name for name in names if name != "step") for names in arguments
    )
    partial = ["d_b_partial"] if biases else []
    kept = {
        "forward": _kept(restored=["carried"] if ahead and states > 1 else []),
        "backward": _kept(restored=["d_carried", *partial]) if back else _kept(zeroed=partial),
    }
    padded = f"BLOCK_D={block_d(shape.head_dim)}"
    run_forward = "steps=range(seq)" if ahead else padded
    run_backward = "steps=range(seq + 1)" if back else padded
    carried = (
        f"    carried = wx.new_empty(({states - 1}, batch, HEADS, D), dtype=torch.float32)  # other states\n"
        if ahead and states > 1
        else ""
    )
    d_carried = f"    d_carried = states.new_empty(({states}, batch, HEADS, D), dtype=torch.float32)\n" if back else ""
    sizes = max(recurrent * shape.head_dim**2, bias * shape.head_dim)
    return f'''\
forward_tuned = triton.autotune(configs=FORWARD, key=["batch", "seq"]{kept["forward"]})(forward_kernel)
backward_tuned = triton.autotune(configs=BACKWARD, key=["batch", "seq"]{kept["backward"]})(backward_kernel)


def _device(x: Tensor):
    """The GPU of a tensor as the current one, on which Triton launches."""
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(f"Triton's kernels run on a GPU, and these tensors are on {{x.device}}")
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


@contextlib.contextmanager
def _no_warp_groups():
    """Triton compiles for products of single warps: tiles of a few sequences are too narrow for groups (wgmma)."""
    before = os.environ.get("DISABLE_MMA_V3")
    os.environ["DISABLE_MMA_V3"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DISABLE_MMA_V3"]
        else:
            os.environ["DISABLE_MMA_V3"] = before


def _launch(kernel, tuned, configs, autotune: bool, batch: int, arguments, steps=None, **constants) -> None:
    """Start a recurrence with its tuned tile, or have the candidates measured: once, or for each of the steps."""
    constants |= {{"HEADS": HEADS, "D": D, "enable_fp_fusion": True}}

    def grid(chosen):
        return HEADS * triton.cdiv(D, chosen.get("BLOCK_M", D)), triton.cdiv(batch, chosen["BLOCK_B"])

    best = configs[0]
    if autotune:
        run = tuned[grid]
    else:
        run = kernel[grid(best.kwargs)]
        constants |= {{**best.kwargs, "num_warps": best.num_warps, "num_stages": best.num_stages}}
    with _no_warp_groups() if steps is None else contextlib.nullcontext():
        for step in [()] if steps is None else [(step,) for step in steps]:
            run(*arguments, *step, **constants)


@torch.library.custom_op("{name}::forward", mutates_args=())
def forward_op(
    wx: Tensor, r: Tensor, b: Tensor, initial: Tensor, save: bool, autotune: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """h after every step, the states after the last; and what a backward pass reads: other states, and gates."""
    batch, seq = wx.shape[:2]
    states = wx.new_empty((batch, seq, HEADS, D))
    last = torch.empty_like(initial)
    others = wx.new_empty(({states - 1} if save else 0, batch, seq, HEADS, D))
    gates = wx.new_empty(({saved} if save else 0, batch, seq, HEADS, D))
{carried}    with _device(wx):
        arguments = ({forward_names})
        _launch(forward_kernel, forward_tuned, FORWARD, autotune, batch, arguments, SAVE=save, {run_forward})
    return states, last, others, gates


@forward_op.register_fake
def _(wx, r, b, initial, save, autotune):
    batch, seq = wx.shape[:2]
    others = wx.new_empty(({states - 1} if save else 0, batch, seq, HEADS, D))
    gates = wx.new_empty(({saved} if save else 0, batch, seq, HEADS, D))
    return wx.new_empty((batch, seq, HEADS, D)), torch.empty_like(initial), others, gates


@torch.library.custom_op("{name}::backward", mutates_args=())
def backward_op(
    r: Tensor,
    b: Tensor,
    initial: Tensor,
    states: Tensor,
    others: Tensor,
    gates: Tensor,
    d_states: Tensor,
    d_last: Tensor,
    autotune: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wx, r, b and initial, from those of h and of the last states."""
    batch, seq = states.shape[:2]
    d_wx = states.new_empty((batch, seq, {gates}, HEADS, D))
    d_r, d_b, d_initial = torch.empty_like(r), torch.empty_like(b), torch.empty_like(initial)
    # What the kernels leave for each other: of gates without an input, and sums of parts of the steps.
    d_inputless = states.new_empty((batch, seq, {products}, HEADS, D))
    num_partials = triton.cdiv(batch, min(config.kwargs["BLOCK_B"] for config in BACKWARD))
    d_b_partial = states.new_zeros((num_partials, {biases}, HEADS, D), dtype=torch.float32)
    d_r_parts = states.new_empty((PARTS, {recurrent}, HEADS, D, D), dtype=torch.float32)
    d_b_parts = states.new_empty((PARTS, {bias}, HEADS, D), dtype=torch.float32)
{d_carried}    with _device(states):
        arguments = (
            {backward_names}
        )
        _launch(backward_kernel, backward_tuned, BACKWARD, autotune, batch, arguments, {run_backward})
        tiles = triton.cdiv(D, PARAMETER_TILE["BLOCK_M"])
        parameter_gradients_kernel[HEADS * {members}, tiles * tiles, PARTS](
            {gradient_names},
            HEADS=HEADS,
            D=D,
            **PARAMETER_TILE,
            num_warps=4,
            enable_fp_fusion=True,
        )
        sum_of_parts_kernel[(triton.cdiv(HEADS * {sizes}, SUM_BLOCK),)](
            {sum_names},
            HEADS=HEADS,
            D=D,
            BLOCK=SUM_BLOCK,
            PARTS=PARTS,
            num_warps=4,
            enable_fp_fusion=True,
        )
    return d_wx, d_r, d_b, d_initial


@backward_op.register_fake
def _(r, b, initial, states, others, gates, d_states, d_last, autotune):
    batch, seq = states.shape[:2]
    d_wx = states.new_empty((batch, seq, {gates}, HEADS, D))
    return d_wx, torch.empty_like(r), torch.empty_like(b), torch.empty_like(initial)


def _setup_context(ctx, inputs, output) -> None:
    _, r, b, initial, save, ctx.autotune = inputs
    states, _, others, gates = output
    ctx.save_for_backward(r, b, initial, states, others, gates)
    ctx.mark_non_differentiable(others, gates)
    ctx.saved = save


def _backward(ctx, d_states, d_last, *_):
    if not ctx.saved:
        raise RuntimeError("nothing was saved for a backward pass; call {function_name(cell)}() itself")
    r, b, initial, states, others, gates = ctx.saved_tensors
    d_states = torch.zeros_like(states) if d_states is None else d_states.contiguous()
    d_last = torch.zeros_like(initial) if d_last is None else d_last.contiguous()
    return *backward_op(r, b, initial, states, others, gates, d_states, d_last, ctx.autotune), None, None


forward_op.register_autograd(_backward, setup_context=_setup_context)


def {function_name(cell)}(
    wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None = None, *, autotune: bool = False
) -> tuple[Tensor, Tensor]:
    """h after every step [B, T, {shape.heads}, {shape.head_dim}] and the states after the last one \
[{states}, B, {shape.heads}, {shape.head_dim}]; see the top of this file.

    Raises ValueError for a tensor of another shape, dtype or device.
    """
    if wx.ndim != 5 or 0 in wx.shape[:2]:
        raise ValueError(f"wx must be [B, T, {gates}, {{HEADS}}, {{D}}], nowhere empty, not {{list(wx.shape)}}")
    batch, seq = wx.shape[:2]
    if initial is None:
        initial = wx.new_zeros(({states}, batch, HEADS, D))
    for what, tensor, shape in (
        ("wx", wx, (batch, seq, {gates}, HEADS, D)),
        ("r", r, ({recurrent}, HEADS, D, D)),
        ("b", b, ({bias}, HEADS, D)),
        ("initial", initial, ({states}, batch, HEADS, D)),
    ):
        if tuple(tensor.shape) != shape or tensor.dtype != DTYPE or tensor.device != wx.device:
            raise ValueError(
                f"{{what}} must be {{DTYPE}} {{list(shape)}} on {{wx.device}}, "
                f"not {{tensor.dtype}} {{list(tensor.shape)}} on {{tensor.device}}"
            )
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (wx, r, b, initial))
    h, last, _, _ = forward_op(
        wx.contiguous(), r.contiguous(), b.contiguous(), initial.contiguous(), save, autotune
    )
    return h, last
'''
