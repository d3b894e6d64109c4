"""A cell of one's own, from scratch: FastGRNN (Kusupati et al. 2018, arXiv:1901.02358).

    tilesmith cells show examples/own_cell.py:FASTGRNN
    tilesmith plan examples/own_cell.py:FASTGRNN --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64

The update gate and the candidate share one sum a = R h + Wx and differ by their biases, z and n. Gates with a bias
alone are learned numbers of each unit: these two, and the two weights of the mixture.
"""

from kernelgen.cells.language import Cell, Gate, sigmoid, tanh


def step(gate, state):
    update = sigmoid(gate.a + gate.z)
    candidate = tanh(gate.a + gate.n)
    weight = sigmoid(gate.zeta) * (1 - update) + sigmoid(gate.nu)
    return {"h": weight * candidate + update * state.h}


def number(name):
    return Gate(name, recurrent=False, input=False)


FASTGRNN = Cell(
    name="fastgrnn",
    title="FastGRNN",
    paper="Kusupati et al. 2018, arXiv:1901.02358",
    states=("h",),
    gates=(Gate("a", bias=False), number("z"), number("n"), number("zeta"), number("nu")),
    step=step,
)
