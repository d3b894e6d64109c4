"""The kernels of the Triton schedule that keeps R: one program runs a tile of the batch of one head through all steps.

Units are rows of a tile and sequences its columns, so that a tile may have as few as 8 of them. Every gate has a
product of its own: of its part of R by h and, backward, of that part transposed by the gate's gradient. Threads hold
all that a step reads, computes and writes in the order in which they hold a product's result (emit/triton_tiles.py), so
only the right sides of the products pass through shared memory.

A step's products stand at its end, and forward once before the loop: what does not wait for them hides behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernelgen.cells.language import Cell
from kernelgen.emit import triton_tiles as tiles
from kernelgen.emit.triton import SplitStepText, StepText
from kernelgen.emit.triton_text import OFFSETS, TYPES, Body, Lines, signature, zero_tile
from kernelgen.program.arguments import known_states
from kernelgen.program.shape import Shape
from kernelgen.symbolic.derive import derive

CONSTANTS = ("HEADS", "D", "BLOCK_B", "BLOCK_D", "WEIGHTS_IN_REGISTERS")

ZEROS = zero_tile("BLOCK_D")


def forward(cell: Cell, shape: Shape, entry: str, num_stages: int, *, may_save: bool = False) -> Body:
    """The forward kernel, whose tile is BLOCK_B sequences by BLOCK_D units.

    num_stages: how many steps before its own the inputs of a step are loaded; the loop's body has as many steps, so
    that none of them moves what was loaded from register to register, and waits for it. may_save: only h is written for
    every step unless a further constant, SAVE, says so.
    """
    step, names = StepText(cell), [gate.name for gate in cell.gates]
    saved = derive(cell).saved_gates if shape.save == "gates" else ()
    known, states, dtype = known_states(cell, shape), cell.states, TYPES[shape.dtype]
    arguments = ("wx", "r", "b", "initial", "states", "others", "last", "gates", "batch", "seq")
    out = Lines()
    _forward_docstring(out, cell, known, len(saved))
    _place(out, shape)
    _load_weights(out, cell, "load_weights")
    _load_biases(out, cell)
    out.add(f"h = {_tile('tl.load(initial + row, mask=given, other=0.0)')}")
    for index, state in enumerate(states[1:], 1):
        out.add(f"state_{state} = {_float_tile(_load_state('initial', index, 'given'))}")
    if cell.input_gates:
        out.add(f"fed = ahead_rows * seq * ({len(cell.input_gates)} * HEADS * D) + head * D + ahead_own")
    if known > 1:
        out.add("others = tl.where(others.to(tl.int64) != 0, others, states + history_size)")
    for stage in range(num_stages + 1):
        _load_inputs(out, cell, stage, str(stage), f"{stage} < seq")
    _right(out, cell)
    _add_products(out, cell, 0)
    out.add(f"for t in {_steps(num_stages)}:")
    out.depth = 2
    out.add("time = tl.cast(t, tl.int64)", "now = time * (HEADS * D)")
    if "state_" + states[0] in step.parameters:
        out.add(f"state_{states[0]} = h.to(tl.float32)")
    news = [f"new_{state}" for state in states]
    _call(out, step.name, step.parameters, news, [step.constant(index) for index in range(len(news))])
    out.add(f"h = new_{states[0]}.to({dtype})", *(f"state_{state} = new_{state}" for state in states[1:]))
    _right(out, cell)
    with out.where("SAVE" if may_save and saved else ""):
        for rank, gate in enumerate(saved):
            _store(out, f"{_at('gates', rank)} + place", f"gate_{names[gate]}.to({dtype})")
    _store(out, "states + now + place", "h")
    with out.where("SAVE" if may_save and known > 1 else ""):
        for index, state in enumerate(states[1:known]):
            _store(out, f"{_at('others', index)} + place", f"state_{state}.to({dtype})")
    _add_products(out, cell, 1)
    for stage in range(1, num_stages):
        out.add(*(f"x_{names[gate]}_{stage} = x_{names[gate]}_{stage + 1}" for gate in cell.input_gates))
    _load_inputs(out, cell, num_stages, f"(time + {num_stages + 1})", f"t + {num_stages + 1} < seq")
    out.depth = 1
    _store(out, "last + row", "h")
    for index, state in enumerate(states[1:], 1):
        _store(out, f"last + {index} * state_size + row", f"state_{state}.to({dtype})")
    kernel = signature(entry, arguments, (*CONSTANTS, *(["SAVE"] if may_save else []))) + out.text()
    return Body(step.used, _functions(shape, tiles.FORWARD_WEIGHTS, step.text()), kernel, arguments, arguments[4:8])


def _forward_docstring(out: Lines, cell: Cell, known: int, saved: int) -> None:
    out.add(
        '"""Every step of BLOCK_B sequences of one head.',
        "",
        f"wx: [batch, seq, {len(cell.input_gates)}, HEADS, D]. r: [{len(cell.recurrent_gates)}, HEADS, D (unit), "
        f"D (previous unit)]. b: [{len(cell.bias_gates)}, HEADS, D].",
        f"initial, last: [{len(cell.states)}, batch, HEADS, D]; initial may be null, for zeros.",
        f"states: [{known}, batch, seq, HEADS, D]"
        + ("; or h alone, the other states in others." if known > 1 else "."),
        *([f"gates: [{saved}, batch, seq, HEADS, D], sums before the step."] if saved else []),
        '"""',
    )


def _load_biases(out: Lines, cell: Cell) -> None:
    """Biases, a column of units; of gates that are nothing but their bias, as tiles."""
    changing = {*cell.recurrent_gates} | {*cell.input_gates}
    if cell.bias_gates:
        out.add("down = unit_of(tl.arange(0, BLOCK_D))[:, None]")
    for rank, gate in enumerate(cell.bias_gates):
        name = cell.gates[gate].name
        load = f"tl.load(b + ({rank} * HEADS + head) * D + down, mask=down < D, other=0.0).to(tl.float32)"
        out.add(f"bias_{name} = {load}" if gate in changing else f"gate_{name} = {load} + {ZEROS}")


def _load_inputs(out: Lines, cell: Cell, stage: int, step: str, exists: str) -> None:
    """Load the inputs of a step, to be those of a stage: so many steps ahead of the loop's. exists: a condition, that
    there is such a step."""
    inputs = len(cell.input_gates)
    for rank, gate in enumerate(cell.input_gates):
        place = f"({step} * {inputs} + {rank}) * (HEADS * D)"
        load = f"load_ahead(wx + {place}, fed, ahead_inside & ({exists}))"
        out.add(f"x_{cell.gates[gate].name}_{stage} = {load}")


def _right(out: Lines, cell: Cell) -> None:
    if cell.recurrent_gates:
        out.add(f"right = {_right_side('h')}")


def _add_products(out: Lines, cell: Cell, stage: int) -> None:
    """The sums of the gates that change, of the inputs of a stage."""
    for gate in sorted({*cell.recurrent_gates} | {*cell.input_gates}):
        name = cell.gates[gate].name
        parts = [f"bias_{name}"] if gate in cell.bias_gates else []
        parts = [_floats(f"x_{name}_{stage}")] * (gate in cell.input_gates) + parts
        if gate in cell.recurrent_gates:
            given = f" + ({' + '.join(parts)})" if parts else ""
            out.add(f"gate_{name} = {_product(name, 'right', ZEROS)}{given}")
        else:
            out.add(f"gate_{name} = {' + '.join(parts)}")


def backward(cell: Cell, shape: Shape, entry: str, num_stages: int) -> Body:
    """The backward kernel, of gates that were saved; it leaves the gradients of R and b to what follows. num_stages: as
    of the forward kernel."""
    step, code, dtype = SplitStepText(cell), derive(cell), TYPES[shape.dtype]
    known, states = known_states(cell, shape), cell.states
    read = ("r", "b", "initial", "states", "others", "gates", "d_states", "d_last")
    writes = ["d_wx", *(["d_inputless"] if cell.inputless_products else [])]
    writes += [*(["d_b_partial"] if cell.inputless_biases else []), "d_initial"]
    arguments = (*read, *writes, "batch", "seq")
    out = Lines()
    _backward_docstring(out, cell, known)
    _place(out, shape)
    if not cell.gradient.recurrent_cut:
        _load_weights(out, cell, "load_transposed")
    single = [gate for gate in code.gates if gate not in code.saved_gates]
    if single or cell.inputless_biases:
        out.add("down = unit_of(tl.arange(0, BLOCK_D))[:, None]")
    for gate in single:
        load = f"tl.load(b + ({cell.bias_gates.index(gate)} * HEADS + head) * D + down, mask=down < D, other=0.0)"
        out.add(f"gate_{cell.gates[gate].name} = {load}.to(tl.float32) + {ZEROS}")
    out.add("ended = inside & (d_last.to(tl.int64) != 0)")
    for index, state in enumerate(states):
        out.add(f"carried_{state} = {_float_tile(_load_state('d_last', index, 'ended'))}")
    if any(index > 0 for index in code.states):
        out.add("others = tl.where(others.to(tl.int64) != 0, others, states + history_size)")
    if cell.inputless_biases:
        out.add(f"real = {_tile('inside')}")
        out.add(*(f"d_b_{cell.gates[gate].name} = {ZEROS}" for gate in cell.inputless_biases))
    out.add("last_step = seq - 1")
    for index in code.states:
        out.add(f"first_{states[index]} = {_float_tile(_load_state('initial', index, 'given'))}")
    for stage in range(num_stages + 1):
        _load_step(out, cell, known, stage, f"last_step - {stage}")
    _prepare(out, cell, step, 0, "last_step == 0")
    if len(cell.recurrent_gates) > 1 and not cell.gradient.recurrent_cut:
        # A sum of products that start from a constant 0 is made one chain by Triton, each waiting for the one before.
        first = cell.gates[cell.recurrent_gates[0]].name
        out.add(f"nothing = {_product(first, _right_side(f'{ZEROS}.to({dtype})'), ZEROS)}")
    if num_stages == 1:
        out.add("for back in range(seq):")
    else:
        # So many steps as the body has, in a number that it divides: of the steps left over there would be a loop of
        # its own, for which the compiler keeps R a second time, packed otherwise.
        whole = f"tl.cdiv(seq, {num_stages}) * {num_stages}"
        out.add(f"for back in tl.range(0, {whole}, loop_unroll_factor={num_stages}):")
    out.depth = 2
    out.add("t = last_step - back", "written = inside & (t >= 0)")
    _critical(out, cell, shape, step)
    _prepare(out, cell, step, 1, "t == 1")
    for stage in range(num_stages):
        out.add(*(f"{name}_{stage} = {name}_{stage + 1}" for name in _loaded(cell, known, ahead=stage > 0)))
    for index, state in enumerate(states):
        _store(out, _of_state("d_initial", index), f"carried_{state}.to({dtype})", "inside & (t == 0)")
    _load_step(out, cell, known, num_stages, f"t - {num_stages + 1}")
    out.depth = 1
    for place, gate in enumerate(cell.inputless_biases):
        base = f"d_b_partial + ((tl.program_id(1) * {len(cell.inputless_biases)} + {place}) * HEADS + head) * D + down"
        total = f"tl.sum(d_b_{cell.gates[gate].name}, axis=1)[:, None]"
        out.add(f"tl.store({base}, {total}, mask=down < D)")
    kernel = signature(entry, arguments, CONSTANTS) + out.text()
    return Body(step.used, _functions(shape, tiles.BACKWARD_WEIGHTS, step.text()), kernel, arguments, tuple(writes))


def _backward_docstring(out: Lines, cell: Cell, known: int) -> None:
    out.add(
        '"""The gradients of BLOCK_B sequences of one head, from the last step to the first.',
        "",
        "r, initial and b as of the forward kernel; states, others and gates as it saved them.",
        f"d_states: [{known}, batch, seq, HEADS, D]. d_last, d_initial: [{len(cell.states)}, batch, HEADS, D]; "
        "d_last may be null, for zeros.",
        f"d_wx: [batch, seq, {len(cell.input_gates)}, HEADS, D].",
        '"""',
    )


def _loaded(cell: Cell, known: int, *, ahead: bool) -> list[str]:
    """What a step reads, by the names of its lists; ahead: with what its hoisted part does."""
    code = derive(cell)
    hoisted = [f"sum_{cell.gates[gate].name}" for gate in code.saved_gates]
    hoisted += [f"before_{cell.states[index]}" for index in code.states]
    return (hoisted if ahead else []) + [f"d_{cell.states[index]}" for index in range(known)]


def _load_step(out: Lines, cell: Cell, known: int, stage: int, step: str) -> None:
    """Load what a step reads, to be that of a stage: so many steps after the loop's, in its order."""
    code, states = derive(cell), cell.states
    out.add(
        f"time = tl.cast({step}, tl.int64)",
        "now = time * (HEADS * D)",
        "there = ahead_inside & (time >= 0)",
    )
    for rank, gate in enumerate(code.saved_gates):
        out.add(f"sum_{cell.gates[gate].name}_{stage} = load_ahead({_at('gates', rank)}, ahead, there)")
    for index in code.states:
        name = f"before_{states[index]}_{stage}"
        earlier = _at("others", index - 1) if index else _at("states", 0)
        out.add(f"{name} = load_ahead({earlier} - HEADS * D, ahead, ahead_inside & (time > 0))")
    for index in range(known):
        out.add(f"d_{states[index]}_{stage} = load_ahead({_at('d_states', index)}, ahead, there)")


def _prepare(out: Lines, cell: Cell, step: SplitStepText, stage: int, first: str) -> None:
    """The hoisted part of the step of a stage. first: a condition, that it is the first of all."""
    code = derive(cell)
    for gate in code.saved_gates:
        out.add(f"gate_{cell.gates[gate].name} = {_floats(f'sum_{cell.gates[gate].name}_{stage}')}")
    for index in code.states:
        state = cell.states[index]
        out.add(f"state_{state} = tl.where({first}, first_{state}, {_floats(f'before_{state}_{stage}')})")
    if step.ready:
        _call(out, "prepare_step", step.hoisted_parameters, [f"ready_{name}" for name in step.ready], [])


def _critical(out: Lines, cell: Cell, shape: Shape, step: SplitStepText) -> None:
    """What a step does with the gradients that the later one left, up to those that it leaves itself."""
    dtype, states, known = TYPES[shape.dtype], cell.states, known_states(cell, shape)
    h = states[0]
    clip = cell.gradient.recurrent_clip
    if clip is not None:
        step.used.update(("minimum", "maximum"))
        clipped = f"minimum({clip!r}, maximum(-{clip!r}, carried_{h}))"
        out.add(f"carried_{h} = tl.where(back > 0, {clipped}, carried_{h})")
    for index in step.seeds:
        state = states[index]
        outside = f" + {_floats(f'd_{state}_0')}" if index < known else ""
        out.add(f"d_next_{state} = carried_{state}{outside}")
    parameters = [f"ready_{name}" if name in step.ready else name for name in step.parameters]
    constant = [step.constant(index) for index in range(len(step.results))]
    _call(out, step.name, parameters, step.results, constant)
    sent = sorted({*cell.recurrent_gates} | {*cell.input_gates})
    out.add(*(f"sent_{cell.gates[gate].name} = d_sum_{cell.gates[gate].name}.to({dtype})" for gate in sent))
    if not cell.gradient.recurrent_cut:
        # All before the first product: else each would wait until the memory of the one before is free.
        names = [cell.gates[gate].name for gate in cell.recurrent_gates]
        out.add(*(f"right_{name} = {_right_side(f'sent_{name}')}" for name in names))
    out.add("time = tl.cast(t, tl.int64)")
    for array, members in (("d_wx", cell.input_gates), ("d_inputless", cell.inputless_products)):
        for rank, gate in enumerate(members):
            place = f"(time * {len(members)} + {rank}) * (HEADS * D) + rows * seq * ({len(members)} * HEADS * D) + unit"
            _store(out, f"{array} + {place}", f"sent_{cell.gates[gate].name}", "written")
    out.add(f"carried_{h} = {_taken_back(cell, shape, f'd_state_{h}', step.constant(len(cell.gates)))}")
    for gate in cell.inputless_biases:
        name = cell.gates[gate].name
        out.add(f"d_b_{name} += tl.where(real & (t >= 0), d_sum_{name}, 0.0)")
    out.add(*(f"carried_{state} = d_state_{state}" for state in states[1:]))


def _taken_back(cell: Cell, shape: Shape, own: str, nothing_of_its_own: bool) -> str:
    """The gradient of the h before: what the step itself gives it, and what R takes back. own: the former."""
    names = [cell.gates[gate].name for gate in cell.recurrent_gates]
    if cell.gradient.recurrent_cut or not names:
        return own
    if len(names) == 1:
        return _sum([_product(names[0], f"right_{names[0]}", ZEROS), *([] if nothing_of_its_own else [own])])
    made = [_product(name, f"right_{name}", "nothing") for name in names]
    return _sum([*([] if nothing_of_its_own else [own]), *made])


def _sum(parts: Sequence[str]) -> str:
    """A sum in which few additions wait for each other."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    left, right = _sum(parts[:half]), _sum(parts[half:])
    return f"{left} + ({right})" if len(parts) - half > 1 else f"{left} + {right}"


def _steps(num_stages: int) -> str:
    """The loop over all steps, whose body has ``num_stages`` of them."""
    return "range(seq)" if num_stages == 1 else f"tl.range(0, seq, loop_unroll_factor={num_stages})"


def _place(out: Lines, shape: Shape) -> None:
    """Which head and sequences a program has, and masks where tiles are larger than the arrays."""
    out.add(
        "head = tl.program_id(0)",
        "own, sequence = place_of(BLOCK_D, BLOCK_B, 1)",
        "rows = tl.program_id(1).to(tl.int64) * BLOCK_B + sequence",
        "inside = (rows < batch) & (own < D)",
        "unit = head * D + own  # among the units of all heads",
        *OFFSETS,
        f"ahead_own, sequence = place_of(BLOCK_D, BLOCK_B, {tiles.loaded_together(shape)})  # of what is loaded ahead",
        "ahead_rows = tl.program_id(1).to(tl.int64) * BLOCK_B + sequence",
        "ahead_inside = (ahead_rows < batch) & (ahead_own < D)",
        "ahead = ahead_rows * seq * (HEADS * D) + head * D + ahead_own",
    )


def _load_weights(out: Lines, cell: Cell, function: str) -> None:
    for rank, gate in enumerate(cell.recurrent_gates):
        place = f"r + ({rank} * HEADS + head) * D * D"
        out.add(f"weights_{cell.gates[gate].name} = {function}({place}, D, BLOCK_D, WEIGHTS_IN_REGISTERS)")


def _right_side(tile: str) -> str:
    return f"right_side({tile}, BLOCK_D, BLOCK_B)"


def _product(gate: str, right: str, zeros: str) -> str:
    return f"multiply(weights_{gate}, {right}, {zeros}, BLOCK_D, BLOCK_B)"


def _tile(value: str) -> str:
    return f"to_tile({value}, BLOCK_D, BLOCK_B)"


def _floats(loaded: str) -> str:
    return f"as_floats({loaded}, BLOCK_D, BLOCK_B)"


def _float_tile(value: str) -> str:
    return f"{_tile(value)}.to(tl.float32)"


def _of_state(array: str, index: int) -> str:
    """The place of a state in an array [S, batch, HEADS, D]."""
    return f"{array} + {index} * state_size + row" if index else f"{array} + row"


def _load_state(array: str, index: int, mask: str) -> str:
    return f"tl.load({_of_state(array, index)}, mask={mask}, other=0.0)"


def _at(array: str, index: int) -> str:
    """Where the step that ``now`` says begins in an array of such arrays [batch, seq, HEADS, D]."""
    return f"{array} + ({index} * history_size + now)" if index else f"{array} + now"


def _store(out: Lines, place: str, tile: str, mask: str = "inside") -> None:
    out.add(f"tl.store({place}, to_list({tile}, BLOCK_D, BLOCK_B), mask={mask})")


def _call(
    out: Lines, function: str, parameters: Sequence[str], results: Sequence[str], constant: Sequence[bool]
) -> None:
    """Call a function of several results. constant: whether each is a number, which becomes a tile."""
    names = ", ".join(results) + ("," if len(results) == 1 else "")
    out.add(f"{names} = {function}({', '.join(parameters)})")
    out.add(*(f"{name} = {ZEROS} + {name}" for name, is_number in zip(results, constant, strict=False) if is_number))


def _functions(shape: Shape, load_weights: str, step: str) -> tuple[str, ...]:
    return (
        tiles.UNIT_OF,
        tiles.PLACE_OF,
        tiles.TO_TILE,
        tiles.TO_LIST,
        tiles.RIGHT_SIDE,
        tiles.multiply(shape),
        tiles.loading(shape),
        load_weights,
        step,
    )
