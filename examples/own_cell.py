"""A cell of one's own: the minimal gated unit (Zhou et al. 2016, arXiv:1603.09420), reset after the product.

    tilesmith cells show examples/own_cell.py:MGU
    tilesmith plan examples/own_cell.py:MGU --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64 --dtype bfloat16

One gate f both forgets and resets; as in PyTorch's GRU, it resets the recurrent product, R h, rather than h.
"""

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate, state):
    f = sigmoid(gate.f)
    candidate = tanh(gate.x + f * gate.g)
    return {"h": state.h + f * (candidate - state.h)}


MGU = Cell(
    name="mgu",
    title="Minimal gated unit",
    paper="Zhou et al. 2016, arXiv:1603.09420",
    states=("h",),
    gates=(Gate("f"), Gate("x", recurrent=False), Gate("g", input=False, bias=False)),
    step=step,
)
