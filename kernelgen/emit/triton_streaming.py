"""The kernels of the Triton schedule that reads R in every step: a launch a step, whose programs each make some units.

A program makes BLOCK_M units of a head, all gates of them, for BLOCK_B sequences; BLOCK_K of the units before the step
are multiplied at a time. What a step leaves for the next lies in memory: h in the states that are handed out, the other
states in a workspace, float32; backward the gates' gradients, and those of the states. ``step`` counts the launches.
"""

from __future__ import annotations

from collections.abc import Iterable

from kernelgen.cells.language import Cell
from kernelgen.emit.triton import StepText
from kernelgen.emit.triton_stack import Stack
from kernelgen.emit.triton_text import OFFSETS, TYPES, Body, Lines, product, signature, zero_tile
from kernelgen.program.arguments import known_states
from kernelgen.program.shape import Shape
from kernelgen.symbolic.derive import derive

CONSTANTS = ("HEADS", "D", "BLOCK_M", "BLOCK_B", "BLOCK_K", "STAGES")


def _place(out: Lines, stack: Stack) -> None:
    """Which units of which head and which sequences a program has."""
    out.add(
        "TILES: tl.constexpr = (D + BLOCK_M - 1) // BLOCK_M",
        "head = tl.program_id(0) // TILES",
        "first = tl.program_id(0) % TILES * BLOCK_M",
        "rows = (tl.program_id(1).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B))[None, :]",
        "units = first + tl.arange(0, BLOCK_M)[:, None]",
        "inside = (rows < batch) & (units < D)",
        "unit = head * D + units  # among the units of all heads",
        f"stacked = tl.arange(0, {stack.count} * BLOCK_M)[:, None]",
        "gate = stacked // BLOCK_M",
        "own = first + stacked % BLOCK_M",
        "within = (rows < batch) & (own < D)",
        *OFFSETS,
    )


def _load_single_biases(out: Lines, cell: Cell, gates: Iterable[int]) -> None:
    """Of gates that are nothing but their bias, as tiles."""
    for gate in gates:
        place, name = cell.bias_gates.index(gate), cell.gates[gate].name
        load = f"tl.load(b + {place} * HEADS * D + unit, mask=units < D, other=0.0)"
        out.add(f"gate_{name} = {load}.to(tl.float32) + {zero_tile('BLOCK_M')}")


def forward(cell: Cell, shape: Shape, entry: str, *, may_save: bool = False) -> Body:
    """A forward step, the one that ``step`` says. may_save: only h is handed out of every step unless a further
    constant, SAVE, says so."""
    step, dtype, stack = StepText(cell), TYPES[shape.dtype], Stack(cell)
    saved = derive(cell).saved_gates if shape.save == "gates" else ()
    known, states = known_states(cell, shape), cell.states
    inputs = len(cell.input_gates)
    carried = ("carried",) if len(states) > 1 else ()
    arguments = ("wx", "r", "b", "initial", "states", "others", "last", "gates", *carried, "batch", "seq", "step")
    out = Lines()
    _place(out, stack)
    out.add("time = tl.cast(step, tl.int64)", "here = place + time * (HEADS * D)")
    rank, mask = stack.places(cell.bias_gates)
    if cell.bias_gates and (not mask or "1" in mask):
        load = f"tl.load(b + (({rank}) * HEADS + head) * D + own, mask=(own < D){mask}, other=0.0)"
        out.add(f"sums = {load}.to(tl.float32) + tl.zeros(({stack.count} * BLOCK_M, BLOCK_B), dtype=tl.float32)")
    else:
        out.add(f"sums = tl.zeros(({stack.count} * BLOCK_M, BLOCK_B), dtype=tl.float32)")
    rank, mask = stack.places(cell.recurrent_gates)
    out.add(
        f"weight = r + (({rank}) * HEADS + head) * D * D + own * D",
        "# h before the step: of the first from initial, or zeros.",
        "before = states + rows * seq * (HEADS * D) + (time - 1) * (HEADS * D) + head * D",
        "start = initial + rows * (HEADS * D) + head * D",
        "known = (step > 0) & (rows < batch)",
        "begun = (step == 0) & (rows < batch) & (initial.to(tl.int64) != 0)",
        "for k in tl.range(0, D, BLOCK_K, num_stages=STAGES):",
    )
    out.depth = 2
    out.add(
        "across = k + tl.arange(0, BLOCK_K)[None, :]",
        "down = k + tl.arange(0, BLOCK_K)[:, None]",
        f"weights = tl.load(weight + across, mask=(own < D) & (across < D){mask}, other=0.0)",
        "h = tl.load(before + down, mask=known & (down < D), other=0.0)",
        "h += tl.load(start + down, mask=begun & (down < D), other=0.0)",
        f"sums = {product('weights', 'h', 'sums', shape.dtype)}",
    )
    out.depth = 1
    if inputs:
        rank, mask = stack.places(cell.input_gates)
        out.add(
            f"x = wx + (rows * seq + time) * ({inputs} * HEADS * D) + (({rank}) * HEADS + head) * D + own",
            f"sums += tl.load(x, mask=within{mask}, other=0.0).to(tl.float32)",
        )
    if saved:
        rank, mask = stack.places(saved)
        out.add(
            f"kept = gates + ({rank}) * history_size + (rows * seq + time) * (HEADS * D) + head * D + own",
            f"tl.store(kept, sums.to({dtype}), mask=within{mask}{' & SAVE' if may_save else ''})",
        )
    out.add(stack.apart("sums"))
    _load_single_biases(out, cell, [gate for gate in range(len(cell.gates)) if gate not in stack.gates])
    for index, state in enumerate(states):
        if f"state_{state}" not in step.parameters:
            continue
        earlier = "states + here - HEADS * D" if index == 0 else f"carried + {index - 1} * state_size + row"
        first = f"initial + {index} * state_size + row" if index else "initial + row"
        out.add(
            f"state_{state} = tl.load({earlier}, mask=inside & (step > 0), other=0.0).to(tl.float32)",
            f"state_{state} += tl.load({first}, mask=given & (step == 0), other=0.0).to(tl.float32)",
        )
    news = [f"new_{state}" for state in states]
    out.add(f"{', '.join(news)}{',' if len(news) == 1 else ''} = step_of_cell({', '.join(step.parameters)})")
    for index, new in enumerate(news):
        if step.constant(index):
            out.add(f"{new} = {zero_tile('BLOCK_M')} + {new}")
    out.add(f"tl.store(states + here, new_{states[0]}.to({dtype}), mask=inside)")
    if known > 1:
        out.add("others = tl.where(others.to(tl.int64) != 0, others, states + history_size)")
    for index, state in enumerate(states[1:], 1):
        out.add(f"tl.store(carried + {index - 1} * state_size + row, new_{state}, mask=inside)")
        if index < known:
            base = "others" if index == 1 else f"others + {index - 1} * history_size"
            saves = "inside & SAVE" if may_save else "inside"
            out.add(f"tl.store({base} + here, new_{state}.to({dtype}), mask={saves})")
    out.add("ended = inside & (step == seq - 1)")
    for index, state in enumerate(states):
        base = f"last + {index} * state_size" if index else "last"
        out.add(f"tl.store({base} + row, new_{state}.to({dtype}), mask=ended)")
    kernel = signature(entry, arguments, (*CONSTANTS, *(["SAVE"] if may_save else []))) + out.text()
    functions = (*stack.functions(), step.text().replace("def step(", "def step_of_cell("))
    return Body(step.used, functions, kernel, arguments, ("states", "others", "last", "gates", *carried))


def backward(cell: Cell, shape: Shape, entry: str) -> Body:
    """A backward step; of the seq + 1 launches the first is of the last step, and the last writes d_initial alone."""
    step, code, dtype = StepText(cell, backward=True), derive(cell), TYPES[shape.dtype]
    stack, saved = Stack(cell), code.saved_gates
    known, states = known_states(cell, shape), cell.states
    recurrent = () if cell.gradient.recurrent_cut else cell.recurrent_gates
    read = ("r", "b", "initial", "states", "others", "gates", "d_states", "d_last")
    writes = ["d_wx", *(["d_inputless"] if cell.inputless_products else [])]
    writes += [*(["d_b_partial"] if cell.inputless_biases else []), "d_initial", "d_carried"]
    arguments = (*read, *writes, "batch", "seq", "step")
    h = states[0]
    out = Lines()
    _place(out, stack)
    out.add(
        "t = seq - 1 - step",
        "time = tl.cast(t, tl.int64)",
        "here = place + time * (HEADS * D)",
        "ended = inside & (step == 0) & (d_last.to(tl.int64) != 0)",
        "going = inside & (step > 0)",
    )
    for index, state in enumerate(states):
        offset = f"{index} * state_size + row" if index else "row"
        out.add(
            f"carried_{state} = tl.load(d_last + {offset}, mask=ended, other=0.0).to(tl.float32)",
            f"carried_{state} += tl.load(d_carried + {offset}, mask=going, other=0.0)",
        )
    if recurrent:
        out.add(
            "# What R takes back: of all gates of all units, from the step after this one.",
            "present = (step > 0) & (rows < batch)",
            "following = rows * seq + time + 1",
        )
    for gate in recurrent:
        each = cell.gates[gate]
        array, members = ("d_wx", cell.input_gates) if each.input else ("d_inputless", cell.inputless_products)
        place = f"following * ({len(members)} * HEADS * D) + ({members.index(gate)} * HEADS + head) * D"
        out.add(
            f"sent_{each.name} = {array} + {place}",
            f"weight_{each.name} = r + ({cell.recurrent_gates.index(gate)} * HEADS + head) * D * D + units",
        )
    if recurrent:
        names = [cell.gates[gate].name for gate in recurrent]
        out.add(
            "# Zeros of which the compiler does not know: else it makes the sums one chain, each waiting for another."
        )
        out.add(f"nothing = {zero_tile('BLOCK_M')} + tl.where(step < 0, 1.0, 0.0)")
        out.add(*(f"taken_{name} = nothing" for name in names))
        out.add("for k in tl.range(0, D, BLOCK_K, num_stages=STAGES):")
        out.depth = 2
        out.add("across = k + tl.arange(0, BLOCK_K)[None, :]", "down = k + tl.arange(0, BLOCK_K)[:, None]")
        for name in names:
            out.add(
                f"weights_{name} = tl.load(weight_{name} + across * D, mask=(units < D) & (across < D), other=0.0)",
                f"d_sums_{name} = tl.load(sent_{name} + down, mask=present & (down < D), other=0.0)",
            )
        for name in names:
            out.add(f"taken_{name} = {product(f'weights_{name}', f'd_sums_{name}', f'taken_{name}', shape.dtype)}")
        out.depth = 1
        out.add(*(f"carried_{h} += taken_{name}" for name in names))
    out.add("if t < 0:")
    out.depth = 2
    for index, state in enumerate(states):
        offset = f"{index} * state_size + row" if index else "row"
        out.add(f"tl.store(d_initial + {offset}, carried_{state}.to({dtype}), mask=inside)")
    out.depth = 1
    out.add("else:")
    out.depth = 2
    if saved:
        rank, mask = stack.places(saved)
        kept = f"gates + ({rank}) * history_size + (rows * seq + time) * (HEADS * D) + head * D + own"
        out.add(f"saved = tl.load({kept}, mask=within{mask}, other=0.0)", stack.apart("saved.to(tl.float32)"))
    _load_single_biases(out, cell, [gate for gate in code.gates if gate not in saved])
    if any(index > 0 for index in code.states):
        out.add("more = tl.where(others.to(tl.int64) != 0, others, states + history_size)")
    for index in code.states:
        base = ("states", "more")[min(index, 1)] + (f" + {index - 1} * history_size" if index > 1 else "")
        offset = f"{index} * state_size + row" if index else "row"
        name = f"state_{states[index]}"
        out.add(
            f"{name} = tl.load({base} + here - HEADS * D, mask=inside & (t > 0), other=0.0).to(tl.float32)",
            f"{name} += tl.load(initial + {offset}, mask=given & (t == 0), other=0.0).to(tl.float32)",
        )
    clip = cell.gradient.recurrent_clip
    gradient = f"carried_{h}"
    if clip is not None:
        step.used.update(("minimum", "maximum"))
        out.add(f"clipped = minimum({clip!r}, maximum(-{clip!r}, carried_{h}))")
        gradient = f"tl.where(step > 0, clipped, carried_{h})"
    for index in step.seeds:
        state = states[index]
        base = f"d_states + {index} * history_size" if index else "d_states"
        outside = f" + tl.load({base} + here, mask=inside, other=0.0).to(tl.float32)" if index < known else ""
        out.add(f"d_next_{state} = {gradient if index == 0 else f'carried_{state}'}{outside}")
    results = step.results
    called = f"backward_step({', '.join(step.parameters)})"
    out.add(f"{', '.join(results)}{',' if len(results) == 1 else ''} = {called}")
    for index, result in enumerate(results):
        if step.constant(index):
            out.add(f"{result} = {zero_tile('BLOCK_M')} + {result}")
    for array, members in (("d_wx", cell.input_gates), ("d_inputless", cell.inputless_products)):
        for number, gate in enumerate(members):
            offset = f"(rows * seq + time) * ({len(members)} * HEADS * D) + {number} * HEADS * D + unit"
            out.add(f"tl.store({array} + {offset}, d_sum_{cell.gates[gate].name}.to({dtype}), mask=inside)")
    for number, gate in enumerate(cell.inputless_biases):
        partial = f"d_b_partial + (tl.program_id(1) * {len(cell.inputless_biases)} + {number}) * HEADS * D + unit"
        name = cell.gates[gate].name
        out.add(
            f"bias_{name} = tl.load({partial}, mask=(units < D) & (step > 0), other=0.0)",
            f"bias_{name} += tl.sum(tl.where(inside, d_sum_{name}, 0.0), axis=1)[:, None]",
            f"tl.store({partial}, bias_{name}, mask=units < D)",
        )
    for index, state in enumerate(states):
        offset = f"{index} * state_size + row" if index else "row"
        out.add(f"tl.store(d_carried + {offset}, d_state_{state}, mask=inside)")
    kernel = signature(entry, arguments, CONSTANTS) + out.text()
    functions = (*stack.functions(), step.text())
    return Body(step.used, functions, kernel, arguments, tuple(writes))
